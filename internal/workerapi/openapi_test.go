package workerapi_test

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/workerapi"
)

var update = flag.Bool("update", false, "write golden files")

const golden = "../../api/openapi.yaml"

// The description is a contract: a change of it shows in review.
func TestOpenAPIIsGolden(t *testing.T) {
	t.Parallel()
	server := workerapi.Register(http.NewServeMux(), workerapi.Config{Version: "1"})
	got, err := server.OpenAPI()
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "run make generate and review the change")
}

func TestDocsNeedNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	workerapi.Register(mux, workerapi.Config{Version: "1"})
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/docs", nil))
	require.Equal(t, http.StatusOK, w.Code)
	page := w.Body.String()
	require.Contains(t, page, "/v1/create-preview-for-new-project")
	require.NotRegexp(t, `(src|href)="(https?:)?//`, page)
	require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
}

package gateway_test

import (
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/gateway"
)

var update = flag.Bool("update", false, "write golden files")

const golden = "../../api/gateway.yaml"

// The description is a contract: a change of it shows in review.
func TestOpenAPIIsGolden(t *testing.T) {
	t.Parallel()
	got, err := gateway.Register(http.NewServeMux(), gateway.APIConfig{Version: "1"}).OpenAPI()
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "run make generate and review the change")
}

// description is what the test needs of the API's.
type description struct {
	Info struct{ Description string }
	Map  map[string]string `json:"x-worker-status"`

	Paths map[string]map[string]struct {
		OperationID, Summary string
		Security             []map[string][]string
		Responses            map[string]struct {
			Content map[string]any
		}
		Parameters []struct{ Name, Description string }
	}
	Components struct {
		SecuritySchemes map[string]any
	}
}

// Every route says what it does, who may call it and how it fails; every status
// of the worker's has its word.
func TestDescriptionIsWhole(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	gateway.Register(mux, gateway.APIConfig{Version: "1"})
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/openapi.json", nil))
	require.Equal(t, http.StatusOK, w.Code)
	var d description
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &d))
	require.Len(t, d.Map, len(previewd.BuildStatuses()))
	for _, status := range previewd.BuildStatuses() {
		shown, err := status.ProjectStatus()
		require.NoError(t, err)
		require.Equal(t, string(shown), d.Map[string(status)])
		require.Contains(t, d.Info.Description, "| `"+string(status)+"` | `"+string(shown)+"`")
	}
	seen := map[string]bool{}
	for path, operations := range d.Paths {
		for method, op := range operations {
			route := method + " " + path
			require.NotEmpty(t, op.Summary, route)
			require.False(t, seen[op.OperationID], route)
			seen[op.OperationID] = true
			require.Contains(t, op.Responses["default"].Content, "application/problem+json", route)
			want := "user"
			if strings.HasPrefix(path, "/api/admin/") {
				want = "operator"
			}
			require.Equal(t, []map[string][]string{{want: {}}}, op.Security, route)
			require.Contains(t, d.Components.SecuritySchemes, want)
			for _, p := range op.Parameters {
				if !strings.HasSuffix(p.Name, "Id") && !slices.Contains([]string{"number", "kind", "subject", "state", "status"}, p.Name) {
					require.NotEmpty(t, p.Description, "%s %s", route, p.Name)
				}
			}
		}
	}
}

func TestDocsNeedNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	for _, alone := range []bool{false, true} {
		mux := http.NewServeMux()
		gateway.Register(mux, gateway.APIConfig{Version: "1", Alone: alone})
		get := func(path string) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			return w
		}
		w := get("/api/docs")
		require.Equal(t, http.StatusOK, w.Code)
		require.Contains(t, w.Body.String(), "/api/projects/{projectId}")
		require.NotRegexp(t, `(src|href)="(https?:)?//`, w.Body.String())
		require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
		want := http.StatusNotFound
		if alone {
			want = http.StatusFound
		}
		require.Equal(t, want, get("/docs").Code)
		require.Equal(t, want, get("/openapi.json").Code)
	}
}

package httpx_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/httpx"
)

type textInput struct {
	Body struct {
		Text string `json:"text"`
	}
}

// A body that breaks off is the sender's fault, and no error of the server's to
// be woken for.
func TestBrokenBodyIsTheSendersFault(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	api := httpx.NewAPI(mux, httpx.APIConfig{Title: "test", Version: "1", Security: httpx.ServiceSecurity()})
	op := huma.Operation{Method: http.MethodPost, Path: "/x", OperationID: "x"}
	httpx.Route(api, httpx.Anyone, op, func(context.Context, *textInput) (*struct{}, error) { return nil, nil })
	var log strings.Builder
	handler := httpx.WithRequest(slog.New(slog.NewTextHandler(&log, nil)), httpx.WithBodyLimit(mux))
	for _, cause := range []error{io.ErrUnexpectedEOF, errors.New("malformed chunked encoding")} {
		body := io.MultiReader(strings.NewReader(`{"text":`), iotest.ErrReader(cause))
		r := httptest.NewRequest(http.MethodPost, "/x", body)
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		require.Equal(t, http.StatusBadRequest, w.Code, w.Body)
		require.Contains(t, w.Body.String(), "ends too early")
		require.Empty(t, log.String())
	}
}

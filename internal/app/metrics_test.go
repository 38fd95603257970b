package app

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/worker"
)

func scrape(t *testing.T, h http.Handler, token string) (status int, text string) {
	t.Helper()
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "test.db")})
	require.NoError(t, err)
	service, err := worker.New(worker.Config{
		Store: db, Artifacts: artifact.OpenFolder(dir), Changes: new(event.Hub), PreviewURL: func(string) string { return "" },
	})
	require.NoError(t, err)
	service.Counts().Replays.Add(3)
	m := newMetrics("v9", db)
	m.watchWorker(service)
	tokens := httpx.Tokens{{Secret: "test-token-0123456789"}}
	here := m.handler(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, tokens)

	status, text := scrape(t, here, "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, text, "\npreviewd_invariant_check_timestamp_seconds 0\n", "not checked yet")
	require.Contains(t, text, `previewd_build_info{engine="sqlite",version="v9"} 1`)
	require.Contains(t, text, "\npreviewd_create_replays_total 3\n")
	require.Contains(t, text, "\npreviewd_legacy_client_ids_total 0\n")
	require.Contains(t, text, "\npreviewd_queue_waiting 0\n")
	require.Contains(t, text, "\npreviewd_queue_running 0\n")
	require.Contains(t, text, "\ngo_goroutines ")
	require.Contains(t, text, "\nprocess_start_time_seconds ")

	found, err := service.CheckIntegrity(t.Context())
	require.NoError(t, err)
	found.Checks[0].Count, found.CheckedAt = 2, time.Unix(1234, 0)
	m.show(found)
	_, text = scrape(t, here, "")
	require.Contains(t, text, `previewd_invariant_violations{name="project_without_first_build"} 2`)
	require.Contains(t, text, `previewd_invariant_violations{name="audit_chain_broken"} 0`)
	require.Contains(t, text, "\npreviewd_invariant_check_timestamp_seconds 1234\n")

	for _, open := range []net.Addr{&net.TCPAddr{IP: net.IPv4zero}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, &net.UnixAddr{Name: "x"}} {
		guarded := m.handler(open, tokens)
		status, text = scrape(t, guarded, "")
		require.Equal(t, http.StatusUnauthorized, status)
		require.Contains(t, text, previewd.CodeUnauthorized)
		require.NotContains(t, text, "previewd_queue")
		status, _ = scrape(t, guarded, "another-token-0123456789")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = scrape(t, guarded, tokens[0].Secret)
		require.Equal(t, http.StatusOK, status)
	}

	require.NoError(t, db.Close())
	status, text = scrape(t, here, "")
	require.Equal(t, http.StatusOK, status, "the rest is shown without a database")
	require.NotContains(t, text, "previewd_queue_waiting ")
}

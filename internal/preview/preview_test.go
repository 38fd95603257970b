package preview_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/preview"
)

// source plays the worker for one project.
type source struct {
	project string
	site    previewd.Site
	build   previewd.Build
	events  []previewd.Event
}

func (s *source) FindSite(_ context.Context, projectID, buildID string) (*previewd.Site, error) {
	if projectID != s.project && buildID != s.site.BuildID {
		return nil, previewd.NotFound("project", projectID)
	}
	site := s.site
	return &site, nil
}

func (s *source) FindBuild(context.Context, string, time.Duration) (*previewd.Build, error) {
	b := s.build
	return &b, nil
}

func (s *source) ListBuildEvents(_ context.Context, _ string, after int64, _ int) ([]previewd.Event, error) {
	return s.events[min(int(after), len(s.events)):], nil
}

func (s *source) ReadLog(context.Context, string, int64, int) (*previewd.LogChunk, error) {
	return &previewd.LogChunk{}, nil
}

func (s *source) ListEvents(context.Context, previewd.EventFilter) (*previewd.EventPage, error) {
	return &previewd.EventPage{}, nil
}

func (s *source) FindFeed(context.Context) (previewd.Cursor, error) { return previewd.Cursor{}, nil }

type fixture struct {
	t *testing.T
	*source
	dir       string
	artifacts *artifact.Folder
	server    *preview.Server
}

func setup(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	artifacts, err := artifact.NewFolder(dir)
	require.NoError(t, err)
	s := &source{project: previewd.NewID(), site: previewd.Site{BuildID: previewd.NewID()}}
	streams := httpx.NewStreams(httpx.StreamConfig{Source: s, Hints: new(event.Hub)})
	return &fixture{
		t: t, source: s, dir: dir, artifacts: artifacts,
		server: preview.New(preview.Config{Source: s, Streams: streams, Artifacts: artifacts, Domain: "preview.test"}),
	}
}

func (f *fixture) put(content []byte) previewd.Blob {
	f.t.Helper()
	blob, err := f.artifacts.Put(context.Background(), bytes.NewReader(content))
	require.NoError(f.t, err)
	return blob
}

// publish makes the project show a site.
func (f *fixture) publish(fallback string, files map[string]string) {
	f.t.Helper()
	m := previewd.Manifest{Fallback: fallback}
	for name, content := range files {
		entry := previewd.ManifestFile{Path: name, Blob: f.put([]byte(content)), Immutable: strings.HasPrefix(name, "assets/")}
		if len(content) > 500 {
			var gz, br bytes.Buffer
			w, b := gzip.NewWriter(&gz), brotli.NewWriter(&br)
			_, _ = io.WriteString(w, content)
			_, _ = io.WriteString(b, content)
			require.NoError(f.t, w.Close())
			require.NoError(f.t, b.Close())
			gzBlob, brBlob := f.put(gz.Bytes()), f.put(br.Bytes())
			entry.Gzip, entry.Brotli = &gzBlob, &brBlob
		}
		m.Files = append(m.Files, entry)
	}
	digest, err := artifact.PutManifest(context.Background(), f.artifacts, m)
	require.NoError(f.t, err)
	f.site.Manifest = digest
}

func (f *fixture) get(path string, header ...string) *http.Response {
	f.t.Helper()
	return f.request(http.MethodGet, f.project+".preview.test:8080", path, header...)
}

func (f *fixture) request(method, host, path string, header ...string) *http.Response {
	f.t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Host = host
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.server.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	raw, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(raw)
}

var long = strings.Repeat("all work and no play ", 100)

func TestServesTheSite(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.publish("", map[string]string{
		"index.html": "home", "about/index.html": "about", "plain.html": "plain", "assets/a-1234.js": long, "404.html": "lost", "data.bin": "x",
	})
	for path, want := range map[string]struct {
		status int
		body   string
		kind   string
	}{
		"/":                 {200, "home", "text/html; charset=utf-8"},
		"/index.html":       {200, "home", "text/html; charset=utf-8"},
		"/about/":           {200, "about", "text/html; charset=utf-8"},
		"/plain":            {200, "plain", "text/html; charset=utf-8"},
		"/assets/a-1234.js": {200, long, "text/javascript; charset=utf-8"},
		"/data.bin":         {200, "x", "application/octet-stream"},
		"/nothing":          {404, "lost", "text/html; charset=utf-8"},
		"/assets/":          {404, "lost", "text/html; charset=utf-8"},
		"/../index.html":    {404, "lost", "text/html; charset=utf-8"},
		"/%2e%2e/x":         {404, "lost", "text/html; charset=utf-8"},
	} {
		r := f.get(path)
		require.Equal(t, want.status, r.StatusCode, path)
		require.Equal(t, want.body, body(t, r), path)
		require.Equal(t, want.kind, r.Header.Get("Content-Type"), path)
		require.Equal(t, f.site.BuildID, r.Header.Get("X-Build-Id"), path)
		require.Equal(t, "nosniff", r.Header.Get("X-Content-Type-Options"), path)
	}
	require.Equal(t, "public, max-age=31536000, immutable", f.get("/assets/a-1234.js").Header.Get("Cache-Control"))
	require.Equal(t, "public, max-age=0, must-revalidate", f.get("/").Header.Get("Cache-Control"))
	require.Equal(t, "?1", f.get("/").Header.Get("Origin-Agent-Cluster"))
	require.Equal(t, "bytes", f.get("/data.bin").Header.Get("Accept-Ranges"))
	r := f.get("/about?x=1")
	require.Equal(t, http.StatusFound, r.StatusCode)
	require.Equal(t, "/about/?x=1", r.Header.Get("Location"))
	require.NotContains(t, f.get("//about").Header.Get("Location"), "//", "no redirect to another host")
	require.Equal(t, http.StatusMethodNotAllowed, f.request(http.MethodPost, f.project+".preview.test", "/").StatusCode)
	require.Equal(t, http.StatusForbidden, f.get("/assets/a-1234.js", "Service-Worker", "script").StatusCode)
	head := f.request(http.MethodHead, f.project+".preview.test", "/")
	require.Equal(t, "4", head.Header.Get("Content-Length"))
	require.Empty(t, body(t, head))
	build := f.request(http.MethodGet, f.site.BuildID+".b.preview.test", "/")
	require.Equal(t, "home", body(t, build))
}

func TestNegotiatesCompression(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.publish("", map[string]string{"index.html": long})
	for accept, coding := range map[string]string{
		"": "", "identity": "", "gzip": "gzip", "br": "br", "gzip, deflate, br": "br", "br;q=0, gzip": "gzip", "GZIP;q=0.5": "gzip", "brotli": "",
	} {
		r := f.get("/", "Accept-Encoding", accept)
		require.Equal(t, coding, r.Header.Get("Content-Encoding"), accept)
		require.Equal(t, "Accept-Encoding", r.Header.Get("Vary"))
		var reader io.Reader = r.Body
		switch coding {
		case "gzip":
			z, err := gzip.NewReader(r.Body)
			require.NoError(t, err)
			reader = z
		case "br":
			reader = brotli.NewReader(r.Body)
		}
		got, err := io.ReadAll(reader)
		require.NoError(t, err)
		require.Equal(t, long, string(got), accept)
		again := f.get("/", "Accept-Encoding", accept, "If-None-Match", r.Header.Get("Etag"))
		require.Equal(t, http.StatusNotModified, again.StatusCode, accept)
		require.Empty(t, body(t, again))
	}
	plain, zipped := f.get("/").Header.Get("Etag"), f.get("/", "Accept-Encoding", "gzip").Header.Get("Etag")
	require.NotEqual(t, plain, zipped, "a strong tag names the bytes")
	require.Equal(t, http.StatusNotModified, f.get("/", "Accept-Encoding", "br", "If-None-Match", "*").StatusCode)
	weak := f.get("/", "If-None-Match", `"x", W/`+plain)
	require.Equal(t, http.StatusNotModified, weak.StatusCode)
}

func TestServesRanges(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.publish("", map[string]string{"index.html": long, "big.bin": strings.Repeat("0123456789", 1<<19)})
	r := f.get("/", "Range", "bytes=4-7", "Accept-Encoding", "br")
	require.Equal(t, http.StatusPartialContent, r.StatusCode)
	require.Empty(t, r.Header.Get("Content-Encoding"), "ranges are of the plain file")
	require.Equal(t, long[4:8], body(t, r))
	require.Equal(t, http.StatusRequestedRangeNotSatisfiable, f.get("/", "Range", "bytes=99999-").StatusCode)
	large := f.get("/big.bin", "Range", "bytes=-3")
	require.Equal(t, "789", body(t, large))
	require.Len(t, body(t, f.get("/big.bin")), 10<<19)
}

func TestSinglePageFallback(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.publish("index.html", map[string]string{"index.html": "app", "a.js": "1"})
	require.Equal(t, "app", body(t, f.get("/deep/link")))
	require.Equal(t, 200, f.get("/deep/link").StatusCode)
	require.Equal(t, 404, f.get("/missing.js").StatusCode, "a missing script is missing")
}

func TestSaysHowTheBuildDoes(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.build = previewd.Build{ID: f.site.BuildID, ProjectID: f.project, Status: previewd.BuildQueued, ReferenceID: "ref_x"}
	for status, words := range map[previewd.BuildStatus]string{
		previewd.BuildQueued: "Waiting to be built", previewd.BuildBuilding: "Building this site", previewd.BuildFailed: "This build failed",
		previewd.BuildCanceling: "canceled", previewd.BuildCanceled: "canceled", previewd.BuildSuperseded: "newer build", previewd.BuildCompleted: "Building this site",
	} {
		f.build.Status = status
		f.build.Failure = &previewd.Failure{Message: `cannot find "<script>x"`, File: "src/a.ts", Line: 7}
		r := f.get("/any/path")
		require.Equal(t, http.StatusServiceUnavailable, r.StatusCode, "no site is no success")
		text := body(t, r)
		require.Contains(t, text, words)
		require.Contains(t, text, "ref_x")
		require.NotContains(t, text, "<script>x")
		require.Equal(t, "no-store", r.Header.Get("Cache-Control"))
		require.Equal(t, status == previewd.BuildFailed, strings.Contains(text, "src/a.ts"))
	}
}

func TestFirstVersionShowsAtOnce(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.build = previewd.Build{ID: f.site.BuildID, ProjectID: f.project, Status: previewd.BuildBuilding}
	require.Equal(t, http.StatusServiceUnavailable, f.get("/").StatusCode)
	f.publish("", map[string]string{"index.html": "one"})
	require.Equal(t, "one", body(t, f.get("/")))
	f.publish("", map[string]string{"index.html": "two"})
	f.server.Switched(f.project)
	require.Equal(t, "two", body(t, f.get("/")))
}

func TestStreamsTheStatus(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.build = previewd.Build{ID: f.site.BuildID, ProjectID: f.project, Status: previewd.BuildFailed}
	f.events = []previewd.Event{{ID: "1-1", Seq: 1, Type: previewd.EventBuildQueued}, {ID: "1-2", Seq: 2, Type: previewd.EventBuildFailed}}
	server := httptest.NewServer(f.server)
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/_previewd/events", nil)
	require.NoError(t, err)
	req.Host = f.project + ".preview.test"
	r, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer r.Body.Close()
	text := body(t, r)
	require.Contains(t, text, "id: 1-1\nevent: build.queued\n")
	require.Regexp(t, `event: end\ndata: \{"status":"failed"\}\n\n$`, text)
	require.NotContains(t, text, "id: \n", "control frames carry no id")
}

func TestUnknownHosts(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for _, label := range []string{"", "nope.", previewd.NewID() + ".", previewd.NewID() + ".b.", "a.b.c."} {
		require.Equal(t, http.StatusNotFound, f.request(http.MethodGet, label+"preview.test", "/").StatusCode, label)
	}
	require.True(t, f.server.Serves("X.PREVIEW.TEST:80"))
	require.False(t, f.server.Serves("preview.test"))
	require.False(t, f.server.Serves("evilpreview.test"))
	require.False(t, f.server.Serves("x.preview.test.evil.com"))
}

func TestWrongBytesAreNeverServed(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.publish("", map[string]string{"index.html": "true"})
	digest := string(previewd.DigestOf([]byte("true")))
	name := filepath.Join(f.dir, "blobs", digest[:2], digest)
	require.NoError(t, os.Chmod(name, 0o600))
	require.NoError(t, os.WriteFile(name, []byte("fake"), 0o600))
	r := f.get("/")
	require.Equal(t, http.StatusInternalServerError, r.StatusCode)
	require.Empty(t, r.Header.Get("Etag"))
	require.Contains(t, body(t, r), "ref_")
	require.NoError(t, os.Remove(name))
	require.Equal(t, http.StatusInternalServerError, f.get("/").StatusCode)
}

package npm_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/npm"
)

func TestTarballsOfPackumentsPointToTheView(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.publish(t, "@scope/right", release{version: "1.0.0"}, release{version: "1.1.0"})
	want := f.origin.files["/@scope/right/-/right-1.1.0.tgz"]
	for _, path := range []string{"/@scope%2fright", "/@scope%2Fright", "/@scope/right"} {
		doc := f.doc(path)
		require.Equal(t, `see "tarball":"https://files.example/x"`, doc["readme"], "what is not a tarball stays as it is")
		require.Len(t, doc["versions"], 2)
		dist := doc["versions"].(object)["1.1.0"].(object)["dist"].(object)
		require.Equal(t, f.url+"/@scope/right/-/right-1.1.0.tgz", dist["tarball"])
		require.Equal(t, integrity(want), dist["integrity"])
	}
	require.Equal(t, string(want), f.ok("/@scope/right/-/right-1.1.0.tgz"))
	require.Equal(t, []string{"/@scope%2fright", "/@scope/right/-/right-1.1.0.tgz"}, f.origin.asked())

	f.attach()
	dist := f.doc("/@scope%2fright")["versions"].(object)["1.1.0"].(object)["dist"].(object)
	require.Equal(t, f.url+"/@scope/right/-/right-1.1.0.tgz", dist["tarball"], "each view has its own base")
}

func TestManifestsOfVersionsAndTags(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.publish(t, "left", release{version: "1.0.0"}, release{version: "2.0.0+b.1"})
	f.origin.publish(t, "@scope/right", release{version: "1.0.0"})
	require.Equal(t, f.url+"/left/-/left-1.0.0.tgz", f.doc("/left/1.0.0")["dist"].(object)["tarball"])
	require.Equal(t, "2.0.0+b.1", f.doc("/left/latest")["version"])
	require.Equal(t, "2.0.0+b.1", f.doc("/left/2.0.0+b.1")["version"])
	require.Equal(t, "1.0.0", f.doc("/@scope%2fright/latest")["version"])
	require.Equal(t, npm.NotFound, f.not(http.StatusNotFound, "/left/3.0.0"))
}

func TestNothingPassesButPathAndForm(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.publish(t, "left", release{version: "1.0.0"})
	corgi := "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*"
	for accept, form := range map[string]string{corgi: "application/vnd.npm.install-v1+json", "text/html": "application/json"} {
		resp, _ := f.do(http.MethodGet, "/left", accept)
		require.Equal(t, form, resp.Header.Get("Content-Type"))
		resp.Header.Del("Date")
		require.Len(t, resp.Header, 3, "Content-Type, Content-Length, Vary: %v", resp.Header)
		require.Equal(t, form, f.origin.taken()[0].Header.Get("Accept"))
	}
	f.ok("/left/-/left-1.0.0.tgz")
	sent := f.origin.taken()[0].Header
	require.Equal(t, http.Header{"Accept-Encoding": {"gzip"}, "User-Agent": {"Go-http-client/1.1"}}, sent)
}

func TestHeadIsAnsweredWithoutBody(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.publish(t, "left", release{version: "1.0.0"})
	for _, path := range []string{"/left", "/left/-/left-1.0.0.tgz", "/left/latest"} {
		want := f.ok(path)
		resp, body := f.do(http.MethodHead, path, "*/*")
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Equal(t, int64(len(want)), resp.ContentLength)
		require.Empty(t, body)
	}
}

func TestAllElseIsRefused(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.answerWith(func(http.ResponseWriter, *http.Request) { t.Error("the registry is asked") })
	for _, c := range []struct {
		status int
		line   string
	}{
		{405, "PUT /left"}, {405, "PUT /-/user/org.couchdb.user:me"}, {405, "POST /-/npm/v1/security/advisories/bulk"},
		{405, "DELETE /left/-/left-1.0.0.tgz/-rev/1"}, {405, "OPTIONS /left"}, {405, "PATCH /left"}, {405, "BREW /left"},
		{403, "GET /-/ping"}, {403, "GET /-/v1/search"}, {403, "GET /-/v1/search?text=x"}, {403, "GET /-/whoami"},
		{403, "GET /-/npm/v1/keys"}, {403, "GET /-/package/left/dist-tags"}, {403, "GET /-/all"}, {403, "GET /-"},
		{403, "GET /"}, {403, "GET /left?write=true"}, {403, "GET /left?"}, {403, "GET /left/"}, {403, "GET /left/-rev/1"},
		{403, "GET /_all_docs"}, {403, "GET /.npmrc"}, {403, "GET /@scope"}, {403, "GET /@scope/"}, {403, "GET /@scope%2f"},
		{403, "GET /.."}, {403, "GET /../left"}, {403, "GET /..%2f"}, {403, "GET /..%2fetc"}, {403, "GET /%2e%2e/left"},
		{403, "GET /@scope/../left"}, {403, "GET /@scope%2f..%2fleft"}, {403, "GET /@a%2f.."}, {403, "GET /@../b"}, {403, "GET /a..b"},
		{403, "GET /left%00"}, {403, "GET /%00"}, {403, "GET /left%0d%0aHost:evil"}, {403, "GET /left%2f1.0.0"}, {403, "GET /l%65ft"},
		{403, "GET http://evil.example/left"}, {403, "GET http:///left"}, {403, "GET /left//latest"}, {403, "GET /left%5c1"}, {403, "GET /%40scope%2fright"},
		{403, "GET /@scope%252fright"}, {403, "GET /left%20"}, {403, "GET /left@1.0.0"}, {403, "GET /l\u00e9ft"}, {403, "GET /left:80"},
		{403, "GET /left/-/left.zip"}, {403, "GET /left/-/.tgz"}, {403, "GET /left/-/../x.tgz"}, {403, "GET /left/-/a/b.tgz"},
		{403, "GET /left/-/a%2fb.tgz"}, {403, "GET /@a/b/-/@a/b-1.0.0.tgz"}, {403, "GET /-/left.tgz"}, {403, "GET /left/1.0.0/x"},
		{403, "GET /" + strings.Repeat("a", 215)}, {403, "GET /left/-/" + strings.Repeat("a", 300) + ".tgz"},
	} {
		method, path, _ := strings.Cut(c.line, " ")
		resp, body := f.do(method, path, "*/*")
		require.Equal(t, c.status, resp.StatusCode, c.line)
		require.Contains(t, body, `{"error":`, c.line)
	}
	for _, path := range []string{"//left/latest", "///left"} { // which a client of Go would change
		raw := httptest.NewRecorder()
		f.view.ServeHTTP(raw, httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, http.StatusForbidden, raw.Code, path)
	}
	for _, refusal := range f.view.Refused() {
		require.Equal(t, npm.Refused, refusal.Reason)
		require.LessOrEqual(t, len(refusal.Path), 300)
	}
}

func TestOddTarballsLeadNowhere(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	odd := []string{
		"https://evil.example/steal?left", "file:///etc/passwd", "https://h/left", "https://h/-/v1/search", "https://h/../left/-/left-1.tgz",
		"//evil.example/x.tgz", "@evil.example/x", "evil", "", "https://h/left/-/left.tar", "https://h:x/", "\u0000", "https://h/left/-/a%2fb.tgz",
	}
	var releases []release
	for i := range odd {
		releases = append(releases, release{version: fmt.Sprintf("%d.0.0", i)})
	}
	f.origin.publish(t, "left", releases...)
	for i, tarball := range odd {
		f.origin.dist(releases[i].version)["tarball"] = tarball
	}
	for version, manifest := range f.doc("/left")["versions"].(object) {
		tarball := manifest.(object)["dist"].(object)["tarball"].(string)
		require.True(t, strings.HasPrefix(tarball, f.url+"/"), "%s %s", version, tarball)
		f.not(http.StatusForbidden, strings.TrimPrefix(tarball, f.url))
	}
}

func TestBlockedPackagesDoNotExist(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{Block: []string{"left", "@scope/right"}})
	f.origin.publish(t, "left", release{version: "1.0.0"})
	f.origin.publish(t, "@scope/right", release{version: "1.0.0"})
	for _, path := range []string{"/left", "/left/latest", "/left/-/left-1.0.0.tgz", "/@scope%2fright", "/@scope/right/-/right-1.0.0.tgz"} {
		require.Equal(t, npm.Blocked, f.not(http.StatusNotFound, path))
	}
	require.Empty(t, f.origin.asked())
}

func TestAViewRemembersWhatWasFetched(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.publish(t, "left", release{version: "1.0.0"}, release{version: "2.0.0-rc.1"})
	f.origin.publish(t, "@scope/right", release{version: "1.0.0"})
	fetch := func(name, version, path string, cached bool) npm.Fetch {
		file := f.origin.files[path]
		return npm.Fetch{Name: name, Version: version, Bytes: int64(len(file)), Integrity: integrity(file), Cached: cached}
	}
	f.ok("/left")
	f.ok("/left/-/left-2.0.0-rc.1.tgz")
	f.ok("/@scope/right/-/right-1.0.0.tgz")
	f.ok("/left/-/left-2.0.0-rc.1.tgz")
	require.Equal(t, []npm.Fetch{
		fetch("left", "2.0.0-rc.1", "/left/-/left-2.0.0-rc.1.tgz", false),
		fetch("@scope/right", "1.0.0", "/@scope/right/-/right-1.0.0.tgz", false),
	}, f.view.Fetched())

	f.start(npm.Config{})
	f.ok("/@scope%2fright/-/right-1.0.0.tgz")
	require.Equal(t, []npm.Fetch{fetch("@scope/right", "1.0.0", "/@scope/right/-/right-1.0.0.tgz", true)}, f.view.Fetched())
	require.Empty(t, f.view.Refused())
}

func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	view := setup(t, npm.Config{}).view
	for i := range 300 {
		path := fmt.Sprintf("/-/%d", i/2)
		view.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
	}
	require.Len(t, view.Refused(), 100)
	require.Equal(t, npm.Refusal{Path: "/-/99", Status: http.StatusForbidden, Reason: npm.Refused}, view.Refused()[99])
}

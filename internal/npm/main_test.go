package npm_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/npm"
)

// object is any JSON object.
type object = map[string]any

// origin is a registry with hand-made packages.
type origin struct {
	*httptest.Server
	mu       sync.Mutex
	docs     map[string]object
	files    map[string][]byte
	requests []*http.Request
	answer   http.HandlerFunc // instead of the packages
}

func newOrigin(t *testing.T) *origin {
	o := &origin{docs: map[string]object{}, files: map[string][]byte{}}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.requests = append(o.requests, r)
	answer := o.answer
	o.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	o.serve(w, r)
}

func (o *origin) serve(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	w.Header().Set("Set-Cookie", "tracker=1")
	w.Header().Set("X-Origin", "secret")
	if file, ok := o.files[r.URL.Path]; ok {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(file)
		return
	}
	doc, ok := o.docs[strings.TrimPrefix(r.URL.Path, "/")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	text, _ := json.Marshal(doc)
	tag := `"` + base64.StdEncoding.EncodeToString(sum(text)[:9]) + `"`
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if strings.HasPrefix(r.Header.Get("Accept"), "application/vnd.npm.install-v1+json") {
		w.Header().Set("Content-Type", "application/vnd.npm.install-v1+json")
	}
	_, _ = w.Write(text)
}

// release is a version of a package.
type release struct {
	version string
	age     time.Duration
	needs   object // dependencies
	content string
}

// publish adds a package whose latest version is the last of its releases. Its
// tarballs are said to be at another host.
func (o *origin) publish(t *testing.T, name string, releases ...release) {
	versions, times := object{}, object{"created": "2011-01-01T00:00:00Z"}
	for _, r := range releases {
		manifest := object{"name": name, "version": r.version, "dependencies": r.needs, "main": "index.js"}
		path := "/" + name + "/-/" + filepath.Base(name) + "-" + r.version + ".tgz"
		file := pack(t, manifest, "module.exports = "+quoted(name+"@"+r.version)+"//"+r.content)
		o.mu.Lock()
		o.files[path] = file
		o.mu.Unlock()
		manifest["dist"] = object{"tarball": "https://files.example" + path, "integrity": integrity(file)}
		versions[r.version] = manifest
		times[r.version] = time.Now().Add(-r.age).UTC().Format(time.RFC3339Nano)
	}
	latest := releases[len(releases)-1].version
	o.mu.Lock()
	defer o.mu.Unlock()
	o.docs[name] = object{
		"name": name, "dist-tags": object{"latest": latest, "next": latest}, "versions": versions, "time": times,
		"readme": `see "tarball":"https://files.example/x"`,
	}
}

// dist is what left's packument says of a version, to be changed.
func (o *origin) dist(version string) object {
	return o.docs["left"]["versions"].(object)[version].(object)["dist"].(object)
}

func (o *origin) answerWith(answer http.HandlerFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = answer
}

// asked returns the paths of all requests so far, and forgets them.
func (o *origin) asked() []string {
	var paths []string
	for _, r := range o.taken() {
		paths = append(paths, r.URL.EscapedPath())
	}
	return paths
}

func (o *origin) taken() []*http.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.requests
	o.requests = nil
	return list
}

// pack makes a package's tarball.
func pack(t *testing.T, manifest object, index string) []byte {
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	archive := tar.NewWriter(zip)
	text, err := json.Marshal(manifest)
	require.NoError(t, err)
	for name, content := range map[string]string{"package/package.json": string(text), "package/index.js": index} {
		require.NoError(t, archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}))
		_, err = archive.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, archive.Close())
	require.NoError(t, zip.Close())
	return b.Bytes()
}

func sum(text []byte) []byte {
	hash := sha512.Sum512(text)
	return hash[:]
}

func integrity(file []byte) string { return "sha512-" + base64.StdEncoding.EncodeToString(sum(file)) }

func quoted(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}

// fixture is a registry, its mirror, and one build's view of it.
type fixture struct {
	t      *testing.T
	origin *origin
	dir    string
	mirror *npm.Mirror
	view   *npm.View
	url    string
}

func setup(t *testing.T, cfg npm.Config) *fixture {
	f := &fixture{t: t, origin: newOrigin(t), dir: filepath.Join(t.TempDir(), "cache")}
	f.start(cfg)
	return f
}

// start starts a mirror on what the last one has left.
func (f *fixture) start(cfg npm.Config) {
	f.t.Helper()
	cfg.Registry, cfg.Dir, cfg.Log = f.origin.URL, f.dir, slog.New(slog.DiscardHandler)
	var err error
	f.mirror, err = npm.NewMirror(cfg)
	require.NoError(f.t, err)
	f.attach()
}

// attach begins another build.
func (f *fixture) attach() {
	server := httptest.NewUnstartedServer(nil)
	f.url = "http://" + server.Listener.Addr().String()
	f.view = f.mirror.View(f.url + "/")
	server.Config.Handler = f.view
	server.Start()
	f.t.Cleanup(server.Close)
}

func (f *fixture) do(method, path, accept string) (*http.Response, string) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.url, nil)
	require.NoError(f.t, err)
	req.URL.Opaque = path // as it is spelled here
	for name, value := range map[string]string{
		"Accept": accept, "Authorization": "Bearer stolen", "Cookie": "c=1", "X-Leak": "1", "Npm-Session": "s", "User-Agent": "leak",
	} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(f.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(f.t, err)
	return resp, string(body)
}

func (f *fixture) get(path string) (int, string) {
	f.t.Helper()
	resp, body := f.do(http.MethodGet, path, "*/*")
	return resp.StatusCode, body
}

// ok gets what must be there.
func (f *fixture) ok(path string) string {
	f.t.Helper()
	status, body := f.get(path)
	require.Equal(f.t, http.StatusOK, status, body)
	return body
}

// not gets what must not be there, and returns the reason that the view noted.
func (f *fixture) not(status int, path string) string {
	f.t.Helper()
	got, body := f.get(path)
	require.Equal(f.t, status, got, body)
	require.Contains(f.t, body, `{"error":`)
	refused := f.view.Refused()
	require.NotEmpty(f.t, refused)
	last := refused[len(refused)-1]
	require.Equal(f.t, npm.Refusal{Path: path, Status: status, Reason: last.Reason}, last)
	return last.Reason
}

func (f *fixture) doc(path string) object {
	f.t.Helper()
	var doc object
	require.NoError(f.t, json.Unmarshal([]byte(f.ok(path)), &doc))
	return doc
}

// cached lists the files of the cache.
func (f *fixture) cached() []string {
	f.t.Helper()
	list, err := os.ReadDir(f.dir)
	require.NoError(f.t, err)
	var names []string
	for _, item := range list {
		names = append(names, item.Name())
	}
	return names
}

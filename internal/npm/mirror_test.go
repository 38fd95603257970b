package npm_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/npm"
)

// always makes a mirror ask again each time.
const always = time.Nanosecond

func TestPackumentsAreConfirmedWhenTheyAreOld(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.publish(t, "left", release{version: "1.0.0"})
	first := f.ok("/left")
	require.Equal(t, first, f.ok("/left"))
	require.Len(t, f.origin.taken(), 1)

	f.start(npm.Config{Fresh: always})
	f.ok("/left")
	again := f.origin.taken()
	require.Len(t, again, 1)
	require.NotEmpty(t, again[0].Header.Get("If-None-Match"))

	f.origin.publish(t, "left", release{version: "1.0.0"}, release{version: "1.0.1"})
	require.Len(t, f.doc("/left")["versions"], 2)

	f.origin.answerWith(http.NotFound)
	require.Equal(t, npm.NotFound, f.not(http.StatusNotFound, "/left"))
	f.origin.answerWith(unavailable)
	require.Equal(t, npm.Unreachable, f.not(http.StatusBadGateway, "/left"), "what is gone does not come back")
}

func unavailable(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusServiceUnavailable)
}

func TestOutagesAreSurvived(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{Fresh: always})
	f.origin.publish(t, "left", release{version: "1.0.0"})
	doc, file := f.doc("/left"), f.ok("/left/-/left-1.0.0.tgz")
	check := func() {
		f.start(npm.Config{Fresh: always})
		versions := f.doc("/left")["versions"].(object)
		require.Len(t, versions, len(doc["versions"].(object)))
		require.Equal(t, file, f.ok("/left/-/left-1.0.0.tgz"))
		require.Equal(t, npm.Unreachable, f.not(http.StatusBadGateway, "/right"))
		require.Equal(t, npm.Unreachable, f.not(http.StatusBadGateway, "/right/-/right-1.0.0.tgz"))
	}
	f.origin.answerWith(unavailable)
	check()
	f.origin.answerWith(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>no JSON")) })
	f.start(npm.Config{Fresh: always})
	f.ok("/left")
	f.origin.Close()
	check()
}

func TestAnOutageIsNotMetEachTime(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.publish(t, "left", release{version: "1.0.0"})
	f.ok("/left")
	f.age(time.Hour)
	f.origin.answerWith(unavailable)
	f.origin.taken()
	f.ok("/left")
	f.ok("/left")
	require.Len(t, f.origin.taken(), 1)
}

func TestAWrongTarballIsNotKept(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.publish(t, "left", release{version: "1.0.0"})
	path, good := "/left/-/left-1.0.0.tgz", f.origin.files["/left/-/left-1.0.0.tgz"]
	f.ok("/left")
	before := f.cached()

	f.origin.files[path] = []byte("poison")
	require.Equal(t, npm.Unreachable, f.not(http.StatusBadGateway, path))
	f.origin.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("cut off"))
	})
	require.Equal(t, npm.Unreachable, f.not(http.StatusBadGateway, path))
	require.Equal(t, before, f.cached())
	require.Empty(t, f.view.Fetched())

	f.origin.answerWith(nil)
	f.origin.files[path] = good
	require.Equal(t, string(good), f.ok(path))
}

func TestIntegrityOfSeveralHashes(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.publish(t, "left", release{version: "1.0.0"}, release{version: "1.1.0"}, release{version: "1.2.0"})
	hash := f.origin.dist("1.0.0")["integrity"].(string)
	f.origin.dist("1.0.0")["integrity"] = "sha1-x " + integrity([]byte("other")) + " " + hash + "?option"
	f.origin.dist("1.1.0")["integrity"] = "sha1-wrong"
	delete(f.origin.dist("1.2.0"), "integrity")
	f.ok("/left")
	for _, version := range []string{"1.0.0", "1.1.0", "1.2.0"} {
		f.ok("/left/-/left-" + version + ".tgz")
	}
}

func TestAnotherHostIsNotFollowed(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another host is asked") }))
	t.Cleanup(other.Close)
	f.origin.answerWith(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+"/left", http.StatusFound) })
	require.Equal(t, npm.Unreachable, f.not(http.StatusBadGateway, "/left"))

	f.origin.publish(t, "left", release{version: "1.0.0"})
	f.origin.answerWith(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/left", http.StatusFound)
			return
		}
		f.origin.serve(w, r)
	})
	require.Equal(t, "left", f.doc("/moved")["name"])
}

// The one who asked first goes away; all others get what they asked for, with one
// request to the registry.
func TestOneRequestForAll(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/left", "/left/-/left-1.0.0.tgz"} {
		f := setup(t, npm.Config{})
		f.origin.publish(t, "left", release{version: "1.0.0"})
		arrived, proceed := make(chan struct{}), make(chan struct{})
		f.origin.answerWith(func(w http.ResponseWriter, r *http.Request) {
			close(arrived)
			<-proceed
			f.origin.serve(w, r)
		})
		ask := func(ctx context.Context) int {
			answer := httptest.NewRecorder()
			f.mirror.View(f.url).ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
			return answer.Code
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { ask(ctx) })
		<-arrived
		cancel()
		for range 20 {
			all.Go(func() {
				if got := ask(t.Context()); got != http.StatusOK {
					t.Errorf("%s: %d", path, got)
				}
			})
		}
		close(proceed)
		all.Wait()
		require.Len(t, f.origin.taken(), 1)
	}
}

func TestYoungVersionsDoNotExist(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	f := setup(t, npm.Config{MinAge: 3 * day})
	f.origin.publish(t, "left",
		release{version: "1.9.0", age: 90 * day}, release{version: "1.10.0", age: 80 * day}, release{version: "1.10.1-rc.1", age: 70 * day},
		release{version: "3.0.0", age: 60 * day}, release{version: "2.0.0-beta", age: 2 * day}, release{version: "2.0.0", age: day})
	f.origin.docs["left"]["dist-tags"].(object)["old"] = "1.9.0"
	f.origin.docs["left"]["versions"].(object)["0.0.1"] = object{"version": "0.0.1", "dist": object{"tarball": "https://h/left/-/left-0.0.1.tgz"}}

	f.origin.files["/left/-/left-9.0.0.tgz"] = []byte("in no packument")

	_, short := f.do(http.MethodGet, "/left", "application/vnd.npm.install-v1+json")
	require.Equal(t, f.ok("/left"), short)
	doc := f.doc("/left")
	require.Len(t, doc["versions"], 4)
	require.NotContains(t, doc["versions"], "0.0.1", "nobody knows its age")
	require.NotContains(t, doc["time"], "2.0.0")
	require.Contains(t, doc["time"], "1.9.0")
	require.Equal(t, object{"latest": "1.10.0", "old": "1.9.0"}, doc["dist-tags"])
	require.Equal(t, "1.10.0", f.doc("/left/latest")["version"])
	f.ok("/left/-/left-1.10.0.tgz")
	for _, path := range []string{"/left/2.0.0", "/left/-/left-2.0.0.tgz", "/left/-/left-0.0.1.tgz"} {
		require.Equal(t, npm.TooYoung, f.not(http.StatusNotFound, path))
	}
	for _, path := range []string{"/left/next", "/left/-/left-9.0.0.tgz"} {
		require.Equal(t, npm.NotFound, f.not(http.StatusNotFound, path))
	}
	f.origin.publish(t, "right", release{version: "1.0.0", age: day})
	require.Equal(t, npm.TooYoung, f.not(http.StatusNotFound, "/right"))
	require.Equal(t, npm.TooYoung, f.not(http.StatusNotFound, "/right/-/right-1.0.0.tgz"))
	for _, r := range f.origin.taken() {
		if filepath.Ext(r.URL.Path) == "" {
			require.Equal(t, "application/json", r.Header.Get("Accept"), "only the full packument has times")
		}
	}
}

func TestAgeIsAskedOfWhatIsCachedToo(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.publish(t, "left", release{version: "1.0.0", age: 5 * time.Hour}, release{version: "1.0.1", age: time.Hour})
	f.ok("/left")
	f.ok("/left/-/left-1.0.0.tgz")
	f.ok("/left/-/left-1.0.1.tgz")
	f.start(npm.Config{MinAge: 3 * time.Hour, Fresh: always})
	f.ok("/left/-/left-1.0.0.tgz")
	require.Equal(t, npm.TooYoung, f.not(http.StatusNotFound, "/left/-/left-1.0.1.tgz"))
	require.Len(t, f.doc("/left")["versions"], 1)
	for _, r := range f.origin.taken() {
		require.Empty(t, r.Header.Get("If-None-Match"), "what is hidden now may be shown later, with the same ETag")
	}

	f.origin.publish(t, "left", release{version: "1.0.0", age: 5 * time.Hour}, release{version: "1.0.1", age: 4 * time.Hour})
	require.Len(t, f.doc("/left")["versions"], 2, "it has grown older")
	f.ok("/left/-/left-1.0.1.tgz")
	f.origin.taken()
	f.ok("/left/-/left-1.0.1.tgz")
	require.Empty(t, f.origin.taken(), "what is known to be old enough is asked for no more")
}

func TestRegistriesBelowAPath(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.publish(t, "left", release{version: "1.0.0"})
	o.dist("1.0.0")["tarball"] = "https://files.example/api/npm/left/-/left-1.0.0.tgz"
	front := httptest.NewServer(http.StripPrefix("/api/npm", o))
	t.Cleanup(front.Close)
	m, err := npm.NewMirror(npm.Config{Registry: front.URL + "/api/npm/", Dir: t.TempDir()})
	require.NoError(t, err)
	view := m.View("http://mirror")
	for path, want := range map[string]string{"/left": `"http://mirror/left/-/left-1.0.0.tgz"`, "/left/-/left-1.0.0.tgz": "\x1f\x8b"} {
		answer := httptest.NewRecorder()
		view.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, http.StatusOK, answer.Code)
		require.Contains(t, answer.Body.String(), want)
	}
}

func TestNewMirrorRefusesURLs(t *testing.T) {
	t.Parallel()
	for _, registry := range []string{"registry.npmjs.org", "ftp://x", "https://", "https://x?y=z", "http://[", "/x"} {
		_, err := npm.NewMirror(npm.Config{Registry: registry, Dir: t.TempDir()})
		require.ErrorContains(t, err, "cannot use the registry's URL", registry)
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := npm.NewMirror(npm.Config{Dir: file})
	require.ErrorContains(t, err, "cannot create")
}

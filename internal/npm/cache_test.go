package npm_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/npm"
)

// age makes all that is cached look as if it was used long ago.
func (f *fixture) age(by time.Duration) {
	f.t.Helper()
	then := time.Now().Add(-by)
	for _, name := range f.cached() {
		require.NoError(f.t, os.Chtimes(filepath.Join(f.dir, name), then, then))
	}
}

func TestLeastRecentlyUsedGoesFirst(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{MaxBytes: 105 << 10})
	for _, name := range []string{"a", "b", "c", "d"} {
		f.origin.files["/"+name+"/-/"+name+"-1.tgz"] = append([]byte("\x1f\x8b"), make([]byte, 30<<10-2)...)
	}
	f.ok("/a/-/a-1.tgz")
	f.ok("/b/-/b-1.tgz")
	f.ok("/c/-/c-1.tgz")
	f.age(time.Hour)
	f.ok("/a/-/a-1.tgz")
	f.ok("/b/-/b-1.tgz")
	require.Len(t, f.cached(), 3)
	f.ok("/d/-/d-1.tgz")
	require.Len(t, f.cached(), 3, "c was not used for longest")
	f.origin.asked()
	for _, name := range []string{"a", "b", "d"} {
		f.ok("/" + name + "/-/" + name + "-1.tgz")
	}
	require.Empty(t, f.origin.asked())

	f.age(time.Hour)
	f.start(npm.Config{MaxBytes: 62 << 10})
	require.Len(t, f.cached(), 1, "two would be more than 90 %")
	f.ok("/c/-/c-1.tgz")
	require.Len(t, f.cached(), 2)
	require.NoError(t, f.mirror.Shrink(1))
	require.Len(t, f.cached(), 1, "for a disk that is nearly full")
	require.NoError(t, f.mirror.Shrink(1<<40))
	require.Empty(t, f.cached())
}

// hook is a client that does something when the answer begins.
type hook struct {
	*httptest.ResponseRecorder
	begin func()
}

func (h *hook) Write(p []byte) (int, error) {
	if begin := h.begin; begin != nil {
		h.begin = nil
		begin()
	}
	return h.ResponseRecorder.Write(p)
}

func TestWhatIsBeingSentOutlivesTheSweep(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{MaxBytes: 1})
	file := "\x1f\x8b" + strings.Repeat("0123456789", 100_000)
	f.origin.files["/a/-/a-1.tgz"] = []byte(file)
	f.origin.files["/b/-/b-1.tgz"] = []byte("\x1f\x8b")
	client := &hook{httptest.NewRecorder(), func() {
		before := f.cached()
		f.ok("/b/-/b-1.tgz")
		require.NotEqual(t, before, f.cached())
		require.Len(t, f.cached(), 1)
	}}
	f.view.ServeHTTP(client, httptest.NewRequest(http.MethodGet, "/a/-/a-1.tgz", nil))
	require.Nil(t, client.begin)
	require.Equal(t, file, client.Body.String())
}

func TestWhatACrashLeftIsRemoved(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.publish(t, "left", release{version: "1.0.0"})
	f.ok("/left")
	kept := f.cached()
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "tmp-123"), []byte("half"), 0o600))
	f.start(npm.Config{})
	require.Equal(t, kept, f.cached())
}

func TestDamagedFilesAreFetchedAgain(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	f.origin.publish(t, "left", release{version: "1.0.0"})
	file := f.ok("/left/-/left-1.0.0.tgz")
	f.origin.taken()
	for _, size := range []int64{0, 3, 4, 40} {
		require.NoError(t, os.Truncate(filepath.Join(f.dir, f.cached()[0]), size))
		require.Equal(t, file, f.ok("/left/-/left-1.0.0.tgz"))
		require.Len(t, f.origin.taken(), 1)
	}
}

func TestAFolderThatTakesNothing(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{Fresh: always})
	f.origin.publish(t, "left", release{version: "1.0.0"})
	f.ok("/left")
	file := f.ok("/left/-/left-1.0.0.tgz")
	away := f.dir + "-away"
	require.NoError(t, os.Rename(f.dir, away))
	require.Equal(t, npm.Unreachable, f.not(http.StatusBadGateway, "/left"))
	require.Equal(t, npm.Unreachable, f.not(http.StatusBadGateway, "/left/-/left-1.0.0.tgz"))
	require.NoError(t, os.Rename(away, f.dir))
	require.Equal(t, file, f.ok("/left/-/left-1.0.0.tgz"))
}

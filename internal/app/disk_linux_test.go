package app_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/testkit"
)

// smallDisk is a folder on a file system of its own, of some MiB.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", size)); err != nil {
		t.Skipf("SKIPPED: cannot mount a small tmpfs (root may): %v", err)
	}
	t.Cleanup(func() { // a process that another test starts has this one's files for a moment
		testkit.Eventually(t, "the file system is unmounted", func() bool { return syscall.Unmount(dir, 0) == nil })
	})
	return dir
}

// A full disk takes no new builds and says so; what is there is shown, repeated
// requests get their answers, builds that wait go on waiting, and all goes on
// when there is room. Caches go before anything is refused.
func TestFullDiskTakesNoNewBuilds(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, 96)
	cfg := config.Config{MinFree: 24}
	cfg.Data = filepath.Join(dir, "data")
	cached := filepath.Join(cfg.Data, "npm", "left-over")
	require.NoError(t, os.MkdirAll(filepath.Dir(cached), 0o700))
	require.NoError(t, os.WriteFile(cached, make([]byte, 20<<20), 0o600))
	s := startWith(t, cfg)
	page := func(text string) string {
		return fmt.Sprintf(`{"userId":"u","templateFiles":{"index.html":%q}}`, text)
	}
	first := s.create(page("one"), "Idempotency-Key", goodKey)
	s.wait(first.BuildID)

	fill := filepath.Join(dir, "fill")
	leave := func(free int64) {
		t.Helper()
		require.NoError(t, os.RemoveAll(fill))
		var fs syscall.Statfs_t
		require.NoError(t, syscall.Statfs(dir, &fs))
		require.NoError(t, os.WriteFile(fill, make([]byte, int64(fs.Bavail)*fs.Bsize-free<<20), 0o600))
	}
	leave(30)
	require.FileExists(t, cached)
	s.wait(s.create(page("two"), "Idempotency-Key", goodKey+"-two").BuildID)
	require.NoFileExists(t, cached, "the cache is emptied before a build")

	leave(10)
	var header http.Header
	var body, refused string
	tries := 0
	testkit.Eventually(t, "new builds are refused", func() bool {
		var status int
		tries++
		refused = fmt.Sprint("refused-", tries)
		status, header, body = s.call(http.MethodPost, create, page(refused), "Idempotency-Key", goodKey+refused)
		return status == http.StatusInsufficientStorage
	})
	require.Contains(t, body, `"code":"disk_full"`)
	require.NotEmpty(t, header.Get("Retry-After"))
	status, _, body := s.call(http.MethodPost, create, page("one"), "Idempotency-Key", goodKey)
	require.Equal(t, http.StatusCreated, status, body)
	status, _, body = s.call(http.MethodGet, first.PreviewURL, "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "one")
	status, _, body = s.call(http.MethodPost, "/v1/projects/"+first.ProjectID+"/builds", `{"templateFiles":{"index.html":"one"}}`, "Idempotency-Key", goodKey+"-next")
	require.Equal(t, http.StatusCreated, status, "a tree that is stored already takes nothing: %s", body)
	var waits previewd.Build
	testkit.Eventually(t, "it waits for room, given back by a runner that was waiting for a build", func() bool {
		p, err := s.client().FindProject(t.Context(), first.ProjectID)
		require.NoError(t, err)
		waits = p.LatestBuild
		require.False(t, waits.Status.Terminal(), "there is no room to build it")
		return waits.Status == previewd.BuildQueued
	})

	require.NoError(t, os.Remove(fill))
	s.wait(waits.ID)
	testkit.Eventually(t, "there is room again", func() bool {
		status, _, _ = s.call(http.MethodPost, create, page(refused), "Idempotency-Key", goodKey+refused)
		return status == http.StatusCreated
	})
}

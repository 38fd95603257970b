package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/config"
)

// Caches give what is missing where they are, and nothing for another file system.
func TestCachesMakeRoomWhereTheyAre(t *testing.T) {
	t.Parallel()
	free := map[string]int64{"data": 1000, "artifacts": 0}
	var asked []int64
	d := &disk{
		folders: []string{"data", "artifacts"}, cached: "data", least: 100, log: slog.New(slog.DiscardHandler),
		free: func(folder string) (int64, bool) { return free[folder], true },
	}
	d.shrink = func(wanted func() int64) {
		asked = append(asked, wanted())
		free["data"] += wanted()
		asked = append(asked, wanted())
	}
	require.Equal(t, previewd.CodeDiskFull, previewd.ErrorCode(d.makeRoom()))
	require.Empty(t, asked, "no cache can help")
	free["artifacts"], free["data"] = 1000, 50
	require.NoError(t, d.makeRoom())
	require.Equal(t, []int64{150, 0}, asked)
}

func sandboxesIn(dir string) *sandboxes {
	return newSandboxes(&builder{App: &App{Config: config.Config{Data: dir}, log: slog.New(slog.DiscardHandler)}})
}

// No more is dropped than is wanted: packages first, then what tools remember.
func TestCachesShrinkInTurn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := []string{"modules/key/info.json", "caches/one@two.tar", "npm/file"}
	for _, name := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(`{"bytes": 10}`), 0o600))
	}
	s := sandboxesIn(dir)
	left := func() (names []string) {
		for _, name := range files {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				names = append(names, name)
			}
		}
		return names
	}
	for n := range 3 {
		s.shrink(func() int64 {
			if len(left()) > 2-n {
				return 1
			}
			return 0
		})
		require.ElementsMatch(t, files[n+1:], left())
	}
}

func TestCachesOpenOnceNothingIsInTheWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "modules"), nil, 0o600))
	s := sandboxesIn(dir)
	_, err := s.caches()
	require.Error(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "modules")))
	opened, err := s.caches()
	require.NoError(t, err)
	again, err := s.caches()
	require.NoError(t, err)
	require.Same(t, opened, again)
}

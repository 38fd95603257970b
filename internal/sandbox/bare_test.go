//go:build linux

package sandbox_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/sandbox"
)

// Where the workspace was swapped for a link, what is laid out and what is read stay
// in the workspace.
func TestBareKeepsItsWorkspace(t *testing.T) {
	if _, err := os.Stat("/usr/bin/env"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	temporary := t.TempDir()
	for _, dir := range []string{temporary, filepath.Dir(temporary)} {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	t.Setenv("TMPDIR", temporary)
	outside := filepath.Join(temporary, "outside")
	require.NoError(t, os.Mkdir(outside, 0o755))
	b, err := sandbox.OpenBare(t.Context(), sandbox.BoxConfig{Source: tarOf(t, map[string]string{"a.txt": "a"})})
	require.NoError(t, err)
	defer b.Close()
	_, err = b.Run(t.Context(), sandbox.Task{
		Argv: []string{"sh", "-c", "cd .. && mv workspace moved && ln -s " + outside + " workspace"}, Env: []string{"PATH=/usr/bin:/bin"}, Output: io.Discard,
	})
	require.NoError(t, err)
	if os.Geteuid() == 0 {
		left, err := filepath.Glob(filepath.Join(temporary, "previewd-bare-*", "moved"))
		require.NoError(t, err)
		require.Empty(t, left, "a task has no right to it")
	}
	require.NoError(t, b.Unpack(t.Context(), tarOf(t, map[string]string{"b.txt": "b"})))
	left, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, left)
	root, err := b.Output(t.Context(), ".")
	require.NoError(t, err)
	defer root.Close()
	for name, text := range map[string]string{"a.txt": "a", "b.txt": "b"} {
		got, err := root.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, text, string(got))
	}
}

// A folder goes when its process has died, and not before.
func TestSweepRemovesWhatNobodyUses(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	used, release, err := sandbox.TempFolder("previewd-box-")
	require.NoError(t, err)
	left, err := os.MkdirTemp("", "previewd-bare-")
	require.NoError(t, err)
	require.NoError(t, sandbox.Sweep())
	require.DirExists(t, used)
	require.NoDirExists(t, left)
	release()
	require.NoError(t, sandbox.Sweep())
	require.NoDirExists(t, used)
	require.True(t, strings.HasPrefix(filepath.Base(used), "previewd-box-"))
}

// Two servers share the machine's temporary files: one sweeps while the other makes
// folders.
func TestSweepMeetsNewFolders(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	made := make(chan struct{})
	var sweeping sync.WaitGroup
	for range 2 {
		sweeping.Go(func() {
			for {
				select {
				case <-made:
					return
				default:
					assert.NoError(t, sandbox.Sweep())
				}
			}
		})
	}
	defer sweeping.Wait()
	defer close(made)
	for range 1000 {
		dir, release, err := sandbox.TempFolder("previewd-box-")
		require.NoError(t, err)
		require.DirExists(t, dir)
		release()
	}
}

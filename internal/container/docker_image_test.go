//go:build linux

package container_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/sandbox"
)

// Folders of one name that hold different things are different roots, and leave no
// image behind.
func TestUnsettledRootsAreWhatTheyHold(t *testing.T) {
	t.Parallel()
	b := setup(t, "docker")
	for _, word := range []string{"one", "two"} {
		root := filepath.Join(t.TempDir(), "unfinished")
		require.NoError(t, os.CopyFS(root, os.DirFS(b.root)))
		require.NoError(t, os.WriteFile(filepath.Join(root, "etc", "word"), []byte(word), 0o644))
		box := b.open(t, func(c *sandbox.BoxConfig) { c.Root = root })
		_, out := run(t, box, sh("cat /etc/word"))
		require.Equal(t, word, out)
		box.Close()
	}
	require.NotContains(t, b.docker(t, "images"), "once-")
}

// An image that somebody removes is made again; one whose toolchain is gone goes.
func TestImagesComeAndGo(t *testing.T) {
	t.Parallel()
	b := setup(t, "docker")
	root := filepath.Join(t.TempDir(), strings.Repeat("0a", 16))
	require.NoError(t, os.CopyFS(root, os.DirFS(b.root)))
	name := "previewd-toolchain:" + filepath.Base(root)
	for _, removed := range []bool{true, false} {
		box := b.open(t, func(c *sandbox.BoxConfig) { c.Root = root })
		_, out := run(t, box, sh("echo hi"))
		require.Equal(t, "hi\n", out)
		box.Close()
		if removed {
			b.docker(t, "rmi", name)
		}
	}
	require.NoError(t, b.Sweep(t.Context()))
	require.Contains(t, b.docker(t, "images"), filepath.Base(root), "its toolchain is there")
	require.NoError(t, os.RemoveAll(root))
	require.NoError(t, b.Sweep(t.Context()))
	require.NotContains(t, b.docker(t, "images"), filepath.Base(root))
}

func (b *bench) docker(t *testing.T, args ...string) string {
	t.Helper()
	program, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("SKIPPED: the docker command is not there")
	}
	out, err := exec.Command(program, append([]string{"-H", "unix://" + b.Socket}, args...)...).CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

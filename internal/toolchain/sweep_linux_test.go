package toolchain

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The toolchains that were not used for longest go; those in use stay, whoever
// uses them.
func TestSweepRemovesTheLeastUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	began := time.Now().Add(-24 * time.Hour)
	add := func(i int) string {
		name := fmt.Sprintf("root%02d", i)
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name, "usr"), 0o755))
		use, err := hold(dir, name)
		require.NoError(t, err)
		at := began.Add(time.Duration(i) * time.Minute)
		require.NoError(t, os.Chtimes(use.Path(), at, at))
		if i != 0 && i != 2 {
			require.NoError(t, use.Close())
		} else {
			t.Cleanup(func() { use.Close() })
		}
		return filepath.Join(dir, name)
	}
	var roots []string
	for i := range maxKept + 2 {
		roots = append(roots, add(i))
	}
	require.NoError(t, sweep(dir))
	for i, root := range roots {
		if i == 1 || i == 3 {
			require.NoDirExists(t, root)
			require.NoFileExists(t, filepath.Join(dir, used, filepath.Base(root)))
		} else {
			require.DirExists(t, root)
		}
	}
	require.NoDirExists(t, filepath.Join(dir, unfinished))
	removed, err := remove(dir, filepath.Base(roots[2]))
	require.NoError(t, err)
	require.False(t, removed, "it is in use")

	wanted := int64(2)
	require.NoError(t, Shrink(dir, func() int64 { wanted--; return wanted }))
	require.DirExists(t, roots[4], "one look before, and one that is enough")
	require.NoError(t, Shrink(dir, func() int64 { return 1 }))
	for i, root := range roots {
		if i == 0 || i == 2 {
			require.DirExists(t, root)
		} else {
			require.NoDirExists(t, root)
		}
	}
	require.NoError(t, Shrink(filepath.Join(dir, "none"), func() int64 { return 1 }))
}

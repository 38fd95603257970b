//go:build linux

package container_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/sandbox"
)

// What a build leaves is fetched with care: nothing leads out of it, nothing hangs
// on it and nothing fills the disk.
func TestOutputLeadsNowhere(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		box := b.open(t, func(c *sandbox.BoxConfig) { c.Limits.Disk = 64 << 20 })
		_, out := run(t, box, sh(`mkdir dist node_modules dist/node_modules; echo '{}' > package.json; echo x > node_modules/x; echo x > dist/node_modules/kept
			ln -s /etc/passwd dist/passwd; ln -s /proc/self/root/etc dist/etc; ln -s ../.. dist/up; ln -s /etc out
			node -e 'require("net").createServer().listen("dist/socket", () => process.kill(process.pid, 9))'; echo ok > dist/ok; ln dist/ok dist/same; echo '#!/bin/sh' > dist/run; chmod 755 dist/run
			mkdir dist/closed; echo x > dist/closed/x; chmod 0 dist/closed; echo x > dist/secret; chmod 0 dist/secret
			echo x > "dist/$(printf '\377')"
			d=dist/deep; for i in $(seq 200); do d=$d/d; done; mkdir -p $d
			node -e 'for (const i of [1, 2, 3]) { fs.writeFileSync("dist/sparse" + i, ""); fs.truncateSync("dist/sparse" + i, 60 << 20) }'; ls dist | wc -l`))
		t.Log(out)
		root, err := box.Output(t.Context(), ".")
		require.NoError(t, err)
		defer root.Close()
		_, err = root.OpenRoot("out")
		require.Error(t, err, "the folder itself is a link to the host")
		_, err = root.Stat("node_modules")
		require.ErrorIs(t, err, os.ErrNotExist, "what was installed stays")
		dist, err := root.OpenRoot("dist")
		require.NoError(t, err)
		defer dist.Close()
		for _, name := range []string{"passwd", "etc/passwd", "up/up/etc/passwd", "socket"} {
			_, err := dist.ReadFile(name)
			require.Error(t, err, name)
		}
		for _, name := range []string{"ok", "same"} {
			text, err := dist.ReadFile(name)
			require.NoError(t, err)
			require.Equal(t, "ok\n", string(text))
		}
		_, err = dist.Stat("node_modules/kept")
		require.NoError(t, err)
		info, err := dist.Stat("run")
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o755), info.Mode().Perm())
		odd, depth, total := 0, 0, int64(0)
		require.NoError(t, fs.WalkDir(dist.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
			require.NoError(t, err)
			depth = max(depth, strings.Count(name, "/"))
			if !entry.IsDir() && !entry.Type().IsRegular() {
				require.Equal(t, fs.ModeSymlink, entry.Type(), "publishing refuses it by name: %s", name)
				odd++
			}
			if info, err := entry.Info(); err == nil && entry.Type().IsRegular() {
				total += info.Size()
			}
			return nil
		}))
		require.Less(t, total, int64(64<<20), "no more than a build may have comes out")
		require.GreaterOrEqual(t, odd, 7)
		require.Less(t, depth, 130)
		row(t, "links, a socket, closed folders, 200 folders deep, sparse files in the output", "placeholders that publishing refuses", fmt.Sprint(odd, " of them, ", total>>20, " MiB"))
	})
}

// What many boxes share shows through, and none of them can change it.
func TestModulesAreShared(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		dir := filepath.Join(t.TempDir(), "node_modules")
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "left-pad"), 0o755))
		require.NoError(t, os.MkdirAll(filepath.Join(dir, ".bin"), 0o755))
		shared := filepath.Join(dir, "left-pad", "index.js")
		require.NoError(t, os.WriteFile(shared, []byte("module.exports = 1\n"), 0o755))
		require.NoError(t, os.Symlink("../left-pad/index.js", filepath.Join(dir, ".bin", "left-pad")))
		for i := range 300 {
			require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), []byte("x"), 0o644))
		}
		if os.Geteuid() == 0 {
			require.NoError(t, filepath.WalkDir(dir, func(name string, _ fs.DirEntry, _ error) error {
				return os.Lchown(name, sandbox.DefaultUID, sandbox.DefaultUID)
			}))
		}
		for range 2 {
			box := b.open(t, func(c *sandbox.BoxConfig) { c.Modules = dir })
			end, out := run(t, box, sh(`cat node_modules/.bin/left-pad && echo POISON > node_modules/left-pad/index.js && echo x > node_modules/new && test -x node_modules/.bin/left-pad &&
				cat node_modules/left-pad/index.js && ls node_modules | wc -l && rm -r node_modules/left-pad && ls node_modules | wc -l; for w in /dev/previewd/modules /dev/previewd/modules/f1 /dev/previewd/modules/left-pad/index.js; do echo POISON > $w && echo written; rm -f $w && echo removed; done 2>/dev/null; true`))
			require.Zero(t, end.Code, out)
			require.Equal(t, "module.exports = 1\nPOISON\n302\n301\n", out)
			require.NoError(t, box.Unpack(t.Context(), tarOf(t, map[string]string{"later.txt": "later"})))
			files, err := box.Files(t.Context())
			require.NoError(t, err)
			link, err := files.Readlink("node_modules/.bin/left-pad")
			require.NoError(t, err)
			require.Equal(t, "../left-pad/index.js", link)
			files.Close()
		}
		text, err := os.ReadFile(shared)
		require.NoError(t, err)
		require.Equal(t, "module.exports = 1\n", string(text))
		row(t, "change packages that builds share", "only its own", "2 boxes")
	})
}

// A tree that would lay itself out elsewhere does not, and one that does not fit is
// said not to.
func TestSourceStaysInTheWorkspace(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED with -short: the same code as the native sandbox's")
	}
	each(t, func(t *testing.T, b *bench) {
		for _, name := range []string{"../up.txt", "/etc/abs.txt", "a/../../b.txt"} {
			cfg := b.config(t)
			cfg.Source = tarOf(t, map[string]string{name: "x"})
			box, err := b.Open(t.Context(), cfg)
			if err == nil {
				box.Close()
			}
			require.Error(t, err, name)
		}
		cfg := b.config(t)
		cfg.Limits.Disk = 8 << 20
		cfg.Source = tarOf(t, map[string]string{"big": strings.Repeat("x", 16<<20)})
		_, err := b.Open(t.Context(), cfg)
		require.ErrorContains(t, err, "no space left on device")
		left, err := os.ReadDir(cfg.WorkDir)
		require.NoError(t, err)
		require.Empty(t, left, "a box that did not begin leaves nothing")
	})
}

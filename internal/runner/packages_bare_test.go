package runner

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/sandbox"
)

// Without a sandbox the same trees make the same sites, and every build says so.
func TestBuildsWithoutASandbox(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	b := setupNPM(t, func(s *Sandbox) { s.Open, s.Level, s.Root = OpenBare, sandbox.LevelNone, sandbox.LevelNone })
	temporary := t.TempDir() // for builds alone: what is left is counted below
	for _, dir := range []string{temporary, filepath.Dir(temporary)} {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	t.Setenv("TMPDIR", temporary)
	tree := b.tree("maker", "maker", "native")
	for _, cache := range []string{"miss", "hit"} {
		o := b.build(tree, func(c *previewd.Claim) { c.Env = map[string]string{"VITE_NAME": "Ann"} })
		require.Equal(t, map[string]string{"index.html": "<h1>tea!Ann</h1>"}, b.site(o), b.text())
		require.Equal(t, []string{"sandbox", "none", cache}, []string{o.Runner, o.Isolation, o.Cache})
		require.Len(t, o.Packages, 2)
	}
	require.Contains(t, b.text(), "WARNING: there is no sandbox")

	// What a build does to its packages stays its own.
	evil := b.tree("sh build.sh", "maker")
	evil["build.sh"] = `echo "module.exports = 'POISON'" > node_modules/maker/say.js; maker`
	for range 2 {
		require.Contains(t, b.site(b.build(evil))["index.html"], "POISON")
	}
	good := b.tree("sh build.sh", "maker")
	good["build.sh"] = "maker"
	require.Equal(t, "<h1>tea!</h1>", b.site(b.build(good))["index.html"])

	// Its words name files as everywhere else, and nothing is left of it.
	bad := b.tree("sh build.sh", "maker")
	nap := fmt.Sprintf("sleep 8641.%d", os.Getpid())
	bad["build.sh"] = `echo "in $PWD/src/a.js"; ` + nap + ` & exit 3`
	o := b.build(bad)
	require.Equal(t, previewd.FailBuild, o.Failure.Code)
	require.Contains(t, b.text(), "in /workspace/src/a.js")
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "previewd-bare-*"))
	require.NoError(t, err)
	require.Empty(t, left)
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, name := range processes {
		line, _ := os.ReadFile(name) // it may be gone
		require.NotContains(t, strings.ReplaceAll(string(line), "\x00", " "), nap+" ", "of %s", name)
	}
}

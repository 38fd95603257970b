package runner

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/npm"
)

// manifestOf is a package.json with these dependencies, and a build of maker.
func manifestOf(t *testing.T, dependencies map[string]string) string {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"name": "x", "version": "1.0.0", "scripts": map[string]string{"build": "maker"}, "dependencies": dependencies})
	require.NoError(t, err)
	return string(raw)
}

// Each code that tells of packages, and of trees that are refused before any is
// installed, is what a tree gets that asks for it.
func TestFailuresOfInstalls(t *testing.T) {
	t.Parallel()
	type tree = map[string]string
	for name, c := range map[string]struct {
		tree tree
		code string
		step string
		says string
	}{
		"Engine": {tree{
			"package.json": manifestOf(t, map[string]string{"maker": "1.0.0", "young": "1.0.0"}), ".npmrc": "engine-strict=true\n",
		}, previewd.FailEngine, previewd.StepInstall, "young@1.0.0 needs Node.js >=99"},
		"Conflict": {tree{
			"package.json": manifestOf(t, map[string]string{"maker": "1.0.0", "picky": "1.0.0"}),
		}, previewd.FailEresolve, previewd.StepInstall, "picky@1.0.0 needs maker@^2.0.0, but maker@1.0.0"},
		"Lockfile": {tree{
			"package.json": manifestOf(t, map[string]string{"maker": "1.0.0", "tea": "1.0.0"}), "package-lock.json": "", // below
			"previewd.json": `{"install": ["npm", "ci", "--no-audit"]}`,
		}, previewd.FailLockfile, previewd.StepInstall, "they differ in tea@1.0.0"},
		"Version": {tree{
			"package.json": manifestOf(t, map[string]string{"maker": "97.0.0"}),
		}, previewd.FailDependencyUnavailable, previewd.StepInstall, `No version of the package "maker" fits 97.0.0`},
		"Server": {tree{
			"package.json":     `{"name":"x","scripts":{"build":"vite build"},"devDependencies":{"@sveltejs/kit":"2.0.0","@sveltejs/adapter-node":"5.0.0","vite":"1.0.0"}}`,
			"svelte.config.js": "import adapter from '@sveltejs/adapter-node'\nexport default { kit: { adapter: adapter() } }\n",
		}, previewd.FailSSRAdapter, previewd.StepBuild, "@sveltejs/adapter-node"},
		"Workspace": {tree{
			"package.json": `{"name":"x","private":true,"workspaces":["apps/*"],"scripts":{"build":"turbo build"}}`, "apps/web/package.json": manifestOf(t, map[string]string{"maker": "1.0.0"}),
			"apps/web/page.txt": "tea",
		}, previewd.FailWorkspace, previewd.StepBuild, "apps/web"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupNPM(t)
			c.tree["page.txt"] = "tea"
			if _, ok := c.tree["package-lock.json"]; ok {
				c.tree["package-lock.json"] = b.tree("maker", "maker")["package-lock.json"]
			}
			b.requireFailure(b.build(c.tree), c.code, c.step, c.says)
		})
	}
}

func (b *npmBench) requireFailure(o previewd.Outcome, code, step, says string) {
	t := b.t
	t.Helper()
	require.Equal(t, previewd.OutcomeFailed, o.Kind, b.text())
	require.Equal(t, code, o.Failure.Code, "%+v\n%s", o.Failure, b.text())
	require.Equal(t, step, o.Failure.Step)
	require.Contains(t, o.Failure.Message+o.Failure.Hint, says)
	require.NotEmpty(t, o.Failure.Hint)
	if code != previewd.FailRegistryUnreachable {
		require.Equal(t, previewd.FailureUser, o.Failure.Class)
	}
}

// A registry that is away is nobody's fault here, and worth another attempt.
func TestRegistryAway(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	var err error
	b.with.Mirror, err = npm.NewMirror(npm.Config{Registry: away.URL, Dir: filepath.Join(t.TempDir(), "npm"), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	require.NoError(t, err)
	tree := map[string]string{"package.json": manifestOf(t, map[string]string{"maker": "1.0.0"}), "page.txt": "tea", ".npmrc": "fetch-retries=0\n"}
	o := b.build(tree)
	b.requireFailure(o, previewd.FailRegistryUnreachable, previewd.StepInstall, "registry")
	require.Equal(t, previewd.FailureInfra, o.Failure.Class)
	require.True(t, o.Failure.Class.Retryable())
}

// machineMirror returns a mirror of the registry that this machine's npm uses, which
// has a package; it asks the machine's own name server.
func machineMirror(t *testing.T, has string) *npm.Mirror {
	t.Helper()
	registry, err := exec.Command("npm", "config", "get", "registry").Output()
	if err != nil {
		t.Skipf("SKIPPED: npm is not installed: %v", err)
	}
	machines := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Resolver: &net.Resolver{}}).DialContext,
	}}
	mirror, err := npm.NewMirror(npm.Config{
		Registry: strings.TrimSpace(string(registry)), Dir: filepath.Join(t.TempDir(), "npm"), Client: machines, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	if list, err := mirror.Releases(t.Context(), has); err != nil || len(list) == 0 {
		t.Skipf("SKIPPED: the npm registry cannot be asked for %s: %v", has, err)
	}
	return mirror
}

// What TypeScript itself says of a tree is told with file and line.
func TestTypeError(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED with -short: it fetches TypeScript")
	}
	b := setupNPM(t)
	b.with.Mirror = machineMirror(t, "typescript")
	o := b.build(map[string]string{
		"package.json":  `{"name":"x","scripts":{"build":"tsc --noEmit"},"devDependencies":{"typescript":"5.9.3"}}`,
		"tsconfig.json": `{"compilerOptions":{"strict":true}}`,
		"main.ts":       "const cups: number = 1\n\nexport const tea: number = 'green' + cups\n",
	}, func(c *previewd.Claim) { c.Timeout = 5 * time.Minute })
	b.requireFailure(o, previewd.FailType, previewd.StepBuild, "Type 'string' is not assignable to type 'number'")
	require.Equal(t, "main.ts", o.Failure.File)
	require.Equal(t, 3, o.Failure.Line)
}

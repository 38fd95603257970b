package main_test

import (
	"bytes"
	"cmp"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/client"
	"github.com/previewd/previewd/internal/testkit"
)

var matrix = flag.Bool("matrix", false, "whether TestMatrix builds every project; default one")

// start is a project that people begin with.
type start struct {
	template string            // of create-vite
	files    map[string]string // besides
	lock     []string          // the command that writes a lockfile
	text     string            // that its page shows
	runner   string            // that takes it; default the sandbox
	browser  bool              // its page needs scripts
}

var npmLock = []string{"npm", "install", "--package-lock-only", "--ignore-scripts"}

// viteRange is pinned: a Vite of a few days can need packages that a mirror of the
// registry does not have yet.
var viteRange = regexp.MustCompile(`"vite": "[^"]*"`)

const createVite = "create-vite@9.3.0"

var starts = map[string]start{
	"vanilla": {template: "vanilla", text: "Get started", browser: true, lock: npmLock, runner: previewd.RunnerBundle},
	"react":   {template: "react-ts", text: "Get started", browser: true, lock: npmLock, runner: previewd.RunnerBundle},
	"preact":  {template: "preact-ts", text: "Get started", browser: true, lock: npmLock, runner: previewd.RunnerBundle},
	"types":   {template: "react-ts", text: "Get started", browser: true}, // without a lockfile: tsc and Vite run
	"vue":     {template: "vue-ts", text: "Get started", browser: true},
	"svelte":  {template: "svelte-ts", text: "Get started", browser: true},
	"pnpm":    {template: "vanilla", text: "Get started", browser: true, lock: []string{"npx", "-y", "pnpm@9", "install", "--lockfile-only"}},
	"yarn": {template: "vanilla", text: "Get started", browser: true, lock: []string{"npx", "-y", "yarn@1", "install", "--ignore-scripts"}, files: map[string]string{
		"package.json": `{"name":"y","type":"module","private":true,"scripts":{"build":"vite build"},"devDependencies":{"vite":"^6.0.0"}}`,
	}},
	"bun": {template: "vanilla", text: "Get started", browser: true, lock: []string{"npx", "-y", "bun@1", "install", "--lockfile-only"}},
	"eleventy": {text: "Tea", files: map[string]string{
		"package.json": `{"name":"e","private":true,"scripts":{"build":"eleventy"},"devDependencies":{"@11ty/eleventy":"^3.0.0"}}`,
		"index.md":     "# Tea\n",
	}},
	"astro": {text: "Astro 2", files: map[string]string{
		"package.json":          `{"name":"a","type":"module","private":true,"scripts":{"build":"astro build"},"dependencies":{"astro":"^5.0.0"}}`,
		"src/pages/index.astro": "---\nconst x = 1 + 1\n---\n<html><body><h1>Astro {x}</h1></body></html>\n",
	}},
	"next": {text: "Next 2", files: map[string]string{
		"package.json":   `{"name":"n","private":true,"scripts":{"build":"next build"},"dependencies":{"next":"^15.0.0","react":"^19","react-dom":"^19"}}`,
		"next.config.js": "module.exports = { output: 'export' }\n",
		"app/layout.jsx": "export default function Layout({ children }) { return <html><body>{children}</body></html> }\n",
		"app/page.jsx":   "export default function Page() { return <h1>{'Next ' + (1 + 1)}</h1> }\n",
	}},
	"sveltekit": {text: "Kit 2", browser: true, files: map[string]string{
		"package.json": `{"name":"k","type":"module","private":true,"scripts":{"build":"vite build"},
			"devDependencies":{"@sveltejs/kit":"^2","@sveltejs/adapter-static":"^3","@sveltejs/vite-plugin-svelte":"^6","svelte":"^5","vite":"^7"}}`,
		"svelte.config.js":        "import adapter from '@sveltejs/adapter-static'\nexport default { kit: { adapter: adapter() } }\n",
		"vite.config.js":          "import { sveltekit } from '@sveltejs/kit/vite'\nexport default { plugins: [sveltekit()] }\n",
		"src/app.html":            "<!doctype html><html><head>%sveltekit.head%</head><body>%sveltekit.body%</body></html>\n",
		"src/routes/+layout.js":   "export const prerender = true\n",
		"src/routes/+page.svelte": "<h1>Kit {1 + 1}</h1>\n",
	}},
}

// What people begin with is built, in the sandbox unless nothing of it has to be
// run, and shows its page without an error, and again from kept packages. What is
// bundled shows the same in the sandbox.
func TestMatrix(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED with -short: it fetches packages")
	}
	registry, pack := fetchStarts(t)
	addr := freeAddr(t)
	startServer(t, addr, filepath.Join(t.TempDir(), "data"), "--npm-registry", registry, "--build-timeout", "10m")
	for name, s := range starts {
		if !*matrix && name != "vanilla" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s.lay(t, pack, dir)
			want := cmp.Or(s.runner, previewd.RunnerSandbox)
			cold := buildTree(t, addr, dir, want, nil)
			warm := buildTree(t, addr, dir, want, nil)
			again := buildAgain(t, addr, dir, warm.ProjectID)
			took := func(b *previewd.Build) float64 { return b.FinishedAt.Sub(*b.StartedAt).Seconds() }
			t.Logf("%-10s cold %5.1f s, warm %5.1f s, the same project again %5.1f s", name, took(cold), took(warm), took(again))

			browser := testkit.OpenBrowser(t) // for a minute: what takes long comes before
			for _, b := range []*previewd.Build{again, cold} {
				browser.Open(t, b.PreviewURL, s.text)
				require.Empty(t, browser.Errors())
			}
			if want == previewd.RunnerBundle {
				shown := browser.Picture(t)
				own := buildTree(t, addr, dir, previewd.RunnerSandbox, inSandbox)
				browser.Open(t, own.PreviewURL, s.text)
				require.Empty(t, browser.Errors())
				testkit.Eventually(t, "both builds look the same", func() bool { return bytes.Equal(shown, browser.Picture(t)) })
			}
		})
	}
}

// fetchStarts returns the machine's registry and a folder with create-vite.
func fetchStarts(tb testing.TB) (registry, pack string) {
	tb.Helper()
	pack = tb.TempDir()
	out, err := npmIn(pack, "npm", "config", "get", "registry")
	if err != nil {
		tb.Skipf("SKIPPED: npm is not installed: %v", err)
	}
	registry = strings.TrimSpace(string(out))
	if out, err := npmIn(pack, "npm", "pack", createVite); err != nil {
		tb.Skipf("SKIPPED: the npm registry cannot be reached: %s", out)
	}
	out, err = npmIn(pack, "sh", "-c", "tar xzf create-vite-*.tgz")
	require.NoError(tb, err, "%s", out)
	return registry, pack
}

// lay writes the project into a folder.
func (s start) lay(tb testing.TB, pack, dir string) {
	tb.Helper()
	if s.template != "" {
		require.NoError(tb, os.CopyFS(dir, os.DirFS(filepath.Join(pack, "package", "template-"+s.template))))
		manifest := filepath.Join(dir, "package.json")
		raw, err := os.ReadFile(manifest)
		require.NoError(tb, err)
		require.Regexp(tb, viteRange, string(raw))
		require.NoError(tb, os.WriteFile(manifest, viteRange.ReplaceAll(raw, []byte(`"vite": "~8.3.0"`)), 0o644))
	}
	for file, text := range s.files {
		require.NoError(tb, os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755))
		require.NoError(tb, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644))
	}
	if len(s.lock) > 0 {
		out, err := npmIn(dir, s.lock...)
		require.NoError(tb, err, "%s", out)
		require.NoError(tb, os.RemoveAll(filepath.Join(dir, "node_modules")))
	}
}

// npmIn runs a command in a folder, as a developer does.
func npmIn(dir string, argv ...string) (out []byte, err error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

// inSandbox is metadata that has the tree's own build run.
var inSandbox = map[string]any{"build": map[string]any{"runner": previewd.RunnerSandbox}}

// buildTree makes a project of a folder, waits for its build and requires which
// runner took it.
func buildTree(t testing.TB, addr, dir, runner string, metadata map[string]any) *previewd.Build {
	t.Helper()
	made, err := clientOf(t, addr).CreatePreview(t.Context(), previewd.CreatePreviewRequest{
		UserID: "matrix", TemplateFiles: filesOf(t, dir), Metadata: metadata, IdempotencyKey: previewd.NewRequestID(),
	})
	require.NoError(t, err)
	b := awaitBuild(t, addr, made.BuildID)
	require.Equal(t, runner, b.Runner, b.Reason)
	if runner == previewd.RunnerSandbox {
		require.Equal(t, "namespace", b.Isolation)
	}
	return b
}

// buildAgain builds a folder as the next version of a project.
func buildAgain(t testing.TB, addr, dir, projectID string) *previewd.Build {
	t.Helper()
	b, err := clientOf(t, addr).CreateBuild(t.Context(), previewd.CreateBuildRequest{
		ProjectID: projectID, TemplateFiles: filesOf(t, dir), IdempotencyKey: previewd.NewRequestID(),
	})
	require.NoError(t, err)
	return awaitBuild(t, addr, b.ID)
}

// filesOf reads a folder.
func filesOf(t testing.TB, dir string) previewd.Files {
	t.Helper()
	files := previewd.Files{}
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files[name], err = os.ReadFile(filepath.Join(dir, name))
		return err
	}))
	return files
}

// awaitBuild follows a build to its end, which must be a good one.
func awaitBuild(t testing.TB, addr, id string) *previewd.Build {
	t.Helper()
	c := clientOf(t, addr)
	var log []byte
	require.NoError(t, c.WatchBuild(t.Context(), id, client.Watch{
		Event: func(previewd.Event) error { return nil },
		Log:   func(_ int64, part string) error { log = append(log, part...); return nil },
	}))
	b, err := c.FindBuild(t.Context(), id, 0)
	require.NoError(t, err)
	require.Equal(t, previewd.BuildCompleted, b.Status, "%+v\n%s", b.Failure, log)
	return b
}

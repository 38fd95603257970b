package runner

import (
	"encoding/json"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/npm"
)

// plainVite is a tree of which nothing has to be run.
func plainVite(b *npmBench) map[string]string {
	tree := b.tree("vite build", "vite", "tea")
	maps.Copy(tree, map[string]string{
		"index.html": `<head></head><script type="module" src="/main.ts"></script>`,
		"main.ts":    `import { tea } from "tea"; document.title = tea + " for " + (import.meta.env.VITE_NAME as string)`,
		".env":       "# who drinks it\nVITE_NAME=\"Ann\"\nSECRET=x\n",
	})
	return tree
}

func all(site map[string]string) string {
	var text strings.Builder
	for name, content := range site {
		text.WriteString(name + "\n" + content + "\n")
	}
	return text.String()
}

// A tree of plain Vite is bundled with its packages. Nothing of it is run, and the
// second time nothing is installed.
func TestPlainViteIsBundledWithItsPackages(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	for i, cache := range []string{"miss", "hit"} {
		tree := plainVite(b)
		tree["mail.html"] = `<script type="module" src="/nowhere.ts"></script>` // no page of the site
		tree["main.ts"] += strings.Repeat("\n", i)                              // another source, the same packages
		o := b.build(tree)
		require.Equal(t, previewd.OutcomeCompleted, o.Kind, b.text())
		require.Equal(t, "bundle", o.Runner)
		require.Equal(t, cache, o.Cache)
		require.Contains(t, o.Reason, "plain Vite")
		site := all(b.site(o))
		for _, want := range []string{"green", "leaf", "Ann", "assets/main-"} {
			require.Contains(t, site, want)
		}
		require.NotContains(t, site, "SECRET")
		require.NotContains(t, site, "mail.html")
	}
	require.Equal(t, []string{"prepare", "install", "build", "publish", "prepare", "build", "publish"}, b.steps)
	require.NotContains(t, b.text(), "npm run build")
}

// What the bundler does not manage is left to the tree's own build, and the build
// says why.
func TestBundlerStepsAside(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	for name, c := range map[string]struct{ file, text, why string }{
		"Glob":     {"main.ts", `export const all = import.meta.glob("./*.ts")`, "import.meta.glob"},
		"Worker":   {"main.ts", `new Worker(new URL("./w.ts", import.meta.url))`, "import.meta.url"},
		"Computed": {"main.ts", "const n = location.hash; import(`./${n}.ts`)", "computed"},
		"Suffix":   {"main.ts", `import w from "./main.ts?worker"; w()`, "?worker"},
		"Missing":  {"main.ts", `import "coffee"`, "coffee"},
		"Sass":     {"main.ts", `import "./a.scss"`, "a.scss"},
		"Syntax":   {"main.ts", `let = = 1`, "Unexpected"},
		"Outside":  {"main.ts", `import "../../etc/passwd"`, "leaves the project"},
		"Map":      {"index.html", `<script type="importmap">{}</script><script type="module" src="/main.ts"></script>`, "import map"},
		"Dotenv":   {".env", "VITE_A=${HOME}", ".env holds more"},
		"Deep":     {"main.ts", "x=" + strings.Repeat("[", 3<<20), "died"},
	} {
		tree := plainVite(b)
		tree["a.scss"] = "a { b { c: d } }"
		tree[c.file] = c.text
		o := b.build(tree)
		require.Equal(t, previewd.OutcomeCompleted, o.Kind, "%s: %s", name, b.text())
		require.Equal(t, "sandbox", o.Runner, name)
		require.Contains(t, o.Reason, "not bundled: ", name)
		require.Contains(t, o.Reason, c.why, name)
		require.Equal(t, "<h1>by vite</h1>", b.site(o)["index.html"], name)
	}
}

// A request that names the sandbox gets it.
func TestRequestNamesTheSandbox(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	o := b.build(plainVite(b), func(c *previewd.Claim) { c.Overrides = json.RawMessage(`{"runner":"sandbox"}`) })
	require.Equal(t, previewd.OutcomeCompleted, o.Kind, b.text())
	require.Equal(t, "sandbox", o.Runner)
	require.Contains(t, o.Reason, "metadata.build says so")
}

// The bundler's memory is bounded by what it reads.
func TestMuchSourceIsNotBundled(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	tree := plainVite(b)
	tree["main.ts"] += `; import "./much"`
	tree["much.ts"] = "//" + strings.Repeat("x", maxLoaded)
	o := b.build(tree)
	require.Equal(t, "sandbox", o.Runner, b.text())
	require.Contains(t, o.Reason, "more than 32 MB")
}

// npm installs what a shrinkwrap names, whatever another lockfile says.
func TestShrinkwrapIsPreferred(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	tree := plainVite(b)
	require.Equal(t, previewd.OutcomeCompleted, b.build(tree).Kind, b.text())
	tree["npm-shrinkwrap.json"] = b.tree("vite build", "vite")["package-lock.json"] // has no tea
	o := b.build(tree)
	require.NotEqual(t, "hit", o.Cache, b.text())
}

// What is not to exist any more is not used because it was installed before.
func TestBlockedPackageIsNotKept(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	require.Equal(t, previewd.OutcomeCompleted, b.build(plainVite(b)).Kind, b.text())
	var err error
	b.with.Mirror, err = npm.NewMirror(npm.Config{Registry: b.url, Dir: t.TempDir(), Block: []string{"tea"}, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	o := b.build(plainVite(b))
	require.Equal(t, previewd.OutcomeFailed, o.Kind, b.text())
	require.Equal(t, previewd.FailDependencyUnavailable, o.Failure.Code)
	require.Contains(t, o.Failure.Message, "tea")
}

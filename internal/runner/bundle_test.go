package runner

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
)

func loads(script string) string {
	return `<!doctype html><html><head><title>x</title></head><body><script type="module" src="` + script + `"></script></body></html>`
}

func TestBundleBuildsAReactStyleApp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.build(map[string]string{
		"index.html":        loads("/src/main.tsx"),
		"src/main.tsx":      `import { createRoot } from "react-dom/client"; import App from "@/App"; createRoot(document.getElementById("root")!).render(<App />)`,
		"src/App.tsx":       `import { useState } from "react"; import "./app.css"; import s from "./x.module.css"; import logo from "./logo.svg"; import data from "./data.json"; import vite from "/vite.svg"; export default () => { const [n] = useState<number>(0); return <><img src={logo} className={s.title} /><img src={vite} />{data.label}{n}{import.meta.env.MODE}{import.meta.env.VITE_NAME}{String(import.meta.env.VITE_MISSING)}</> }`,
		"src/app.css":       `body { background: url("./bg.png"); mask: url(/vite.svg) }`,
		"src/x.module.css":  `.title { color: red }`,
		"src/logo.svg":      `<svg xmlns="http://www.w3.org/2000/svg"/>`,
		"src/bg.png":        "png",
		"src/data.json":     `{"label": "from json"}`,
		"public/vite.svg":   `<svg/>`,
		"public/robots.txt": "User-agent: *",
		"tsconfig.json":     "{ // comments are fine\n \"compilerOptions\": {\"jsx\": \"react-jsx\", \"paths\": {\"@/*\": [\"./src/*\"],}}, }",
	}, func(c *previewd.Claim) { c.Env = map[string]string{"VITE_NAME": "named"} })
	site := b.site(o)
	require.Equal(t, "bundle", o.Runner)
	js, code := one(t, site, `assets/main-[A-Z0-9]{8}\.js`)
	css, style := one(t, site, `assets/main-[A-Z0-9]{8}\.css`)
	one(t, site, `assets/main-[A-Z0-9]{8}\.js\.map`)
	logo, _ := one(t, site, `assets/logo-[A-Z0-9]{8}\.svg`)
	require.Contains(t, site["index.html"], `src="/`+js+`"`)
	require.Contains(t, site["index.html"], `<link rel="stylesheet" href="/`+css+`">`)
	require.Less(t, strings.Index(site["index.html"], css), strings.Index(site["index.html"], "</head>"))
	for _, want := range []string{"from json", "production", "named", "/" + logo, `"/vite.svg"`} {
		require.Contains(t, code, want)
	}
	require.NotContains(t, code, "import.meta.env")
	require.Contains(t, style, "url(/vite.svg)")
	require.Equal(t, "<svg/>", site["vite.svg"])
	require.Equal(t, "User-agent: *", site["robots.txt"])
	require.NotContains(t, site, "tsconfig.json")

	m, err := artifact.ReadManifest(t.Context(), b.artifacts, o.Manifest)
	require.NoError(t, err)
	for _, f := range m.Files {
		require.Equal(t, strings.HasPrefix(f.Path, "assets/"), f.Immutable, f.Path)
	}
}

func TestBundleRewritesEveryReferenceOfAPage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	site := b.site(b.build(map[string]string{
		"index.html": `<!doctype html><head><link rel="icon" href="./icon.svg"><link rel="stylesheet" href="/style.css">
<link rel="stylesheet" href="https://example.com/x.css"></head><body class='keep "this"'>
<img src="img/a.png" srcset="img/a.png 1x, img/b.png 2x" alt=""><a href="/about.html">%MODE%</a><script src="/legacy.js"></script>
<script type="module">import { greet } from "./lib.ts"; greet("inline")</script></body>`,
		"about.html": loads("./main.ts"), "main.ts": `import("./lazy.ts"); import { greet } from "./lib.ts"; greet("about")`,
		"lazy.ts": `import "./lazy.css"; console.log("lazy")`, "lazy.css": ".lazy{}", "lib.ts": `export const greet = (s: string) => console.log("hello", s)`,
		"style.css": `@import "./more.css"; body{}`, "more.css": "p{color:blue}", "icon.svg": "<svg/>", "img/a.png": "a", "img/b.png": "b", "legacy.js": "var x = 1",
	}))
	index := site["index.html"]
	for _, pattern := range []string{`assets/icon-\w+\.svg`, `assets/style-\w+\.css`, `assets/a-\w+\.png`, `assets/b-\w+\.png`, `assets/legacy-\w+\.js`, `assets/index\.html\.inline-0-\w+\.js`} {
		name, _ := one(t, site, pattern)
		require.Contains(t, index, "/"+name)
	}
	require.Contains(t, index, `href="https://example.com/x.css"`)
	require.Contains(t, index, `<body class='keep "this"'>`, "what needs no change keeps its bytes")
	require.Contains(t, index, `<a href="/about.html">production</a>`)
	require.NotContains(t, index, `import { greet }`)
	lazy, _ := one(t, site, `assets/lazy-\w+\.css`)
	require.Contains(t, site["about.html"], lazy, "styles of what is loaded later are there in time")
	_, style := one(t, site, `assets/style-\w+\.css`)
	require.Contains(t, style, "p{color:#00f}")
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files  map[string]string
		runner string
		code   string
		reason string
	}{
		"Plain":        {map[string]string{"index.html": "hi"}, "static", "", "as they are"},
		"ClassicJS":    {map[string]string{"index.html": `<script src="a.js"></script>`, "a.js": `1`}, "static", "", ""},
		"PlainModules": {map[string]string{"index.html": loads("/a.js"), "a.js": `import "./b.js"; import "https://x.test/y.js"`, "b.js": `export const b = 1`}, "static", "", ""},
		"Prebuilt":     {map[string]string{"index.html": loads("/assets/index-abc.js"), "assets/index-abc.js": `const a=()=>import("./lazy-def.js");export{a}`, "assets/lazy-def.js": `export default 1`}, "static", "", ""},
		"ImportMap":    {map[string]string{"index.html": `<script type="importmap">{"imports":{"x":"/x.js"}}</script>` + loads("/a.js"), "a.js": `import "x"`}, "static", "", ""},
		"TypeScript":   {map[string]string{"index.html": loads("/a.ts"), "a.ts": `1`}, "bundle", "", "index.html loads /a.ts"},
		"CSSImport":    {map[string]string{"index.html": loads("/a.js"), "a.js": `import "./b.js"`, "b.js": `import "./c.css"`, "c.css": ""}, "bundle", "", `b.js imports "./c.css"`},
		"BareImport":   {map[string]string{"index.html": loads("/a.js"), "a.js": `import "preact"`}, "bundle", "", `a.js imports "preact"`},
		"Env":          {map[string]string{"index.html": loads("/a.js"), "a.js": `console.log(import.meta.env.MODE)`}, "bundle", "", "import.meta.env"},
		"Inline":       {map[string]string{"index.html": `<script type="module">import "preact"</script>`}, "bundle", "", `imports "preact"`},
		"BuildScript":  {map[string]string{"index.html": "x", "package.json": `{"scripts":{"build":"build script"}}`}, "", previewd.FailRunnerUnavailable, "build script"},
		"BuildCommand": {map[string]string{"index.html": "x", "previewd.json": `{"build":["make"],"output":"site"}`}, "", previewd.FailRunnerUnavailable, "build command"},
		"NoScript":     {map[string]string{"index.html": "x", "package.json": `{"scripts":{"test":"x"}}`}, "static", "", ""},
		"Override":     {map[string]string{"index.html": loads("/a.js"), "a.js": "1", "package.json": `{"scripts":{"build":"vite build"}}`, "previewd.json": `{"runner":"bundle"}`}, "bundle", "", "previewd.json says so"},
		"NoIndex":      {map[string]string{"dist/index.html": "x"}, "", previewd.FailNoIndex, "dist/"},
		"BadConfig":    {map[string]string{"index.html": "x", "previewd.json": `{"runer":"static"}`}, "", previewd.FailBadConfig, "runer"},
		"BadPackage":   {map[string]string{"index.html": "x", "package.json": `{`}, "", previewd.FailBadConfig, "package.json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := setup(t).build(c.files)
			if c.code != "" {
				require.Equal(t, previewd.OutcomeFailed, o.Kind)
				require.Equal(t, c.code, o.Failure.Code)
				require.Equal(t, previewd.FailureUser, o.Failure.Class)
				require.Contains(t, o.Failure.Message+o.Failure.Hint, c.reason)
				return
			}
			require.Equal(t, previewd.OutcomeCompleted, o.Kind, "%+v", o.Failure)
			require.Equal(t, c.runner, o.Runner)
			require.Contains(t, o.Reason, c.reason)
		})
	}
}

// secret stands for every file of the machine that is none of a build's business.
const secret = "do-not-publish-me"

// Attacks: a tree that reaches out of itself gets an error that names the
// import, and never the bytes; with the kernel's guard and without.
func TestTreeCannotReachOut(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret.txt")
	require.NoError(t, os.WriteFile(outside, []byte(secret), 0o644))
	require.NoError(t, os.WriteFile(outside+".json", []byte(`{"compilerOptions": {"jsxFactory": "`+secret+`"}}`), 0o644))
	for name, c := range map[string]struct {
		files map[string]string
		names string // what the failure must name
	}{
		"JSAbsolute":       {map[string]string{"main.ts": `import s from "/etc/passwd"; console.log(s)`}, "/etc/passwd"},
		"JSAbsoluteText":   {map[string]string{"main.ts": `import s from "/etc/passwd?raw"; console.log(s)`}, "/etc/passwd"},
		"JSAttribute":      {map[string]string{"main.ts": `import s from "` + outside + `" with { type: "text" }; console.log(s)`}, outside},
		"JSRelative":       {map[string]string{"main.ts": `import s from "../../secret.txt"; console.log(s)`}, "../../secret.txt"},
		"JSDeepRelative":   {map[string]string{"main.ts": `import s from "./a/../../../../../../../../etc/passwd"; console.log(s)`}, "etc/passwd"},
		"JSDynamic":        {map[string]string{"main.ts": `import("../../../../../../etc/passwd")`}, "etc/passwd"},
		"JSRequire":        {map[string]string{"main.ts": `console.log(require("../../../../../../etc/passwd"))`}, "etc/passwd"},
		"FileURL":          {map[string]string{"main.ts": `import s from "file:///etc/passwd"; console.log(s)`}, ""},
		"CSSImport":        {map[string]string{"main.ts": `import "./a.css"`, "a.css": `@import "../../../../../../etc/passwd";`}, "etc/passwd"},
		"CSSURL":           {map[string]string{"main.ts": `import "./a.css"`, "a.css": `a { background: url("../../../../../../etc/hostname") }`}, "etc/hostname"},
		"CSSAbsolute":      {map[string]string{"main.ts": `import "./a.css"`, "a.css": `a { background: url("/etc/hostname") }`}, "/etc/hostname"},
		"Alias":            {map[string]string{"main.ts": `import s from "@/passwd"; console.log(s)`, "tsconfig.json": `{"compilerOptions":{"paths":{"@/*":["../../../../../../etc/*"]}}}`}, "@/passwd"},
		"TSConfigExtends":  {map[string]string{"main.ts": `1`, "tsconfig.json": `{"extends": "../../secret.json"}`}, "../../secret.json"},
		"TSConfigAbsolute": {map[string]string{"main.ts": `1`, "tsconfig.json": `{"extends": "` + outside + `.json"}`}, outside},
		"TSConfigRefs":     {map[string]string{"main.ts": `1`, "tsconfig.json": `{"references": [{"path": "../../../../../../etc"}]}`}, "etc"},
		"PackageMain":      {map[string]string{"main.ts": `import "evil"`, "node_modules/evil/package.json": `{"main": "../../../../../../../../etc/passwd"}`}, "evil"},
		"PackageImports":   {map[string]string{"main.ts": `import "#x"`, "package.json": `{"imports": {"#x": "../../../../../../etc/passwd"}}`}, "#x"},
		"JSXImportSource":  {map[string]string{"main.tsx": `<a/>`, "main.ts": `import "./main.tsx"`, "tsconfig.json": `{"compilerOptions":{"jsxImportSource":"../../../../../etc"}}`}, "etc"},
		"HTMLScript":       {map[string]string{"index.html": loads("../../../../../../etc/passwd") + loads("/x.ts"), "x.ts": "1", "main.ts": "1"}, "etc/passwd"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.files["index.html"] == "" {
				c.files["index.html"] = loads("/main.ts")
			}
			b := setup(t)
			o := b.build(c.files)
			if name == "FileURL" { // a browser's business: left as it is, not read
				for _, content := range b.site(o) {
					require.NotContains(t, content, "root:")
				}
				return
			}
			require.Equal(t, previewd.OutcomeFailed, o.Kind, "%+v", o)
			require.Equal(t, previewd.FailureUser, o.Failure.Class)
			require.Contains(t, o.Failure.Message+o.Failure.Excerpt, c.names)
			if strings.Contains(name, "Relative") || name == "JSDynamic" || strings.HasPrefix(name, "TSConfig") {
				require.Equal(t, previewd.FailUnsafePath, o.Failure.Code)
			}
			all := o.Failure.Message + o.Failure.Excerpt + o.Failure.Hint + b.log.String()
			require.NotContains(t, all, secret)
			require.NotContains(t, all, "root:")
		})
	}
}

// Links cannot come in through the API; should one be there all the same, it
// is not followed. The guard alone is tested here: no kernel helps it.
func TestGuardFollowsNoLinkOut(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret.ts")
	require.NoError(t, os.WriteFile(outside, []byte(`export default "`+secret+`"`), 0o644))
	for name, c := range map[string]struct{ link, main string }{
		"File":     {"link.ts", `import s from "./link"; console.log(s)`},
		"Raw":      {"link.ts", `import s from "./link.ts?raw"; console.log(s)`},
		"CSS":      {"link.css", `import "./link.css"`},
		"Folder":   {"dir", `import s from "./dir/secret"; console.log(s)`},
		"TSConfig": {"tsconfig.json", `1`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, out := t.TempDir(), t.TempDir()
			target := outside
			if name == "Folder" {
				target = filepath.Dir(outside)
			}
			require.NoError(t, os.Symlink(target, filepath.Join(src, c.link)))
			require.NoError(t, os.WriteFile(filepath.Join(src, "main.ts"), []byte(c.main), 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(src, "index.html"), []byte(loads("/main.ts")), 0o644))
			var said strings.Builder
			result := unconfined(t, src, out, &said)
			require.NotNil(t, result.Failure, "%+v", result)
			require.Equal(t, previewd.FailUnsafePath, result.Failure.Code, "%+v", result.Failure)
			require.NotContains(t, said.String()+result.Failure.Message+result.Failure.Excerpt, secret)
		})
	}
}

// esbuild follows source maps by itself, past every plugin.
func TestSourceMapsAreNotFollowed(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "secret.txt")
	require.NoError(t, os.WriteFile(outside, []byte(secret), 0o644))
	sourceMap := `{"version":3,"sources":["file://` + outside + `"],"mappings":"AAAA","names":[]}`
	inline := "data:application/json;base64," + base64.StdEncoding.EncodeToString([]byte(sourceMap))
	for name, files := range map[string]map[string]string{
		"Inline":   {"main.ts": "console.log(1)\n//# sourceMappingURL=" + inline},
		"File":     {"main.ts": "console.log(1)\n//# sourceMappingURL=x.map", "x.map": sourceMap},
		"CSS":      {"main.ts": `import "./a.css"`, "a.css": "a{color:red}\n/*# sourceMappingURL=" + inline + " */"},
		"Package":  {"main.ts": `import "p"`, "node_modules/p/index.js": "console.log(1)\n//@ sourceMappingURL=" + inline},
		"InScript": {"main.ts": "1", "index.html": `<script type="module">console.log(import.meta.env.MODE)` + "\n//# sourceMappingURL=" + inline + "\n</script>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if files["index.html"] == "" {
				files["index.html"] = loads("/main.ts")
			}
			src, out := t.TempDir(), t.TempDir()
			for file, content := range files {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(src, file)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(src, file), []byte(content), 0o644))
			}
			var said strings.Builder
			result := unconfined(t, src, out, &said)
			require.Nil(t, result.Failure)
			require.True(t, result.Built)
			require.NoError(t, filepath.WalkDir(out, func(path string, entry os.DirEntry, err error) error {
				if err != nil || entry.IsDir() {
					return err
				}
				content, err := os.ReadFile(path)
				require.NotContains(t, string(content), secret, path)
				return err
			}))
		})
	}
}

func TestGlobImportsSayNothingOfTheMachine(t *testing.T) {
	t.Parallel()
	src, out := t.TempDir(), t.TempDir()
	outside := filepath.Join(filepath.Dir(src), "neighbour-"+secret+".js")
	require.NoError(t, os.WriteFile(outside, []byte("1"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(src, "index.html"), []byte(loads("/main.ts")), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(src, "main.ts"), []byte("import(`../neighbour-${location.hash}.js`)"), 0o644))
	var said strings.Builder
	result := unconfined(t, src, out, &said)
	require.NotNil(t, result.Failure)
	require.NotContains(t, said.String()+result.Failure.Message+result.Failure.Excerpt, secret)
}

// Whatever a child says is kept in bounds before anybody else sees it.
func TestChildsWordsAreBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.build(map[string]string{"index.html": loads("/main.ts"), "main.ts": "import \"./" + strings.Repeat("A", 5<<20) + "\"\nlet a: number = \"\x1b]0;PWNED\a\" @@@"})
	require.Equal(t, previewd.FailureUser, o.Failure.Class)
	text := o.Failure.Message + o.Failure.Hint + o.Failure.File + o.Failure.Excerpt + o.Reason
	require.Less(t, len(text), 5000)
	require.NotContains(t, text, "\x1b")
	many := map[string]string{"index.html": loads("/main.ts"), "main.ts": ""}
	for i := range 40 { // files large enough to be spoken of, loaded in parallel
		name := fmt.Sprintf("f%d.js", i)
		many["main.ts"] += "import \"./" + name + "\"\n"
		many[name] = "/*" + strings.Repeat("x", largeFile) + "*/"
	}
	require.Equal(t, previewd.OutcomeCompleted, b.build(many).Kind)
}

func TestDeepNestingFailsOneBuild(t *testing.T) {
	t.Parallel()
	b := setup(t)
	deep := strings.Repeat("[", 3<<20)
	for name, files := range map[string]map[string]string{
		"JS":       {"main.ts": "x=" + deep},
		"CSS":      {"main.ts": `import "./a.css"`, "a.css": "a{b:" + strings.Repeat("(", 3<<20)},
		"JSON":     {"main.ts": `import "./a.json"`, "a.json": deep},
		"TSConfig": {"main.ts": `1`, "tsconfig.json": deep[:1<<20-1]},
	} {
		files["index.html"] = loads("/main.ts")
		o := b.build(files)
		require.Equal(t, previewd.OutcomeFailed, o.Kind, name)
		require.Equal(t, previewd.FailureUser, o.Failure.Class, name)
		require.Less(t, len(o.Failure.Message+o.Failure.Excerpt), 1000, "no wall of text")
		if name == "JS" {
			require.Equal(t, previewd.FailBundlerCrashed, o.Failure.Code)
		}
		b.mu.Lock()
		b.log.Reset()
		b.mu.Unlock()
	}
	require.Equal(t, previewd.OutcomeCompleted, b.build(map[string]string{"index.html": "alive"}).Kind)
}

func TestFailureSaysWhere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.build(map[string]string{"index.html": loads("/src/main.tsx"), "src/main.tsx": "import './a'\nimport { z } from \"zod\"\nz()\n", "src/a.ts": "export {}"})
	f := o.Failure
	require.Equal(t, previewd.FailDependencyUnavailable, f.Code)
	require.Equal(t, "src/main.tsx", f.File)
	require.Equal(t, 2, f.Line)
	require.Equal(t, previewd.StepBuild, f.Step)
	require.Contains(t, f.Message, `"zod"`)
	require.Equal(t, "2 | import { z } from \"zod\"\n  |                   ^^^^^", f.Excerpt)
	require.NotEmpty(t, f.Hint)

	b2 := setup(t)
	f = b2.build(map[string]string{"index.html": loads("/main.ts"), "main.ts": "const ok = 1\nlet a = ;\n"}).Failure
	require.Equal(t, previewd.FailBundle, f.Code)
	require.Equal(t, "main.ts", f.File)
	require.Equal(t, 2, f.Line)
	require.Equal(t, 9, f.Column)

	b3 := setup(t)
	f = b3.build(map[string]string{"index.html": "<p>\n<script type=module src=/gone.ts></script>"}).Failure
	require.Equal(t, "index.html", f.File)
	require.Equal(t, 2, f.Line)
	require.Contains(t, f.Message, "/gone.ts")
}

// unconfined runs the child's work in this process, without the kernel's guard.
func unconfined(t *testing.T, src, out string, said *strings.Builder) childResult {
	t.Helper()
	src, err := filepath.EvalSymlinks(src)
	require.NoError(t, err)
	c := &child{out: bufio.NewWriter(said)}
	result, err := c.build(childRequest{Source: src, Out: out})
	require.NoError(t, err)
	return result
}

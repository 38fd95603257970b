package runner

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

func TestPackagesSentAlongAreUsed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	site := b.site(b.build(map[string]string{
		"index.html": loads("/main.ts"), "main.ts": `import { a } from "a"; import fs from "fs-user"; console.log(a, fs)`,
		"node_modules/a/package.json":            `{"main": "./lib.js"}`,
		"node_modules/a/lib.js":                  `import b from "b"; export const a = "from a and " + b`,
		"node_modules/a/node_modules/b/index.js": `export default "nested b"`,
		"node_modules/fs-user/package.json":      `{"browser": {"fs": false}}`,
		"node_modules/fs-user/index.js":          `import fs from "fs"; export default [fs]`,
	}))
	_, code := one(t, site, `assets/main-\w+\.js`)
	require.Contains(t, code, "nested b")
}

func TestEmptyImportIsTheAuthorsFault(t *testing.T) {
	t.Parallel()
	o := setup(t).build(map[string]string{"index.html": loads("/main.ts"), "main.ts": `import ""`, "node_modules/a/index.js": ""})
	require.Equal(t, previewd.FailBundle, o.Failure.Code)
	require.NotContains(t, o.Failure.Message, "panic")
}

func TestPageReferencesAsBrowsersReadThem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	site := b.site(b.build(map[string]string{
		"index.html": `<head><style>body { background: url(./img/bg.png) }</style></head><img src="img/my%20pic.png"><script type="module" src="/m.ts"/></script>`,
		"m.ts":       "const n: number = 1; console.log(n)", "img/bg.png": "bg", "img/my pic.png": "pic",
	}))
	background, _ := one(t, site, `assets/bg-\w+\.png`)
	picture, _ := one(t, site, `assets/my pic-\w+\.png`)
	script, _ := one(t, site, `assets/m-\w+\.js`)
	for _, name := range []string{`url("/` + background + `")`, picture, script} {
		require.Contains(t, site["index.html"], name)
	}
}

func TestImportMapsKeepTheirFiles(t *testing.T) {
	t.Parallel()
	b := setup(t)
	site := b.site(b.build(map[string]string{
		"index.html": loads("/m.ts"), "m.ts": "const n: number = 1; console.log(n)",
		"mapped.html": `<script type="importmap">{"imports":{"q":"/vendor/q.js"}}</script><script type="module" src="./main.js"></script>`,
		"main.js":     `import "./util.js"; import "q"`, "util.js": "1", "vendor/q.js": "2",
	}))
	require.Contains(t, site["mapped.html"], `src="./main.js"`)
	for _, name := range []string{"main.js", "util.js", "vendor/q.js"} {
		require.Contains(t, site, name)
	}
}

func TestPublicThatCannotBeCopiedIsTheAuthorsFault(t *testing.T) {
	t.Parallel()
	o := setup(t).build(map[string]string{
		"index.html": loads("/m.ts"), "m.ts": "1", "about.html": "x", "public/about.html/x": "y",
	})
	require.Equal(t, previewd.FailBadConfig, o.Failure.Code)
	require.Contains(t, o.Failure.Message, "public/about.html/x")
}

func TestTSConfigThatMultipliesIsStopped(t *testing.T) {
	t.Parallel()
	files := map[string]string{"index.html": loads("/m.ts"), "m.ts": "1", "tsconfig.json": `{"extends": ["./a.json","./a.json"]}`}
	names := "abcdefghijklmn"
	for i := range len(names) - 1 {
		next := `"./` + string(names[i+1]) + `.json"`
		files[string(names[i])+".json"] = `{"extends": [` + next + "," + next + "," + next + `]}`
	}
	files["n.json"] = "{}"
	o := setup(t).build(files)
	require.Equal(t, previewd.FailBadConfig, o.Failure.Code)
	require.Contains(t, o.Failure.Message, "too deep")
}

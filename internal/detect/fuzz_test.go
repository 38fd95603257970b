package detect_test

import (
	"encoding/json"
	"io/fs"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/detect"
)

// Whatever a tree holds, detection ends with a plan whose every decision has a
// reason, whose paths stay in the tree, whose text is harmless, and has opened
// few files, none by a path that leads out.
func FuzzDetect(f *testing.F) {
	manifests := []string{
		pkg("vite build", "vite"), pkg("next build", "next"), pkg("astro build", "astro"), pkg("vite build", "@sveltejs/kit"), pkg("nuxt build", "nuxt"), pkg("react-router build", "@react-router/dev"),
		pkg("vitepress build ../..", "vitepress"), pkg("eleventy --output=../x", "@11ty/eleventy"), pkg("ng build", "@angular/cli"), pkg("BUILD_PATH=/x react-scripts build", "react-scripts"), pkg("vite build -c ../x.js --outDir \\u001b", "vite"),
		`{"workspaces":["*","../*","a/**"],"scripts":{"build":"npm run build"}}`, `{"packageManager":"pnpm@9\u0000"}`, "", "{", "null", `{"scripts":{"build":["a"]},"dependencies":[]}`, strings.Repeat("[", 2000),
	}
	configs := []string{
		"export default defineConfig({ build: { outDir: 'x' } })", "module.exports = { output: `ex${`a${b}`}port` }", "/* {{{ */ ((([[[", strings.Repeat("{a:", 500), "const r = /[/]\"/; export default { root: '..' }", "'", "`${", "`${`", "\\", "//", "x.output = 'y'", "}}}])", "\xff\xfe",
	}
	overrides := []string{"", `{"output":"dist"}`, `{"build":["npm","run","x"]}`, `{"build":"a b"}`, `{"fallback":false}`, "{"}
	locks := []string{"", "# yarn lockfile v1", "__metadata:\n  version: 8", "lockfileVersion: '9.0'", `{"lockfileVersion":3}`, "__metadata:\n" + strings.Repeat("  a: b\n", 5000)}
	for i, manifest := range manifests {
		f.Add(manifest, configs[i%len(configs)], overrides[i%len(overrides)], overrides[(i+2)%len(overrides)], locks[i%len(locks)], uint8(i))
	}
	names := []string{"vite.config.ts", "next.config.js", "astro.config.mjs", "svelte.config.js", "nuxt.config.ts", "react-router.config.ts", ".vitepress/config.mts", "eleventy.config.js", "angular.json", "app.config.ts"}
	lockNames := []string{"package-lock.json", "pnpm-lock.yaml", "yarn.lock", "bun.lock", "bun.lockb", "pnpm-workspace.yaml", ".nvmrc"}
	f.Fuzz(func(t *testing.T, manifest, config, override, request, lock string, which uint8) {
		tree := files{"package.json": manifest, names[int(which)%len(names)]: config, lockNames[int(which)%len(lockNames)]: lock, "a/package.json": manifest}
		if override != "" {
			tree["previewd.json"] = override
		}
		options := detect.Options{}
		if request != "" {
			options.Request = []byte(request)
		}
		fsys := &counting{MapFS: tree.fs()}
		plan := detect.Detect(fsys, options)
		requireReasons(t, plan)
		require.Less(t, len(fsys.opened), 150)
		for _, name := range fsys.opened {
			require.True(t, fs.ValidPath(name), "%q", name)
		}
		for _, name := range append([]string{plan.Output.Path}, plan.Output.Candidates...) {
			require.True(t, name == "" || fs.ValidPath(name) && path.Clean(name) == name, "%q", name)
		}
		raw, err := json.Marshal(plan)
		require.NoError(t, err)
		require.Less(t, len(raw), 100_000)
		var texts any
		require.NoError(t, json.Unmarshal(raw, &texts))
		requireHarmless(t, texts)
		if plan.Failure == nil && plan.Runner.Name == previewd.RunnerSandbox {
			require.NotEmpty(t, plan.Build.Argv)
			require.NotEmpty(t, plan.Output.Path)
		}
	})
}

func requireHarmless(t *testing.T, value any) {
	switch v := value.(type) {
	case string:
		require.True(t, utf8.ValidString(v))
		require.Equal(t, strings.Map(previewd.Harmless, v), v)
		require.NotContains(t, v, "\n")
	case []any:
		for _, item := range v {
			requireHarmless(t, item)
		}
	case map[string]any:
		for _, item := range v {
			requireHarmless(t, item)
		}
	}
}

package runner

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/npm"
)

// fakeManager stands for a package manager: what it installs are two files, and a
// script is to run.
const fakeManager = `#!/usr/bin/env node
const fs = require('fs'), argv = process.argv.slice(2).join(' ');
if (argv.startsWith('install') && !argv.includes('--ignore-scripts')) fs.writeFileSync('ran', 'scripts');
if (argv.startsWith('install')) {
  fs.mkdirSync('node_modules/.store/tea', {recursive: true});
  fs.writeFileSync('node_modules/.store/tea/package.json', '{"scripts": {"postinstall": "steep"}}');
  fs.writeFileSync('node_modules/.store/tea/index.js', fs.readdirSync('.').sort().join(' '));
  fs.symlinkSync('.store/tea', 'node_modules/tea');
}
if (argv === 'rebuild') fs.appendFileSync('node_modules/tea/made.txt', 'steeped');
if (argv === 'run build') {
  fs.mkdirSync('dist');
  fs.writeFileSync('dist/index.html', ['index.js', 'made.txt'].map(f => fs.readFileSync('node_modules/tea/' + f, 'utf8')).join('|'));
}
`

func pnpmTree(manifest string) map[string]string {
	return map[string]string{"package.json": `{"name":"x","scripts":{"build":"x"}` + manifest + `}`, "pnpm-lock.yaml": "lockfileVersion: '1.0'\n", "other.txt": "x"}
}

// What other package managers install is kept too: installed where nothing else of
// the tree is, without scripts, which run in each build.
func TestPackagesOfOtherManagersAreKept(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	for i, c := range []struct{ manifest, cache string }{
		{`,"packageManager":"pnpm@1.0.0"`, "miss"},
		{`,"packageManager":"pnpm@1.0.0"`, "hit"},
		{`,"version":"2.0.0"`, "miss"}, // its lockfile is of no known version: the newest
		{`,"version":"2.0.0"`, "hit"},
	} {
		tree := pnpmTree(c.manifest)
		tree["other.txt"] = strings.Repeat("x", i)
		o := b.build(tree)
		require.Equal(t, previewd.OutcomeCompleted, o.Kind, b.text())
		require.Equal(t, c.cache, o.Cache)
		require.Equal(t, "package.json pnpm-lock.yaml node_modules|steeped", strings.Replace(b.site(o)["index.html"], "node_modules package.json pnpm-lock.yaml", "package.json pnpm-lock.yaml node_modules", 1))
	}
	require.NotContains(t, b.text(), "$ pnpm install --frozen-lockfile\n")
}

// What could make them different packages in another tree, or run code of this one,
// keeps packages from being kept.
func TestWhatIsNotKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mirror, err := npm.NewMirror(npm.Config{Registry: "http://127.0.0.1:1", Dir: filepath.Join(dir, "npm"), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	modules, err := NewModules(filepath.Join(dir, "modules"), 1<<30, -1)
	require.NoError(t, err)
	with := &Sandbox{Root: dir, Mirror: mirror, Modules: modules}
	key := func(m previewd.PlanPackageManager, files map[string]string) string {
		root := t.TempDir()
		for name, text := range files {
			require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o600))
		}
		opened, err := os.OpenRoot(root)
		require.NoError(t, err)
		defer opened.Close()
		p := &packagesBuild{job: &job{sourceRoot: opened}, with: with, plan: &previewd.Plan{PackageManager: m}}
		p.plan.Install.Argv = strings.Fields(keeperOf(m).strict)
		want := p.keepable(t.Context())
		if want == nil {
			return ""
		}
		return want.key
	}
	pnpm := previewd.PlanPackageManager{Name: "pnpm", Version: "9.1.0", Lockfile: "pnpm-lock.yaml"}
	yarn := previewd.PlanPackageManager{Name: "yarn", Variant: "classic", Version: "1.22.22", Lockfile: "yarn.lock"}
	berry := previewd.PlanPackageManager{Name: "yarn", Variant: "berry", Version: "4.5.0", Lockfile: "yarn.lock"}
	bun := previewd.PlanPackageManager{Name: "bun", Version: "1.2.0", Lockfile: "bun.lock"}
	const linked = "nodeLinker: node-modules # as npm\n"
	seen := map[string]bool{}
	for name, c := range map[string]struct {
		m     previewd.PlanPackageManager
		files map[string]string
		kept  bool
	}{
		"Pnpm":          {pnpm, nil, true},
		"PnpmBuilds":    {pnpm, map[string]string{"pnpm-workspace.yaml": "onlyBuiltDependencies:\n  - esbuild\n"}, true},
		"PnpmNewer":     {previewd.PlanPackageManager{Name: "pnpm", Version: "9.2.0", Lockfile: "pnpm-lock.yaml"}, nil, true},
		"PnpmUnknown":   {previewd.PlanPackageManager{Name: "pnpm", Version: "9", Lockfile: "pnpm-lock.yaml"}, nil, false}, // nobody can be asked which
		"PnpmHook":      {pnpm, map[string]string{".pnpmfile.cjs": ""}, false},
		"PnpmPlugin":    {pnpm, map[string]string{"pnpm-workspace.yaml": "configDependencies:\n  x: 1.0.0\n"}, false},
		"PnpmLink":      {pnpm, map[string]string{"pnpm-lock.yaml": "  version: link:../x\n"}, false},
		"Yarn":          {yarn, nil, true},
		"YarnSettings":  {yarn, map[string]string{".yarnrc": ""}, false},
		"YarnFile":      {yarn, map[string]string{"yarn.lock": "\"x@file:./x\":\n"}, false},
		"Berry":         {berry, map[string]string{".yarnrc.yml": linked + "yarnPath: .yarn/releases/yarn-4.5.0.cjs\n"}, true},
		"BerryPnP":      {berry, nil, false},
		"BerryPlugin":   {berry, map[string]string{".yarnrc.yml": linked + "plugins:\n  - x.cjs\n"}, false},
		"BerryCode":     {berry, map[string]string{".yarnrc.yml": linked, "yarn.lock": "\"x@exec:./x.js\":\n"}, false},
		"Bun":           {bun, nil, true},
		"BunSettings":   {bun, map[string]string{"bunfig.toml": ""}, false},
		"BunRegistry":   {bun, map[string]string{".npmrc": ""}, false},
		"BunLocalFiles": {bun, map[string]string{"package.json": `{"dependencies":{"x":"file:./x"}}`}, false},
	} {
		files := map[string]string{"package.json": "{}", c.m.Lockfile: "x"}
		for file, text := range c.files {
			files[file] = text
		}
		got := key(c.m, files)
		require.Equal(t, c.kept, got != "", name)
		require.False(t, c.kept && seen[got], "%s has a key of its own", name)
		seen[got] = true
	}
}

package detect_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/detect"
)

// files is a small tree.
type files map[string]string

func (f files) fs() fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, content := range f {
		fsys[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	return fsys
}

func planOf(t *testing.T, f files) *previewd.Plan {
	t.Helper()
	plan := detect.Detect(f.fs(), detect.Options{})
	requireReasons(t, plan)
	return plan
}

// requireReasons holds that every decision says why.
func requireReasons(t *testing.T, p *previewd.Plan) {
	t.Helper()
	for name, why := range map[string]previewd.Why{
		"runner": p.Runner.Why, "framework": p.Framework.Why, "packageManager": p.PackageManager.Why, "install": p.Install.Why, "build": p.Build.Why,
		"output": p.Output.Why, "node": p.Node.Why, "fallback": p.Fallback.Why, "workspace": p.Workspace.Why,
	} {
		require.NotEmpty(t, why.Reason, name)
		require.Less(t, len(why.Reason), 1500, name)
	}
	require.NotNil(t, p.Install.Argv)
	require.NotNil(t, p.Build.Argv)
	require.NotNil(t, p.Notes)
}

// pkg returns a package.json with these dependencies, "name" or "name@version",
// and a build script.
func pkg(build string, deps ...string) string {
	var list []string
	for _, dep := range deps {
		at := strings.LastIndexByte(dep, '@')
		if at <= 0 {
			dep, at = dep+"@^1.0.0", len(dep)
		}
		list = append(list, `"`+dep[:at]+`":"`+dep[at+1:]+`"`)
	}
	return `{"scripts":{"build":"` + build + `"},"dependencies":{` + strings.Join(list, ",") + `}}`
}

func TestFrameworks(t *testing.T) {
	t.Parallel()
	const npmLock = `{"lockfileVersion": 3}`
	cases := map[string]struct {
		files     files
		framework string
		output    string
		fallback  string
		code      string
		unsure    bool // of the output
		build     string
	}{
		"Vite":               {files{"package.json": pkg("tsc -b && vite build", "vite@^7.1.0", "react"), "vite.config.ts": `export default defineConfig({ plugins: [react()] })`}, "vite", "dist", "", "", false, ""},
		"ViteRouter":         {files{"package.json": pkg("vite build", "vite", "react-router-dom")}, "vite", "dist", "index.html", "", false, ""},
		"ViteOutDir":         {files{"package.json": pkg("vite build", "vite"), "vite.config.js": "// build: { outDir: 'no' }\nexport default { build: { outDir: 'site' } }"}, "vite", "site", "", "", false, ""},
		"ViteRoot":           {files{"package.json": pkg("vite build", "vite"), "vite.config.js": `export default defineConfig({ root: "src", build: { outDir: "../dist/web", emptyOutDir: true } })`}, "vite", "dist/web", "", "", false, ""},
		"ViteRootArg":        {files{"package.json": pkg("vite build app", "vite")}, "vite", "app/dist", "", "", false, ""},
		"ViteComputed":       {files{"package.json": pkg("vite build", "vite"), "vite.config.js": `export default { build: { outDir: process.env.OUT || 'x' } }`}, "vite", "dist", "", "", true, ""},
		"ViteTwice":          {files{"package.json": pkg("vite build", "vite"), "vite.config.js": `export default defineConfig(({mode}) => { if (mode) return { build: { outDir: 'a' } }; return { build: { outDir: 'b' } } })`}, "vite", "dist", "", "", true, ""},
		"ViteFunction":       {files{"package.json": pkg("vite build", "vite"), "vite.config.js": `export default defineConfig(({mode}) => ({ build: { outDir: 'a' } }))`}, "vite", "a", "", "", false, ""},
		"ViteVariable":       {files{"package.json": pkg("vite build", "vite"), "vite.config.ts": "const config: UserConfig = { build: { outDir: `b` } }\nexport default config"}, "vite", "b", "", "", false, ""},
		"ViteOtherVariable":  {files{"package.json": pkg("vite build", "vite"), "vite.config.ts": "const other = { build: { outDir: 'b' } }\nexport default {}"}, "vite", "b", "", "", true, ""},
		"ViteLeaves":         {files{"package.json": pkg("vite build", "vite"), "vite.config.ts": "export default { build: { outDir: '../../x' } }"}, "vite", "dist", "", "", true, ""},
		"ViteSpread":         {files{"package.json": pkg("vite build", "vite"), "vite.config.ts": "export default { build: { ...base } }"}, "vite", "dist", "", "", true, ""},
		"ViteFlag":           {files{"package.json": pkg("vite build --outDir=web --mode x", "vite")}, "vite", "web", "", "", false, ""},
		"ViteFlagShell":      {files{"package.json": pkg("vite build --outDir $OUT", "vite")}, "vite", "dist", "", "", true, ""},
		"ViteConfigFlag":     {files{"package.json": pkg("vite build -c web.config.js", "vite"), "web.config.js": "export default {build:{outDir:'w'}}"}, "vite", "w", "", "", false, ""},
		"ViteNested":         {files{"package.json": `{"scripts":{"build":"npm run build:web","build:web":"vite build --outDir w"},"devDependencies":{"vite":"5"}}`}, "vite", "w", "", "", false, ""},
		"ViteByWrapper":      {files{"package.json": pkg("node build.mjs", "vite")}, "vite", "dist", "", "", true, ""},
		"NextExport":         {files{"package.json": pkg("next build", "next"), "next.config.mjs": "const nextConfig = {\n output: 'export',\n}\nexport default withMDX(nextConfig)"}, "next", "out", "", "", false, ""},
		"NextDistDir":        {files{"package.json": pkg("next build", "next"), "next.config.js": `module.exports = { output: "export", distDir: "site" }`}, "next", "site", "", "", false, ""},
		"NextOldExport":      {files{"package.json": pkg("next build && next export", "next@12")}, "next", "out", "", "", false, ""},
		"NextServer":         {files{"package.json": pkg("next build", "next"), "next.config.js": `module.exports = { reactStrictMode: true }`}, "next", "", "", previewd.FailSSRAdapter, false, ""},
		"NextNoConfig":       {files{"package.json": pkg("next build", "next")}, "next", "", "", previewd.FailSSRAdapter, false, ""},
		"NextStandalone":     {files{"package.json": pkg("next build", "next"), "next.config.ts": `const c: NextConfig = { output: "standalone" }; export default c`}, "next", "", "", previewd.FailSSRAdapter, false, ""},
		"NextCommented":      {files{"package.json": pkg("next build", "next"), "next.config.js": "module.exports = {\n // output: 'export',\n /* output: 'export' */\n}"}, "next", "", "", previewd.FailSSRAdapter, false, ""},
		"NextPerhaps":        {files{"package.json": pkg("next build", "next"), "next.config.js": `module.exports = { output: process.env.X ? 'export' : undefined }`}, "next", "out", "", "", true, ""},
		"NextAssigned":       {files{"package.json": pkg("next build", "next"), "next.config.js": `const c = {}; c.output = 'export'; module.exports = c`}, "next", "out", "", "", true, ""},
		"NextSaysStatic":     {files{"package.json": pkg("next build", "next"), "previewd.json": `{"output": "site"}`}, "next", "site", "", "", false, ""},
		"Astro":              {files{"package.json": pkg("astro check && astro build", "astro", "vite"), "astro.config.mjs": `export default defineConfig({ integrations: [react()] });`}, "astro", "dist", "", "", false, ""},
		"AstroServer":        {files{"package.json": pkg("astro build", "astro"), "astro.config.mjs": `export default defineConfig({ output: 'server' })`}, "astro", "", "", previewd.FailSSRAdapter, false, ""},
		"AstroAdapter":       {files{"package.json": pkg("astro build", "astro"), "astro.config.mjs": `export default defineConfig({ adapter: node({ mode: 'standalone' }) })`}, "astro", "", "", previewd.FailSSRAdapter, false, ""},
		"AstroOutDir":        {files{"package.json": pkg("astro build", "astro"), "astro.config.ts": `export default defineConfig({ outDir: './build' })`}, "astro", "build", "", "", false, ""},
		"SvelteKitStatic":    {files{"package.json": pkg("vite build", "@sveltejs/kit", "vite"), "svelte.config.js": "import adapter from '@sveltejs/adapter-static';\nexport default { kit: { adapter: adapter({ pages: 'site', fallback: '200.html' }) } }"}, "sveltekit", "site", "200.html", "", false, ""},
		"SvelteKitConst":     {files{"package.json": pkg("vite build", "@sveltejs/kit", "vite"), "svelte.config.js": "import adapter from '@sveltejs/adapter-static';\n/** @type {import('@sveltejs/kit').Config} */\nconst config = { kit: { adapter: adapter() } };\nexport default config;"}, "sveltekit", "build", "", "", false, ""},
		"SvelteKitAuto":      {files{"package.json": pkg("vite build", "@sveltejs/kit"), "svelte.config.js": "import adapter from '@sveltejs/adapter-auto';\nexport default { kit: { adapter: adapter() } }"}, "sveltekit", "", "", previewd.FailSSRAdapter, false, ""},
		"SvelteKitNone":      {files{"package.json": pkg("vite build", "@sveltejs/kit")}, "sveltekit", "", "", previewd.FailSSRAdapter, false, ""},
		"NuxtGenerate":       {files{"package.json": pkg("nuxt generate", "nuxt@^4.0.0")}, "nuxt", ".output/public", "", "", false, "npm run build"},
		"NuxtStarter":        {files{"package.json": `{"scripts":{"build":"nuxt build","generate":"nuxt generate"},"dependencies":{"nuxt":"^4"}}`}, "nuxt", ".output/public", "", "", false, "npm run generate"},
		"NuxtAPI":            {files{"package.json": `{"scripts":{"build":"nuxt build","generate":"nuxt generate"},"dependencies":{"nuxt":"^4"}}`, "server/api/x.ts": ""}, "nuxt", "", "", previewd.FailSSRAdapter, false, ""},
		"NuxtBuild":          {files{"package.json": pkg("nuxt build", "nuxt")}, "nuxt", "", "", previewd.FailSSRAdapter, false, ""},
		"NuxtPreset":         {files{"package.json": pkg("nuxt build", "nuxt"), "nuxt.config.ts": `export default defineNuxtConfig({ ssr: false, nitro: { preset: "static" } })`}, "nuxt", ".output/public", "200.html", "", false, ""},
		"Nuxt2":              {files{"package.json": pkg("nuxt generate", "nuxt@^2.15.0")}, "nuxt", "dist", "", "", false, ""},
		"ReactRouterSPA":     {files{"package.json": pkg("react-router build", "@react-router/dev", "vite", "react-router"), "react-router.config.ts": `export default { ssr: false } satisfies Config;`}, "react-router", "build/client", "index.html", "", false, ""},
		"ReactRouterDir":     {files{"package.json": pkg("react-router build", "@react-router/dev"), "react-router.config.ts": `export default { ssr: false, buildDirectory: "o" } satisfies Config;`}, "react-router", "o/client", "index.html", "", false, ""},
		"ReactRouterSSR":     {files{"package.json": pkg("react-router build", "@react-router/dev", "vite"), "react-router.config.ts": `export default { ssr: true } satisfies Config;`}, "react-router", "", "", previewd.FailSSRAdapter, false, ""},
		"ReactRouterDefault": {files{"package.json": pkg("react-router build", "@react-router/dev")}, "react-router", "", "", previewd.FailSSRAdapter, false, ""},
		"RemixSPA":           {files{"package.json": pkg("remix vite:build", "@remix-run/dev", "vite"), "vite.config.ts": `export default defineConfig({ plugins: [remix({ ssr: false })] })`}, "remix", "build/client", "index.html", "", false, ""},
		"Remix":              {files{"package.json": pkg("remix vite:build", "@remix-run/dev", "vite"), "vite.config.ts": `export default defineConfig({ plugins: [remix()] })`}, "remix", "", "", previewd.FailSSRAdapter, false, ""},
		"SolidStartStatic":   {files{"package.json": pkg("vinxi build", "@solidjs/start", "solid-js"), "app.config.ts": `export default defineConfig({ server: { preset: "static" } })`}, "solidstart", ".output/public", "", "", false, ""},
		"SolidStart":         {files{"package.json": pkg("vinxi build", "@solidjs/start"), "app.config.ts": `export default defineConfig({})`}, "solidstart", "", "", previewd.FailSSRAdapter, false, ""},
		"TanStackSPA":        {files{"package.json": pkg("vite build", "@tanstack/react-start", "vite"), "vite.config.ts": `export default defineConfig({ plugins: [tanstackStart({ spa: { enabled: true } })] })`}, "tanstack-start", "dist/client", "_shell.html", "", false, ""},
		"TanStack":           {files{"package.json": pkg("vite build", "@tanstack/react-start", "vite"), "vite.config.ts": `export default defineConfig({ plugins: [tanstackStart()] })`}, "tanstack-start", "", "", previewd.FailSSRAdapter, false, ""},
		"Gatsby":             {files{"package.json": pkg("gatsby build", "gatsby")}, "gatsby", "public", "", "", false, ""},
		"Docusaurus":         {files{"package.json": pkg("docusaurus build --out-dir=o", "@docusaurus/core")}, "docusaurus", "o", "", "", false, ""},
		"VitePressDocs":      {files{"package.json": pkg("vitepress build docs", "vitepress"), "docs/.vitepress/config.mts": `export default defineConfig({ outDir: '../site' })`}, "vitepress", "site", "", "", false, ""},
		"VitePressRoot":      {files{"package.json": pkg("vitepress build", "vitepress")}, "vitepress", ".vitepress/dist", "", "", false, ""},
		"Eleventy":           {files{"package.json": pkg("npx @11ty/eleventy", "@11ty/eleventy@^3.0.0")}, "eleventy", "_site", "", "", false, ""},
		"EleventyCall":       {files{"package.json": pkg("eleventy", "@11ty/eleventy"), "eleventy.config.js": `export default function (c) { c.setOutputDirectory("dist"); }`}, "eleventy", "dist", "", "", false, ""},
		"EleventyExport":     {files{"package.json": pkg("eleventy", "@11ty/eleventy"), "eleventy.config.js": `export default function () {}; export const config = { dir: { input: "src", output: "o" } }`}, "eleventy", "o", "", "", false, ""},
		"EleventyReturn":     {files{"package.json": pkg("eleventy", "@11ty/eleventy"), ".eleventy.js": `module.exports = function (c) { return { dir: { output: "o" } } }`}, "eleventy", "o", "", "", true, ""},
		"Angular":            {files{"package.json": pkg("ng build", "@angular/cli", "@angular/router"), "angular.json": `{/* c */"projects":{"web":{"projectType":"application","architect":{"build":{"builder":"@angular/build:application","options":{}}}}}}`}, "angular", "dist/web/browser", "index.html", "", false, ""},
		"AngularOld":         {files{"package.json": pkg("ng build", "@angular/cli"), "angular.json": `{"projects":{"web":{"architect":{"build":{"builder":"@angular-devkit/build-angular:browser","options":{"outputPath":"dist/x"}}}}}}`}, "angular", "dist/x", "", "", false, ""},
		"AngularSSR":         {files{"package.json": pkg("ng build", "@angular/cli"), "angular.json": `{"projects":{"web":{"architect":{"build":{"builder":"@angular/build:application","options":{"ssr":{"entry":"s.ts"},"outputMode":"server"}}}}}}`}, "angular", "", "", previewd.FailSSRAdapter, false, ""},
		"VueCLI":             {files{"package.json": pkg("vue-cli-service build", "@vue/cli-service"), "vue.config.js": `module.exports = defineConfig({ outputDir: 'w' })`}, "vue-cli", "w", "", "", false, ""},
		"CreateReactApp":     {files{"package.json": pkg("react-scripts build", "react-scripts")}, "create-react-app", "build", "", "", false, ""},
		"CreateReactAppPath": {files{"package.json": pkg("BUILD_PATH=o react-scripts build", "react-scripts")}, "create-react-app", "o", "", "", false, ""},
		"Parcel":             {files{"package.json": pkg("parcel build src/index.html --dist-dir o", "parcel")}, "parcel", "o", "", "", false, ""},
		"TwoByScript":        {files{"package.json": pkg("eleventy && parcel build x", "parcel", "@11ty/eleventy", "gatsby")}, "eleventy", "_site", "", "", false, ""},
		"Vike":               {files{"package.json": pkg("vike build", "vike", "vite")}, "", "", "", previewd.FailSSRAdapter, false, ""},
		"Qwik":               {files{"package.json": pkg("qwik build", "@builder.io/qwik-city", "vite")}, "", "", "", previewd.FailSSRAdapter, false, ""},
		"Unknown":            {files{"package.json": pkg("node build.js")}, "", "dist", "", "", true, "npm run build"},
		"NoScript":           {files{"package.json": `{"devDependencies":{"astro":"5"}}`}, "astro", "dist", "", "", false, "npm exec --no -- astro build"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.files["package-lock.json"] = npmLock
			plan := planOf(t, c.files)
			require.Equal(t, c.framework, plan.Framework.Name)
			if c.code != "" {
				require.NotNil(t, plan.Failure)
				require.Equal(t, c.code, plan.Failure.Code)
				require.NotEmpty(t, plan.Failure.Hint)
				return
			}
			require.Nil(t, plan.Failure)
			require.Equal(t, c.output, plan.Output.Path)
			require.Equal(t, c.unsure, plan.Output.Unsure, plan.Output.Reason)
			require.Equal(t, c.unsure, len(plan.Output.Candidates) > 0)
			require.Equal(t, c.fallback, plan.Fallback.File)
			require.Equal(t, []string{"npm", "ci"}, plan.Install.Argv)
			if c.build != "" {
				require.Equal(t, strings.Fields(c.build), plan.Build.Argv)
			}
		})
	}
}

func TestPackageManagers(t *testing.T) {
	t.Parallel()
	const vite = `{"scripts":{"build":"vite build"},"devDependencies":{"vite":"7"}`
	cases := map[string]struct {
		files   files
		manager string // name, variant, version
		lock    string // file, version
		install string
	}{
		"Nothing":       {files{}, "npm", "", "npm install"},
		"NPM":           {files{"package-lock.json": `{"name":"x","lockfileVersion": 3,`}, "npm", "package-lock.json 3", "npm ci"},
		"Shrinkwrap":    {files{"npm-shrinkwrap.json": `{"lockfileVersion":2}`, "package-lock.json": `{"lockfileVersion":3}`}, "npm", "npm-shrinkwrap.json 2", "npm ci"},
		"PNPM":          {files{"pnpm-lock.yaml": "lockfileVersion: '9.0'\n"}, "pnpm 9", "pnpm-lock.yaml 9.0", "pnpm install --frozen-lockfile"},
		"PNPM7":         {files{"pnpm-lock.yaml": "lockfileVersion: 5.4\n"}, "pnpm 7", "pnpm-lock.yaml 5.4", "pnpm install --frozen-lockfile"},
		"Yarn1":         {files{"yarn.lock": "# THIS IS AN AUTOGENERATED FILE.\n# yarn lockfile v1\n"}, "yarn classic", "yarn.lock 1", "yarn install --frozen-lockfile"},
		"Berry":         {files{"yarn.lock": "# This file\n\n__metadata:\n  version: 8\n  cacheKey: 10\n"}, "yarn berry 4", "yarn.lock 8", "yarn install --immutable"},
		"BerryByRC":     {files{"yarn.lock": "", ".yarnrc.yml": "nodeLinker: node-modules\n"}, "yarn berry", "yarn.lock", "yarn install --immutable"},
		"Bun":           {files{"bun.lock": "{\n  \"lockfileVersion\": 1,\n"}, "bun", "bun.lock 1", "bun install --frozen-lockfile"},
		"BunBinary":     {files{"bun.lockb": "#!/usr/bin/env bun\nbun-lockfile-format-v0\n"}, "bun", "bun.lockb", "bun install --frozen-lockfile"},
		"Several":       {files{"bun.lockb": "x", "package-lock.json": `{"lockfileVersion":3}`}, "bun", "bun.lockb", "bun install --frozen-lockfile"},
		"SeveralPNPM":   {files{"pnpm-lock.yaml": "lockfileVersion: '6.0'", "yarn.lock": "", "package-lock.json": "{}"}, "pnpm 8", "pnpm-lock.yaml 6.0", "pnpm install --frozen-lockfile"},
		"Declared":      {files{"package.json": vite + `,"packageManager":"yarn@4.9.1+sha512.abc"}`, "yarn.lock": "", "package-lock.json": "{}"}, "yarn berry 4.9.1", "yarn.lock", "yarn install --immutable"},
		"DeclaredOther": {files{"package.json": vite + `,"packageManager":"pnpm@10.2.0"}`, "package-lock.json": "{}"}, "pnpm 10.2.0", "", "pnpm install --no-frozen-lockfile"},
		"DevEngines":    {files{"package.json": vite + `,"devEngines":{"packageManager":{"name":"bun"}}}`}, "bun", "", "bun install"},
		"Volta":         {files{"package.json": vite + `,"volta":{"yarn":"1.22.19"}}`}, "yarn classic 1.22.19", "", "yarn install"},
		"Override":      {files{"previewd.json": `{"packageManager":"pnpm@9"}`, "package-lock.json": "{}"}, "pnpm 9", "", "pnpm install --no-frozen-lockfile"},
		"OverrideArgv":  {files{"previewd.json": `{"install":["npm","install","--legacy-peer-deps"]}`}, "npm", "", "npm install --legacy-peer-deps"},
		"OverrideNone":  {files{"previewd.json": `{"install":[]}`}, "npm", "", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.files["package.json"] == "" {
				c.files["package.json"] = vite + "}"
			}
			plan := planOf(t, c.files)
			require.Nil(t, plan.Failure)
			p := plan.PackageManager
			require.Equal(t, c.manager, strings.Join(strings.Fields(p.Name+" "+p.Variant+" "+p.Version), " "))
			require.Equal(t, c.lock, strings.TrimSpace(p.Lockfile+" "+p.LockfileVersion))
			require.Equal(t, strings.Fields(c.install), append([]string{}, plan.Install.Argv...))
			if strings.HasPrefix(name, "Several") {
				require.Contains(t, p.Reason, "win in this order")
				require.Contains(t, strings.Join(plan.Notes, "\n"), "package-lock.json is not read")
			}
		})
	}
	plan := planOf(t, files{"package.json": vite + `,"packageManager":"deno@2"}`})
	require.Equal(t, previewd.FailBadConfig, plan.Failure.Code)
}

func TestNodeVersions(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		files files
		want  string
		from  string
	}{
		"Nothing":     {files{}, "", ""},
		"Nvmrc":       {files{".nvmrc": "# ours\nv22.11.0 # lts\n"}, "v22.11.0", ".nvmrc"},
		"NvmrcLine":   {files{".nvmrc": "lts/jod\n"}, "lts/jod", ".nvmrc"},
		"NodeVersion": {files{".node-version": "20\n"}, "20", ".node-version"},
		"Volta":       {files{"package.json": `{"scripts":{"build":"x"},"volta":{"node":"20.9.0"},"engines":{"node":">=18"}}`}, "20.9.0", "package.json"},
		"Engines":     {files{"package.json": `{"scripts":{"build":"x"},"engines":{"node":"^20.19.0 || >=22.12.0"}}`}, "^20.19.0 || >=22.12.0", "package.json"},
		"DevEngines":  {files{"package.json": `{"scripts":{"build":"x"},"devEngines":{"runtime":{"name":"node","version":"24"}}}`}, "24", "package.json"},
		"Both":        {files{".nvmrc": "22", "package.json": `{"scripts":{"build":"x"},"engines":{"node":">=18"}}`}, "22", ".nvmrc"},
		"Nonsense":    {files{".nvmrc": "$(id)", "package.json": `{"scripts":{"build":"x"},"engines":{"node":">=18"}}`}, ">=18", "package.json"},
		"Override":    {files{"previewd.json": `{"node":"24"}`, ".nvmrc": "18"}, "24", "previewd.json"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.files["package.json"] == "" {
				c.files["package.json"] = `{"scripts":{"build":"x"}}`
			}
			plan := planOf(t, c.files)
			require.Equal(t, c.want, plan.Node.Range)
			require.Equal(t, c.from, plan.Node.From)
		})
	}
}

func TestWorkspaces(t *testing.T) {
	t.Parallel()
	const site = `{"scripts":{"build":"vite build"},"devDependencies":{"vite":"7"}}`
	cases := map[string]struct {
		files files
		code  string
		apps  []string
	}{
		"One":          {files{"package.json": site}, "", nil},
		"Settings":     {files{"package.json": site, "pnpm-workspace.yaml": "onlyBuiltDependencies:\n  - esbuild\n"}, "", nil},
		"NPM":          {files{"package.json": `{"workspaces":["apps/*","packages/*"],"scripts":{"build":"turbo build"}}`, "apps/web/package.json": site, "apps/docs/package.json": `{}`, "packages/ui/package.json": `{"scripts":{"build":"tsc"}}`}, previewd.FailWorkspace, []string{"apps/web"}},
		"PNPM":         {files{"package.json": `{"scripts":{"build":"pnpm -r build"}}`, "pnpm-workspace.yaml": "# c\npackages:\n  - 'sites/*' # x\n\n  - lib\n", "sites/a/package.json": site, "sites/b/package.json": site}, previewd.FailWorkspace, []string{"sites/a", "sites/b"}},
		"RootIsSite":   {files{"package.json": `{"workspaces":["lib"],"scripts":{"build":"vite build"},"devDependencies":{"vite":"7"}}`}, "", nil},
		"Chosen":       {files{"package.json": `{"workspaces":["apps/*"],"scripts":{"build":"turbo build"}}`, "apps/web/package.json": site, "previewd.json": `{"build":["npm","run","build","-w","web"],"output":"apps/web/dist"}`}, "", []string{"apps/web"}},
		"Member":       {files{"package.json": `{"scripts":{"build":"vite build"},"dependencies":{"vite":"7","ui":"workspace:*"}}`}, previewd.FailWorkspace, nil},
		"Catalog":      {files{"package.json": `{"scripts":{"build":"vite build"},"dependencies":{"vite":"catalog:"}}`}, previewd.FailWorkspace, nil},
		"OwnCatalog":   {files{"package.json": `{"scripts":{"build":"vite build"},"dependencies":{"vite":"catalog:"}}`, "pnpm-workspace.yaml": "catalog:\n  vite: 7\n"}, "", nil},
		"Neighbour":    {files{"package.json": `{"scripts":{"build":"vite build"},"dependencies":{"vite":"7","ui":"file:../ui"}}`}, previewd.FailWorkspace, nil},
		"OwnFolder":    {files{"package.json": `{"scripts":{"build":"vite build"},"dependencies":{"vite":"7","ui":"file:./ui"}}`}, "", nil},
		"LeavesByGlob": {files{"package.json": `{"workspaces":["../*","/etc/*"],"scripts":{"build":"x"}}`}, previewd.FailWorkspace, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan := planOf(t, c.files)
			require.Equal(t, c.apps, plan.Workspace.Apps)
			if c.code == "" {
				require.Nil(t, plan.Failure)
				return
			}
			require.NotNil(t, plan.Failure)
			require.Equal(t, c.code, plan.Failure.Code)
		})
	}
}

package detect_test

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
)

// A tree whose site is told by its files, and what makes each such tree one whose
// code has to be run.
func TestPlainViteIsBundled(t *testing.T) {
	t.Parallel()
	const plain = `import { defineConfig } from "vite"
import react from '@vitejs/plugin-react'

// https://vite.dev/config/
export default defineConfig({
  plugins: [react()],
  server: { port: 3000, open: true, proxy: ["a", { b: "c" }] },
});
`
	tree := files{
		"index.html": "<div id=root>", "package-lock.json": `{"lockfileVersion":3}`, "vite.config.ts": plain,
		"package.json": `{"scripts":{"build":"tsc -b && vite build","dev":"vite"},"dependencies":{"react":"19"},"devDependencies":{"vite":"8"}}`,
	}
	plan := planOf(t, tree)
	require.True(t, plan.Bundle.OK, plan.Bundle.Reason)
	require.Equal(t, "react", plan.Bundle.JSX)
	require.Equal(t, "sandbox", plan.Runner.Name, "what runs when the bundler steps aside")

	with := func(name, text string) files {
		changed := maps.Clone(tree)
		changed[name] = text
		return changed
	}
	plan = planOf(t, with("vite.config.ts", `export default {}`))
	require.True(t, plan.Bundle.OK, plan.Bundle.Reason)
	require.Empty(t, plan.Bundle.JSX)
	plan = planOf(t, with("vite.config.ts", `import p from "@preact/preset-vite"; export default { plugins: [p()] }`))
	require.True(t, plan.Bundle.OK, plan.Bundle.Reason)
	require.Equal(t, "preact", plan.Bundle.JSX)

	pkg := func(text string) files { return with("package.json", text) }
	config := func(text string) files { return with("vite.config.ts", text) }
	for name, no := range map[string]struct {
		tree files
		why  string
	}{
		"Named":        {with("previewd.json", `{"runner":"sandbox"}`), "previewd.json says so"},
		"Command":      {with("previewd.json", `{"build":["vite","build"]}`), "previewd.json names the command"},
		"Install":      {with("previewd.json", `{"install":["npm","install"]}`), "names how packages are installed"},
		"Framework":    {pkg(`{"scripts":{"build":"astro build"},"devDependencies":{"astro":"5"}}`), "Only Vite's conventions"},
		"Script":       {pkg(`{"scripts":{"build":"vite build && node post.js"},"devDependencies":{"vite":"8"}}`), "node post.js"},
		"Flag":         {pkg(`{"scripts":{"build":"vite build --mode x"},"devDependencies":{"vite":"8"}}`), "--mode x"},
		"Environment":  {pkg(`{"scripts":{"build":"A=1 vite build"},"devDependencies":{"vite":"8"}}`), "A=1"},
		"Before":       {pkg(`{"scripts":{"build":"vite build","prebuild":"x"},"devDependencies":{"vite":"8"}}`), "the script prebuild"},
		"Prepare":      {pkg(`{"scripts":{"build":"vite build","prepare":"x"},"devDependencies":{"vite":"8"}}`), "the script prepare"},
		"Tailwind":     {pkg(`{"scripts":{"build":"vite build"},"devDependencies":{"vite":"8","tailwindcss":"4"}}`), "tailwindcss"},
		"PostCSS":      {with("postcss.config.cjs", ``), "postcss.config.cjs"},
		"PostCSSInPkg": {pkg(`{"scripts":{"build":"vite build"},"devDependencies":{"vite":"8"},"postcss":{}}`), "configures postcss"},
		"Babel":        {with(".babelrc.json", ``), ".babelrc.json"},
		"OtherPlugin":  {config(`import vue from "@vitejs/plugin-vue"; export default { plugins: [vue()] }`), "@vitejs/plugin-vue"},
		"TwoPlugins":   {config(`import r from "@vitejs/plugin-react"; import p from "@preact/preset-vite"; export default { plugins: [r(), p()] }`), "has to be run"},
		"PluginOption": {config(`import react from "@vitejs/plugin-react"; export default { plugins: [react({ babel: {} })] }`), "says more"},
		"OtherSetting": {config(`export default { base: "/x/" }`), "sets base"},
		"Code":         {config(`console.log(1); export default {}`), "says more"},
		"After":        {config(`export default {}; process.exit()`), "says more"},
		"ServerCode":   {config(`export default { server: { port: f() } }`), "says more"},
		"OwnDefine":    {config(`import { defineConfig } from "./mine"; export default defineConfig({})`), "says more"},
		"Unended":      {config(`export default {`), "says more"},
		"Spread":       {config(`export default { ...x }`), "says more"},
	} {
		plan := planOf(t, no.tree)
		require.False(t, plan.Bundle.OK, name)
		require.Contains(t, plan.Bundle.Reason, no.why, name)
	}
	for _, missing := range []string{"index.html", "package-lock.json"} {
		changed := maps.Clone(tree)
		delete(changed, missing)
		require.False(t, planOf(t, changed).Bundle.OK, missing)
	}
}

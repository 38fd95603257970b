package detect

// noFramework is what an override names to have none looked for.
const noFramework = "none"

// framework is a row of the table: how a tree of its kind is made into static
// files. Tests hold the table against what others publish.
type framework struct {
	name     string
	title    string
	packages []string // any of these in package.json gives it away
	command  []string // builds static files
	tools    []string // that build scripts run instead of the command's first word
	output   string   // where they are then
	configs  []string // its configuration, without extension
	outKey   string   // the setting that names the output folder
	outFlags []string // of the command
	baseKey  string   // the setting that names the path that the site expects to be served at
	router   bool     // it is a single-page app if a router is among the packages
	// rule looks closer: it may find another command or output, or refuse a tree
	// that needs a server.
	rule func(*detector)
}

// The order decides between frameworks that a tree has all of: what is built on
// Vite comes before Vite.
var frameworks = []framework{
	{
		name: "next", title: "Next.js", packages: []string{"next"}, command: []string{"next", "build"}, output: "out",
		configs: []string{"next.config"}, outKey: "distDir", baseKey: "basePath", rule: (*detector).next,
	},
	{
		name: "astro", title: "Astro", packages: []string{"astro"}, command: []string{"astro", "build"}, output: "dist",
		configs: []string{"astro.config"}, outKey: "outDir", outFlags: []string{"--outDir"}, baseKey: "base", rule: (*detector).astro,
	},
	{
		name: "sveltekit", title: "SvelteKit", packages: []string{"@sveltejs/kit"}, command: []string{"vite", "build"}, output: "build",
		configs: []string{"svelte.config"}, outKey: "kit.adapter.pages", baseKey: "kit.paths.base", rule: (*detector).svelteKit,
	},
	{
		name: "nuxt", title: "Nuxt", packages: []string{"nuxt", "nuxt3", "nuxt-edge", "nuxt-nightly"}, tools: []string{"nuxi"}, command: []string{"nuxt", "generate"}, output: ".output/public",
		configs: []string{"nuxt.config"}, outKey: "nitro.output.publicDir", baseKey: "app.baseURL", rule: (*detector).nuxt,
	},
	{
		name: "react-router", title: "React Router", packages: []string{"@react-router/dev"}, command: []string{"react-router", "build"}, output: "build/client",
		configs: []string{"react-router.config"}, baseKey: "basename", rule: (*detector).reactRouter,
	},
	{
		name: "remix", title: "Remix", packages: []string{"@remix-run/dev"}, tools: []string{"vite"}, command: []string{"remix", "vite:build"}, output: "build/client",
		configs: []string{"vite.config", "remix.config"}, baseKey: "base", rule: (*detector).remix,
	},
	{
		name: "solidstart", title: "SolidStart", packages: []string{"@solidjs/start", "solid-start"}, tools: []string{"vite", "solid-start"}, command: []string{"vinxi", "build"}, output: ".output/public",
		configs: []string{"app.config"}, rule: (*detector).solidStart,
	},
	{
		name: "tanstack-start", title: "TanStack Start", packages: []string{"@tanstack/react-start", "@tanstack/solid-start", "@tanstack/start"}, command: []string{"vite", "build"}, output: "dist/client",
		configs: []string{"vite.config"}, baseKey: "base", rule: (*detector).tanStackStart,
	},
	{
		name: "gatsby", title: "Gatsby", packages: []string{"gatsby"}, command: []string{"gatsby", "build"}, output: "public",
		configs: []string{"gatsby-config"},
	},
	{
		name: "docusaurus", title: "Docusaurus", packages: []string{"@docusaurus/core"}, command: []string{"docusaurus", "build"}, output: "build",
		configs: []string{"docusaurus.config"}, outFlags: []string{"--out-dir"}, baseKey: "baseUrl",
	},
	{
		name: "vitepress", title: "VitePress", packages: []string{"vitepress"}, command: []string{"vitepress", "build", "docs"}, output: "docs/.vitepress/dist",
		configs: []string{"docs/.vitepress/config", ".vitepress/config"}, outFlags: []string{"--outDir"}, baseKey: "base", rule: (*detector).vitePress,
	},
	{
		name: "eleventy", title: "Eleventy", packages: []string{"@11ty/eleventy"}, command: []string{"eleventy"}, output: "_site",
		configs: []string{"eleventy.config", ".eleventy"}, outKey: "dir.output", outFlags: []string{"--output"}, rule: (*detector).eleventy,
	},
	{
		name: "angular", title: "Angular", packages: []string{"@angular/cli"}, command: []string{"ng", "build"}, output: "dist",
		outFlags: []string{"--output-path"}, router: true, rule: (*detector).angular,
	},
	{
		name: "vue-cli", title: "Vue CLI", packages: []string{"@vue/cli-service"}, command: []string{"vue-cli-service", "build"}, output: "dist",
		configs: []string{"vue.config"}, outKey: "outputDir", outFlags: []string{"--dest"}, baseKey: "publicPath", router: true,
	},
	{
		name: "create-react-app", title: "Create React App", packages: []string{"react-scripts"}, tools: []string{"craco", "react-app-rewired"}, command: []string{"react-scripts", "build"}, output: "build",
		router: true, rule: (*detector).createReactApp,
	},
	{
		name: "parcel", title: "Parcel", packages: []string{"parcel", "parcel-bundler"}, command: []string{"parcel", "build"}, output: "dist",
		outFlags: []string{"--dist-dir", "--out-dir", "-d"}, router: true, rule: (*detector).parcel,
	},
	{
		name: "vite", title: "Vite", packages: []string{"vite"}, tools: []string{"vp"}, command: []string{"vite", "build"}, output: "dist",
		configs: []string{"vite.config"}, outKey: "build.outDir", outFlags: []string{"--outDir"}, baseKey: "base", router: true, rule: (*detector).vite,
	},
}

// servers are packages of frameworks that render on a server and have no row.
var servers = []string{
	"@builder.io/qwik-city", "@qwik.dev/router", "@shopify/hydrogen", "@analogjs/platform", "@redwoodjs/core", "blitz",
	"vike", "vite-plugin-ssr", "waku", "rwsdk", "@nestjs/core",
}

// routers are packages whose routes live in the page.
var routers = []string{
	"react-router-dom", "react-router", "@tanstack/react-router", "@tanstack/solid-router", "wouter", "wouter-preact", "preact-router", "preact-iso",
	"vue-router", "@solidjs/router", "svelte-routing", "svelte-spa-router", "@angular/router", "@reach/router", "@vaadin/router",
}

func frameworkNamed(name string) *framework {
	for i := range frameworks {
		if frameworks[i].name == name {
			return &frameworks[i]
		}
	}
	return nil
}

func frameworkNames() []string {
	var names []string
	for _, f := range frameworks {
		names = append(names, f.name)
	}
	return names
}

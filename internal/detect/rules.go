package detect

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// The rules of frameworks that can render on a server. A refusal needs a plain
// word for it; where the text is not clear, the build is tried, and says
// no_output_dir if there is nothing static in the end.

// unsure takes a tree although its configuration does not say plainly that it
// makes static files.
func (d *detector) unsure(setting string) {
	d.note("%s does not say plainly what %s is, and is not run to find out. If the build makes no static files, it fails.", d.file, setting)
	d.plan.Output.Unsure = true
}

// configName returns the framework's configuration, or the name that it would have.
func (d *detector) configName() string {
	if d.file != "" {
		return d.file
	}
	return d.framework.configs[0] + ".js"
}

func (d *detector) next() {
	output := d.text.get("output")
	switch {
	case d.runs("next", "export"):
		d.plan.Output.Reason, d.plan.Output.Path, d.plan.Output.From = "The build runs next export, which writes there.", "out", manifestFile
	case output.clear && output.value == "export":
	case output.clear || output.value != "" && output.value != "export":
		d.server(d.configName(), fmt.Sprintf(`Next.js renders on a server: %s does not set output to "export".`, d.configName()),
			fmt.Sprintf(`Set output: "export" in %s.`, d.configName()))
	default:
		d.unsure("output")
	}
}

func (d *detector) astro() {
	output := d.text.get("output")
	if d.text.get("adapter").found && !slices.ContainsFunc(d.text.imports, func(s string) bool { return strings.HasSuffix(s, "/static") }) {
		d.server(d.file, d.file+" sets an adapter, so Astro renders on a server.", "Remove adapter and output from the configuration.")
		return
	}
	switch {
	case output.value == "server" || output.value == "hybrid":
		d.server(d.file, fmt.Sprintf("%s sets output to %q, so Astro renders on a server.", d.file, output.value), `Remove output, or set it to "static".`)
	case output.found && !output.clear:
		d.unsure("output")
	}
}

func (d *detector) svelteKit() {
	adapter := ""
	_, vite := d.findSource("vite.config")
	for _, text := range []*sourceText{d.text, vite} {
		if text.importing("@sveltejs/adapter-static") != "" {
			adapter = "@sveltejs/adapter-static"
			break
		}
		for _, name := range text.imports {
			if strings.Contains(name, "adapter") {
				adapter = name
			}
		}
	}
	if adapter != "@sveltejs/adapter-static" {
		uses := "names no adapter"
		if adapter != "" {
			uses = "uses " + clean(adapter, 80)
		}
		d.server(d.configName(), fmt.Sprintf("SvelteKit renders on a server: %s %s.", d.configName(), uses),
			"Install @sveltejs/adapter-static, use it in "+d.configName()+", and export const prerender = true from src/routes/+layout.js.")
		return
	}
	if page := d.text.get("kit.adapter.fallback"); page.value != "" && page.clear {
		d.plan.Fallback.File, d.plan.Fallback.From = page.value, d.file
		d.plan.Fallback.Reason = d.file + " names it as the adapter's fallback."
	}
}

func (d *detector) nuxt() {
	p := d.plan
	if v := major(p.Framework.Version); v == 2 || p.Framework.Package == "nuxt-edge" {
		p.Output.Path, p.Output.Reason = "dist", "Nuxt 2 writes there."
	}
	ssr, preset, static := d.text.get("ssr"), d.text.get("nitro.preset"), d.text.get("nitro.static")
	if ssr.value == "false" && ssr.clear {
		p.Fallback.File, p.Fallback.From, p.Fallback.Reason = "200.html", d.file, d.file+" turns ssr off, so one page answers all paths."
	}
	prerender := slices.ContainsFunc(d.commands, func(c command) bool { return slices.Contains(c.words, "--prerender") })
	switch {
	case d.runs("nuxt", "generate"), d.runs("nuxi", "generate"), prerender:
	case preset.clear && slices.Contains([]string{"static", "github-pages", "github_pages"}, preset.value), static.clear && static.value == "true":
	case d.config.Build != nil || len(d.commands) == 0 && d.pkg.scripts["generate"] == "":
		if d.config.Build != nil {
			d.server(d.configName(), "The build command does not run nuxt generate, so Nuxt renders on a server.", "Run nuxt generate.")
		}
	case d.tree.isDir("server/api") || d.tree.isDir("server/routes"):
		d.server("server", "The folder server holds code that Nuxt runs on a server.", "Move what it does to the browser and remove it.")
	case d.pkg.scripts["generate"] != "":
		d.script, p.Build.Reason = "generate", "The script build would make a server."
		d.commands = d.pkg.commands(d.script)
	case ssr.found && (ssr.value == "false" || !ssr.clear), preset.found && !preset.clear:
		d.unsure("ssr or nitro.preset")
	default:
		d.server(d.configName(), "Nuxt renders on a server: the build script does not run nuxt generate.", `Set scripts.build in package.json to "nuxt generate".`)
	}
}

func (d *detector) reactRouter() {
	ssr := d.text.get("ssr")
	switch {
	case ssr.clear && ssr.value == "false":
		page := "index.html"
		if d.text.get("prerender").found {
			page = "__spa-fallback.html"
		}
		d.plan.Fallback.File, d.plan.Fallback.From = page, d.file
		d.plan.Fallback.Reason = d.file + " sets ssr to false, so one page answers all paths."
	case ssr.clear:
		d.server(d.configName(), fmt.Sprintf("React Router renders on a server: %s does not set ssr to false.", d.configName()),
			fmt.Sprintf("Set ssr: false in %s.", d.configName()))
	default:
		d.unsure("ssr")
	}
	if dir := d.text.get("buildDirectory"); dir.value != "" {
		d.setOutput(path.Join(dir.value, "client"), d.file+" sets buildDirectory", dir.clear)
	}
}

func (d *detector) remix() {
	ssr := d.text.get("plugins.ssr")
	switch {
	case ssr.clear && ssr.value == "false":
		d.plan.Fallback.File, d.plan.Fallback.From, d.plan.Fallback.Reason = "index.html", d.file, d.file+" sets ssr to false, so one page answers all paths."
	case ssr.clear:
		d.server(d.configName(), fmt.Sprintf("Remix renders on a server: %s does not set ssr to false.", d.configName()),
			"Set ssr: false in the options of Remix's Vite plugin.")
	default:
		d.unsure("ssr")
	}
}

func (d *detector) solidStart() {
	preset := d.text.get("server.preset")
	_, vite := d.findSource("vite.config")
	switch {
	case vite.importing("solid-start-static") != "":
		d.plan.Output.Path, d.plan.Output.Reason = "dist/public", "solid-start-static writes there."
	case preset.clear && slices.Contains([]string{"static", "github-pages", "github_pages"}, preset.value):
	case preset.clear && (preset.found || !vite.mentions("preset")):
		d.server(d.configName(), fmt.Sprintf(`SolidStart renders on a server: %s does not set server.preset to "static".`, d.configName()),
			fmt.Sprintf(`Set server: { preset: "static" } in %s.`, d.configName()))
	default:
		d.unsure("preset")
	}
}

func (d *detector) tanStackStart() {
	for _, plugin := range []string{"plugins", "tanstackStart"} {
		spa, prerender := d.text.get(plugin+".spa.enabled"), d.text.get(plugin+".prerender.enabled")
		if spa.value == "true" {
			d.plan.Fallback.File, d.plan.Fallback.From, d.plan.Fallback.Reason = "_shell.html", d.file, d.file+" turns spa on, so its shell answers all paths."
			return
		}
		if prerender.value == "true" {
			return
		}
		if spa.found || prerender.found {
			if spa.value != "false" && prerender.value != "false" {
				d.unsure("spa or prerender")
				return
			}
		}
	}
	d.server(d.configName(), fmt.Sprintf("TanStack Start renders on a server: %s turns neither spa nor prerender on.", d.configName()),
		fmt.Sprintf("Set spa: { enabled: true } in the options of tanstackStart in %s.", d.configName()))
}

func (d *detector) vite() {
	if root := d.text.get("root"); root.value != "" {
		if dir, ok := inside("", root.value); ok {
			d.outBase = dir
		}
	} else if root.found {
		d.unsure("root")
	}
	for _, c := range d.commands {
		rest, ok := c.runs([]string{"vite", "build"})
		if ok && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") && !c.unclear {
			if dir, ok := inside("", rest[0]); ok {
				d.outBase = dir
			}
		}
		if _, ssr := flag(append(rest, ""), "--ssr"); ok && ssr {
			d.note("The build also makes something for a server (vite build --ssr), which is not served here.")
		}
	}
}

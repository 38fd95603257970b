package detect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/previewd/previewd"
)

// bundle decides whether the bundler can make what the build command would make.
// Every doubt is a no: the build command is right by definition.
func (d *detector) bundle() {
	p := &d.plan.Bundle
	if p.Reason, p.From = d.needsCode(); p.Reason != "" {
		return
	}
	jsx, why := d.viteJSX()
	if why != "" {
		p.Reason, p.From = fmt.Sprintf("%s %s.", d.file, why), d.file
		return
	}
	p.OK, p.JSX, p.From = true, jsx, d.file
	p.Reason = "The site is plain Vite"
	if jsx != "" {
		p.Reason += " with " + map[string]string{"react": "React", "preact": "Preact"}[jsx]
	}
	p.Reason += ", so nothing of it has to be run."
}

// needsCode says why code must be run to build the tree, as far as that can be
// told without the framework's configuration; "" when it need not.
func (d *detector) needsCode() (reason, from string) {
	p := d.plan
	switch {
	case d.config.Runner == previewd.RunnerSandbox:
		return d.from["runner"] + " says so.", d.from["runner"]
	case d.config.Build != nil:
		return d.from["build"] + " names the command.", d.from["build"]
	case d.config.Install != nil:
		return d.from["install"] + " names how packages are installed.", d.from["install"]
	case d.framework == nil || d.framework.name != "vite":
		return "Only Vite's conventions are known without running anything.", ""
	case p.PackageManager.Name != "npm" || p.PackageManager.Lockfile == "":
		return "Only packages that a lockfile of npm names are used without running anything.", ""
	case p.Workspace.Root:
		return "The packages of a workspace are parts of the tree.", manifestFile
	case d.outBase != "" || !d.tree.isFile("index.html"):
		return "There is no index.html at the root.", ""
	}
	for _, name := range []string{"pre" + d.script, "post" + d.script, "preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare"} { // npm-scripts(7)
		if d.pkg.scripts[name] != "" {
			return fmt.Sprintf("package.json has the script %s.", name), manifestFile
		}
	}
	for _, c := range d.commands {
		if !slices.Equal(c.words, []string{"vite", "build"}) && (len(c.words) == 0 || c.words[0] != "tsc") || c.unclear || len(c.env) > 0 {
			return fmt.Sprintf("The build script runs %q, not only tsc and vite build.", clean(strings.Join(append(c.env, c.words...), " "), 80)), manifestFile
		}
	}
	if name, ok := d.pkg.has("tailwindcss", "unocss", "@unocss/vite", "postcss", "babel-plugin-react-compiler"); ok {
		return fmt.Sprintf("package.json names %s, which has to be run.", name), manifestFile
	}
	for _, name := range codeConfigs {
		for _, ext := range append([]string{"", ".json", ".yaml", ".yml"}, extensions...) {
			if d.tree.isFile(name + ext) {
				return name + ext + " configures what has to be run.", name + ext
			}
		}
	}
	if at(d.pkg.value, "postcss") != nil {
		return "package.json configures postcss.", manifestFile
	}
	return "", ""
}

// codeConfigs are the configurations, without extension, of what Vite runs if it
// finds them.
var codeConfigs = []string{"postcss.config", ".postcssrc", "babel.config", ".babelrc", ".swcrc", "tailwind.config", "svelte.config", "uno.config"}

// jsxPlugins are the plugins for Vite whose work on a site the bundler does by
// itself, with the package that JSX is of then.
var jsxPlugins = map[string]string{
	"@vitejs/plugin-react": "react", "@vitejs/plugin-react-swc": "react", "@preact/preset-vite": "preact",
}

// viteJSX reads the configuration of Vite and returns the package that JSX is of,
// or what in the configuration has to be run to know; it reads on after the file's
// name.
func (d *detector) viteJSX() (jsx, why string) {
	if d.file == "" {
		return "", ""
	}
	r := &plainReader{text: d.text, imports: map[string]string{}}
	if why := r.file(); why != "" {
		return "", why
	}
	for _, name := range r.plugins {
		from := r.imports[name]
		plugin, ok := jsxPlugins[from]
		if !ok || jsx != "" && jsx != plugin {
			return "", fmt.Sprintf("uses the plugin %s, which has to be run", clean(from, 80))
		}
		jsx = plugin
	}
	return jsx, ""
}

// plainReader reads a configuration of Vite that says nothing but which plugins
// it uses:
//
//	import { defineConfig } from 'vite'
//	import react from '@vitejs/plugin-react'
//	export default defineConfig({ plugins: [react()] })
//
// Anything else is not read further.
type plainReader struct {
	text    *sourceText
	next    int               // token
	imports map[string]string // name → package
	plugins []string          // names
}

func (r *plainReader) now() token { return r.text.at(r.next) }

func (r *plainReader) ended() bool { return r.next >= len(r.text.tokens) }

func (r *plainReader) take(text string) bool {
	if r.now().kind == tokenString || r.now().text != text {
		return false
	}
	r.next++
	return true
}

func (r *plainReader) takeKind(kind tokenKind) (text string, ok bool) {
	if r.now().kind != kind {
		return "", false
	}
	r.next++
	return r.text.at(r.next - 1).text, true
}

// takeComma takes what is between two items; after the last it may be missing.
func (r *plainReader) takeComma(closing string) bool { return r.take(",") || r.now().is(closing) }

const notPlain = "says more than which plugins it uses"

func (r *plainReader) file() (why string) {
	for r.take("import") {
		braces := r.take("{")
		name, ok := r.takeKind(tokenWord)
		if braces && !r.take("}") || !ok || !r.take("from") {
			return notPlain
		}
		from, ok := r.takeKind(tokenString)
		if !ok {
			return notPlain
		}
		r.imports[name] = from
		r.take(";")
	}
	if !r.take("export") || !r.take("default") {
		return notPlain
	}
	call := r.take("defineConfig")
	if call && (r.imports["defineConfig"] != "vite" || !r.take("(")) {
		return notPlain
	}
	if why := r.config(); why != "" {
		return why
	}
	if call && !r.take(")") {
		return notPlain
	}
	r.take(";")
	if !r.ended() {
		return notPlain
	}
	return ""
}

func (r *plainReader) config() (why string) {
	if !r.take("{") {
		return notPlain
	}
	for !r.take("}") {
		key, ok := r.takeKind(tokenWord)
		if !ok || !r.take(":") {
			return notPlain
		}
		switch key {
		case "plugins":
			if !r.pluginList() {
				return notPlain
			}
		case "server", "preview": // nothing of a build
			if !r.skipObject() {
				return notPlain
			}
		default:
			return fmt.Sprintf("sets %s", clean(key, 60))
		}
		if !r.takeComma("}") {
			return notPlain
		}
	}
	return ""
}

func (r *plainReader) pluginList() bool {
	if !r.take("[") {
		return false
	}
	for !r.take("]") {
		name, ok := r.takeKind(tokenWord)
		if !ok || !r.take("(") || !r.take(")") {
			return false
		}
		r.plugins = append(r.plugins, name)
		if !r.takeComma("]") {
			return false
		}
	}
	return true
}

// skipObject skips an object of plain values.
func (r *plainReader) skipObject() bool {
	if !r.take("{") {
		return false
	}
	for depth := 1; depth > 0; r.next++ {
		switch t := r.now(); {
		case t.is("{") || t.is("["):
			depth++
		case t.is("}") || t.is("]"):
			depth--
		case r.ended(), t.kind == tokenOther, t.kind == tokenPunct && t.text != ":" && t.text != ",":
			return false
		}
	}
	return true
}

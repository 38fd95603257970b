package detect

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// chooseFramework decides what the tree is made with: what an override names, or
// the first of the table whose package is there and, if several are, that the
// build script runs.
func (d *detector) chooseFramework() {
	p := &d.plan.Framework
	d.readCommands()
	switch name := d.config.Framework; name {
	case "":
		d.findFramework()
	case noFramework:
		p.Reason, p.From = d.from["framework"]+" says that there is none.", d.from["framework"]
	default:
		d.framework = frameworkNamed(name)
		p.Reason, p.From = d.from["framework"]+" says so.", d.from["framework"]
	}
	if d.framework == nil {
		return
	}
	p.Name, p.Title = d.framework.name, d.framework.title
	if pkg, ok := d.pkg.has(d.framework.packages...); ok {
		p.Package, p.Version = pkg, clean(d.pkg.deps[pkg].version, 60)
	}
}

// readCommands notes what the build runs.
func (d *detector) readCommands() {
	d.commands = d.pkg.commands(d.script)
	if d.config.Build != nil {
		d.commands = []command{{words: d.config.Build}}
		if script := d.commands[0].script(); d.pkg.scripts[script] != "" {
			d.commands = d.pkg.commands(script)
		}
	}
}

func (d *detector) findFramework() {
	p := &d.plan.Framework
	var found []*framework
	for i := range frameworks {
		if _, ok := d.pkg.has(frameworks[i].packages...); ok {
			found = append(found, &frameworks[i])
		}
	}
	if server, ok := d.pkg.has(servers...); ok && (len(found) == 0 || found[0].name == "vite") {
		p.Package, p.From, p.Version = server, manifestFile, clean(d.pkg.deps[server].version, 60)
		p.Reason = fmt.Sprintf("package.json names %s, which renders on a server.", server)
		if d.pkg.scripts["build"] != "" || d.config.Build != nil {
			d.server(manifestFile, p.Reason, "Make it write static files, or use a framework that does.")
		}
		return
	}
	if len(found) == 0 {
		p.Reason = "package.json names no framework of previewd's table."
		if !d.hasPkg {
			p.Reason = "There is no package.json."
		}
		return
	}
	run := slices.DeleteFunc(slices.Clone(found), func(f *framework) bool { return !d.runsTool(f) })
	d.framework = found[0]
	if len(run) > 0 {
		d.framework = run[0]
	}
	pkg, _ := d.pkg.has(d.framework.packages...)
	p.From = manifestFile
	p.Reason = fmt.Sprintf("%s of package.json names %s", d.pkg.deps[pkg].list, pkg)
	switch {
	case len(d.commands) == 0:
		p.Reason += "."
	case len(run) > 0:
		p.Reason += ", and the build runs it."
	default:
		p.Reason += ", but the build does not run it in so many words."
		p.Unsure = true
	}
	for _, other := range found {
		if other != d.framework && !slices.Equal(other.command, d.framework.command) && !slices.Contains(d.framework.tools, other.command[0]) {
			p.Reason += fmt.Sprintf(" %s is there too and does not decide.", other.title)
		}
	}
}

// runsTool reports whether the build runs a framework's tool.
func (d *detector) runsTool(f *framework) bool {
	for _, tool := range append([]string{f.command[0]}, f.tools...) {
		if d.runs(tool) {
			return true
		}
	}
	return false
}

// runs reports whether the build runs a program with these first words.
func (d *detector) runs(words ...string) bool {
	return slices.ContainsFunc(d.commands, func(c command) bool {
		_, ok := c.runs(words)
		return ok
	})
}

// extensions of configuration files, in the order in which tools look for them.
var extensions = []string{".js", ".mjs", ".ts", ".cjs", ".mts", ".cts"}

// readFrameworkConfig reads the framework's configuration as text.
func (d *detector) readFrameworkConfig() {
	if file := d.configFlag(); file != "" {
		d.file, d.text = file, d.readSource(file)
		return
	}
	d.file, d.text = d.findSource(d.framework.configs...)
}

func (d *detector) findSource(names ...string) (file string, text *sourceText) {
	for _, name := range names {
		for _, ext := range extensions {
			if file := name + ext; d.tree.isFile(file) {
				return file, d.readSource(file)
			}
		}
	}
	return "", &sourceText{}
}

func (d *detector) readSource(file string) *sourceText {
	raw, err := d.tree.read(file, maxConfig)
	if err != nil {
		d.note("%s %v, so its settings are not known.", file, err)
		return &sourceText{spreads: []string{""}}
	}
	return readSource(raw)
}

// configFlag returns the configuration that the build command names.
func (d *detector) configFlag() string {
	for _, c := range d.commands {
		for _, tool := range append([]string{d.framework.command[0]}, d.framework.tools...) {
			rest, ok := c.runs([]string{tool})
			value, found := flag(rest, "--config", "-c")
			if file, in := inside("", value); ok && found && in && !c.unclear && d.tree.isFile(file) {
				return file
			}
		}
	}
	return ""
}

// frameworkOutput decides the output folder by, in this order, a flag of the
// build command, a plain setting, the framework's default.
func (d *detector) frameworkOutput() {
	p := &d.plan.Output
	f := d.framework
	p.Path = path.Join(d.outBase, f.output)
	p.Reason = fmt.Sprintf("%s writes there unless told otherwise.", f.title)
	p.Unsure = p.Unsure || d.plan.Framework.Unsure
	if value, where, clear := d.outFlag(); value != "" {
		d.setOutput(value, where, clear)
		return
	}
	if f.outKey == "" {
		return
	}
	switch s := d.text.get(f.outKey); {
	case s.value != "":
		d.setOutput(s.value, fmt.Sprintf("%s sets %s", d.file, f.outKey), s.clear)
	case s.found || !s.clear:
		p.Reason = fmt.Sprintf("%s may set %s in a way that only running it would tell, so this is the default of %s.", d.file, f.outKey, f.title)
		p.Unsure = true
	case d.file != "":
		p.Reason = fmt.Sprintf("%s writes there, for %s does not set %s.", f.title, d.file, f.outKey)
	}
}

// outFlag returns the output folder that the build command names.
func (d *detector) outFlag() (value, where string, clear bool) {
	for _, c := range d.commands {
		for _, tool := range append([]string{d.framework.command[0]}, d.framework.tools...) {
			rest, ok := c.runs([]string{tool})
			if !ok {
				continue
			}
			if value, found := flag(rest, d.framework.outFlags...); found {
				return value, byCommand, !c.unclear
			}
		}
	}
	return "", "", false
}

const byCommand = "the build command names the folder"

// setOutput takes an output folder that somebody names, if it is one.
func (d *detector) setOutput(value, where string, clear bool) {
	p := &d.plan.Output
	name, ok := inside(d.outBase, value)
	if !ok || name == "." || strings.ContainsAny(value, "$`") {
		p.Reason = fmt.Sprintf("%s: %q. That is no folder of its own in the tree, so this is the default of %s.", upperFirst(where), clean(value, 80), d.framework.title)
		p.Path, p.Unsure = path.Join(d.outBase, d.framework.output), true
		return
	}
	p.Path, p.From = name, d.file
	if where == byCommand {
		p.From = manifestFile
	}
	p.Reason = fmt.Sprintf("%s: %s.", upperFirst(where), clean(value, 80))
	if !clear {
		p.Reason += " It may say something else when it is run."
		p.Unsure = true
	}
}

func upperFirst(text string) string {
	if rest, ok := strings.CutPrefix(text, "the "); ok {
		return "The " + rest
	}
	return text
}

// basePath warns of a site that expects to be below a path: a preview is at the
// root of its host.
func (d *detector) basePath() {
	if d.framework.baseKey == "" {
		return
	}
	s := d.text.get(d.framework.baseKey)
	if s.value == "" || s.value == "/" || s.value == "./" || s.value == "." || s.value == "undefined" {
		return
	}
	d.note("%s sets %s to %q: its pages ask for files below that path, but a preview is served at /.", d.file, d.framework.baseKey, clean(s.value, 80))
}

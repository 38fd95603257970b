package detect

import (
	"bytes"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
)

// The rules of frameworks that make static files, and name their folder in ways
// of their own.

func (d *detector) vitePress() {
	dir := "docs"
	if !d.tree.isDir("docs/.vitepress") && d.tree.isDir(".vitepress") {
		dir = "."
	}
	for _, c := range d.commands {
		if rest, ok := c.runs([]string{"vitepress", "build"}); ok {
			dir = "."
			if len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
				dir = rest[0]
			}
		}
	}
	base, ok := inside("", dir)
	if !ok {
		d.plan.Output.Unsure = true
		return
	}
	d.file, d.text = d.findSource(path.Join(base, ".vitepress/config"), path.Join(base, ".vitepress/config/index"))
	d.plan.Output.Path, d.plan.Output.Reason = path.Join(base, ".vitepress/dist"), fmt.Sprintf("VitePress writes there when the pages are in %s.", clean(base, 80))
	d.outBase = base
	if out := d.text.get("outDir"); out.value != "" {
		d.setOutput(out.value, d.file+" sets outDir", out.clear)
	}
	if value, where, clear := d.outFlag(); value != "" {
		d.setOutput(value, where, clear)
	}
}

func (d *detector) eleventy() {
	for i, t := range d.text.tokens {
		if t.text == "setOutputDirectory" && d.text.at(i+1).is("(") && d.text.at(i+2).kind == tokenString && d.text.at(i+3).is(")") {
			d.setOutput(d.text.at(i+2).text, d.file+" calls setOutputDirectory", true)
		}
	}
	if value, where, clear := d.outFlag(); value != "" {
		d.setOutput(value, where, clear)
	}
}

func (d *detector) createReactApp() {
	for _, c := range d.commands {
		for _, word := range slices.Concat(c.env, c.words) {
			if value, ok := strings.CutPrefix(word, "BUILD_PATH="); ok {
				d.setOutput(value, byCommand, !c.unclear)
			}
		}
	}
	if home := textAt(d.pkg.value, "homepage"); home != "" {
		if u, err := url.Parse(home); err == nil && u.Path != "" && u.Path != "/" && u.Path != "." {
			d.note("package.json sets homepage to %q: its pages ask for files below that path, but a preview is served at /.", clean(home, 80))
		}
	}
}

func (d *detector) parcel() {
	if _, has := at(d.pkg.value, "targets").(map[string]any); has {
		d.plan.Output.Path, d.plan.Output.Unsure = "dist", true
		d.plan.Output.Reason = "package.json has targets, which can name folders of their own; this is Parcel's default."
	}
}

// angular reads angular.json, where a workspace says what is built where.
func (d *detector) angular() {
	p := &d.plan.Output
	d.file = "angular.json"
	raw, err := d.tree.read(d.file, maxManifest)
	if err != nil {
		p.Path, p.Reason, p.Unsure = "dist", "There is no angular.json to tell the project's folder in dist.", true
		return
	}
	doc, err := parseJSON(withoutComments(raw))
	if err != nil {
		d.refuse(badConfig(d.file, fmt.Sprintf("%s is not valid: %v.", d.file, err), ""))
		return
	}
	name, project := angularProject(doc.value)
	if name == "" {
		p.Path, p.Reason, p.Unsure = "dist", "angular.json has several applications, or none, and names no default.", true
		return
	}
	target := at(project, "architect", "build")
	if target == nil {
		target = at(project, "targets", "build")
	}
	options := at(target, "options")
	ssr := at(options, "ssr")
	if ssr != nil && ssr != false && textAt(options, "outputMode") != "static" || textAt(options, "outputMode") == "server" {
		d.server(d.file, "Angular renders on a server: angular.json sets ssr, and outputMode is not static.", `Set "outputMode": "static" in the options of the build in angular.json.`)
	}
	base, from := path.Join("dist", name), "angular.json names no output path for "+clean(name, 80)
	browser := "browser"
	if text := textAt(options, "outputPath"); text != "" {
		base, from = text, "angular.json names the output path of "+clean(name, 80)
	} else if text := textAt(options, "outputPath", "base"); text != "" {
		base, from = text, "angular.json names the output path of "+clean(name, 80)
		if text, ok := at(options, "outputPath", "browser").(string); ok {
			browser = text
		}
	}
	if strings.HasSuffix(textAt(target, "builder"), ":application") {
		base = path.Join(base, browser)
		from += ", and its builder makes a folder for the browser in it"
	}
	if out, ok := inside("", base); ok && out != "." {
		p.Path, p.From, p.Reason = out, d.file, from+"."
	} else {
		p.Path, p.Reason, p.Unsure = "dist", "The output path of angular.json is no folder of its own in the tree.", true
	}
	if value, where, clear := d.outFlag(); value != "" {
		d.setOutput(value, where, clear)
	}
}

// angularProject returns the application that ng build builds.
func angularProject(value any) (name string, project any) {
	projects, _ := at(value, "projects").(map[string]any)
	if name := textAt(value, "defaultProject"); name != "" && projects[name] != nil {
		return name, projects[name]
	}
	for _, candidate := range slices.Sorted(maps.Keys(projects)) {
		if kind := textAt(projects[candidate], "projectType"); kind != "" && kind != "application" {
			continue
		}
		if name != "" {
			return "", nil
		}
		name, project = candidate, projects[candidate]
	}
	return name, project
}

// withoutComments returns JSON without the comments that some tools allow.
func withoutComments(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '"':
			end := i + 1
			for end < len(raw) && raw[end] != '"' {
				if raw[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end+1, len(raw))
			out = append(out, raw[i:end]...)
			i = end - 1
		case c == '/' && i+1 < len(raw) && raw[i+1] == '/':
			for i < len(raw) && raw[i] != '\n' {
				i++
			}
		case c == '/' && i+1 < len(raw) && raw[i+1] == '*':
			end := bytes.Index(raw[i+2:], []byte("*/"))
			if end < 0 {
				return out
			}
			i += end + 3
		default:
			out = append(out, c)
		}
	}
	return out
}

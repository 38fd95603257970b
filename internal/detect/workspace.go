package detect

import (
	"fmt"
	"path"
	"strings"

	"github.com/previewd/previewd"
)

const maxMembers = 50

// workspace looks whether the tree holds several packages. One of them can be
// built only when it is the root's own: which of the others is meant, nobody
// here can know.
func (d *detector) workspace() {
	p := &d.plan.Workspace
	globs, file := d.workspaceGlobs()
	if len(globs) == 0 {
		p.Reason = "The tree is one package."
		catalog := d.tree.isFile("pnpm-workspace.yaml")
		if name, version := d.pkg.local(catalog); name != "" {
			p.Reason, p.From = fmt.Sprintf("package.json wants %s as %q, which is in another package.", clean(name, 80), clean(version, 80)), manifestFile
			d.refuse(&previewd.Failure{
				Class: previewd.FailureUser, Code: previewd.FailWorkspace, Step: previewd.StepBuild, File: manifestFile, Message: p.Reason,
				Hint: "Send the whole workspace, with its root as the root of the tree, or name a published version of the package.",
			})
		}
		return
	}
	p.Root, p.From = true, file
	p.Apps = d.workspaceApps(globs)
	switch {
	case d.config.Build != nil && d.config.Output != "":
		p.Reason = fmt.Sprintf("%s names packages, and %s says which command builds what.", file, d.from["build"])
	case d.plan.Framework.Name != "" && d.pkg.scripts["build"] != "":
		p.Reason = fmt.Sprintf("%s names packages, but the root is built by itself: its own package.json has %s and a build script.", file, d.plan.Framework.Package)
	default:
		p.Reason = fmt.Sprintf("%s names packages, and the root's package.json does not say which of them is the site.", file)
		d.refuse(&previewd.Failure{
			Class: previewd.FailureUser, Code: previewd.FailWorkspace, Step: previewd.StepBuild, File: file,
			Message: "The tree is a workspace of several packages, and it is not known which of them is the site.", Hint: d.workspaceHint(),
		})
	}
}

func (d *detector) workspaceHint() string {
	apps := d.plan.Workspace.Apps
	app := "apps/web"
	if len(apps) > 0 {
		app = apps[0]
	}
	hint := fmt.Sprintf(`Say in %s how it is built, as from the root: {"build": ["npm", "run", "build"], "output": %q}.`, ConfigFile, app+"/dist")
	if len(apps) > 0 {
		hint += " Packages that look like sites: " + oneOf(apps, "and") + "."
	}
	return clean(hint, 400)
}

// workspaceGlobs returns what names the packages of a workspace, and where.
func (d *detector) workspaceGlobs() (globs []string, file string) {
	for _, names := range [][]string{{"workspaces"}, {"workspaces", "packages"}} {
		if globs = listAt(d.pkg.value, names...); len(globs) > 0 {
			return globs, manifestFile
		}
	}
	if raw, err := d.tree.read("pnpm-workspace.yaml", maxConfig); err == nil {
		if globs = yamlList(string(raw), "packages"); len(globs) > 0 {
			return globs, "pnpm-workspace.yaml"
		}
	}
	if raw, err := d.tree.read("lerna.json", maxConfig); err == nil {
		if doc, err := parseJSON(raw); err == nil {
			if globs = listAt(doc.value, "packages"); len(globs) > 0 {
				return globs, "lerna.json"
			}
		}
	}
	if d.tree.isFile("rush.json") {
		return []string{"apps/*"}, "rush.json"
	}
	return nil, ""
}

// yamlList reads the list of strings under a name at the top of a file that tools
// write. It is no parser of YAML: what it does not know it leaves out.
func yamlList(text, name string) []string {
	var list []string
	under := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		item, isItem := strings.CutPrefix(strings.TrimLeft(line, " "), "- ")
		switch {
		case line == "" || strings.HasPrefix(strings.TrimSpace(line), "#"):
		case under && isItem:
			item, _, _ = strings.Cut(item, " #")
			list = append(list, strings.Trim(strings.TrimSpace(item), `"'`))
		case strings.HasPrefix(line, name+":"):
			under = true
			flow := strings.Trim(strings.TrimSpace(strings.TrimPrefix(line, name+":")), "[]")
			for item := range strings.SplitSeq(flow, ",") {
				if item = strings.Trim(strings.TrimSpace(item), `"'`); item != "" {
					list = append(list, item)
				}
			}
		default:
			under = false
		}
	}
	return list
}

// workspaceApps returns the folders among a workspace's that have a package.json
// with a framework of the table and a build script.
func (d *detector) workspaceApps(globs []string) []string {
	var apps []string
	looked := 0
	for _, glob := range globs {
		glob = strings.TrimSuffix(strings.TrimSuffix(glob, "/"), "/**")
		folders := []string{glob}
		if parent, last := path.Split(glob); last == "*" {
			folders = d.tree.folders(path.Clean(parent))
		} else if strings.ContainsAny(glob, "*?[{!") {
			continue
		}
		for _, folder := range folders {
			folder, ok := inside("", folder)
			if looked++; !ok || folder == "." || looked > maxMembers {
				continue
			}
			member, failure := readManifest(d.tree, folder+"/"+manifestFile)
			if member == nil || failure != nil || member.scripts["build"] == "" {
				continue
			}
			for i := range frameworks {
				if _, ok := member.has(frameworks[i].packages...); ok {
					apps = append(apps, clean(folder, 200))
					break
				}
			}
		}
	}
	return apps[:min(len(apps), 10)]
}

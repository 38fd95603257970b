package runner

import (
	"encoding/json"
	"fmt"
	"strings"
)

// manifest is what a diagnosis needs of package.json.
type manifest struct {
	known   bool
	scripts map[string]string
	lists   map[string]string // of a package's name: dependencies, devDependencies…
}

func readManifest(source func(string) (string, bool)) manifest {
	m := manifest{lists: map[string]string{}}
	raw, _ := source("package.json")
	var parts map[string]json.RawMessage // not a struct, which would take "Scripts" for "scripts"
	if json.Unmarshal([]byte(raw), &parts) != nil || parts == nil {
		return m
	}
	m.known = true
	_ = json.Unmarshal(parts["scripts"], &m.scripts) // what is no text is no script
	for _, list := range []string{"peerDependencies", "optionalDependencies", "devDependencies", "dependencies"} {
		var packages map[string]json.RawMessage
		_ = json.Unmarshal(parts[list], &packages)
		for name := range packages {
			m.lists[name] = list
		}
	}
	return m
}

// told says in a sentence whether package.json lists a package.
func (m manifest) told(name string) string {
	switch list := m.lists[name]; {
	case !m.known:
		return ""
	case list == "":
		return " package.json does not list it."
	default:
		return fmt.Sprintf(" package.json lists it under %s.", list)
	}
}

// manager returns the package manager that installs, and the lockfile that it writes.
func (d *diagnosis) manager() (name, lockfile string) {
	name, lockfile = d.plan.PackageManager.Name, d.plan.PackageManager.Lockfile
	if name == "" {
		name = "npm"
	}
	if lockfile == "" {
		lockfile = map[string]string{"npm": "package-lock.json", "pnpm": "pnpm-lock.yaml", "yarn": "yarn.lock", "bun": "bun.lock"}[name]
	}
	return clip(name, 40), clip(lockfile, 100)
}

// add returns the command that adds a package to package.json.
func (d *diagnosis) add(name string) string {
	manager, _ := d.manager()
	verb := "add"
	if manager == "npm" {
		verb = "install"
	}
	return fmt.Sprintf("%s %s %s", manager, verb, name)
}

// wanted says what to do so that a package is installed.
func (d *diagnosis) wanted(name string) string {
	_, lockfile := d.manager()
	switch d.manifest.lists[name] {
	case "":
		return fmt.Sprintf("Add it with `%s`, and send package.json and %s along.", d.add(name), lockfile)
	case "devDependencies":
		return "It was not installed: devDependencies are left out when NODE_ENV is production or omit=dev is set. Unset them, or move it to dependencies."
	}
	return fmt.Sprintf("It was not installed. Look in the log of the install step, and send a new %s along.", lockfile)
}

// splitSpec splits name@range.
func splitSpec(spec string) (name, wanted string) {
	if i := strings.LastIndex(spec, "@"); i > 0 {
		return spec[:i], spec[i+1:]
	}
	return spec, ""
}

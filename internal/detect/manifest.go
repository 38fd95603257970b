package detect

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/previewd/previewd"
)

const manifestFile = "package.json"

// manifest is what detection needs of package.json.
type manifest struct {
	value   any
	scripts map[string]string
	deps    map[string]dependency
	doubles []string
}

type dependency struct {
	version string
	list    string // dependencies, devDependencies, optionalDependencies
}

// readManifest reads package.json; nil when there is none.
func readManifest(t *tree, name string) (*manifest, *previewd.Failure) {
	raw, err := t.read(name, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, badConfig(name, fmt.Sprintf("%s %v.", name, err), "")
	}
	doc, err := parseJSON(raw)
	if err != nil {
		return nil, badConfig(name, fmt.Sprintf("%s is not valid: %v.", name, err), "")
	}
	if _, ok := doc.value.(map[string]any); !ok {
		return nil, badConfig(name, name+" must be an object.", "")
	}
	m := &manifest{value: doc.value, scripts: textsAt(doc.value, "scripts"), deps: map[string]dependency{}, doubles: doc.doubles}
	for _, list := range []string{"optionalDependencies", "devDependencies", "dependencies"} {
		for name, version := range textsAt(doc.value, list) {
			m.deps[name] = dependency{version, list}
		}
	}
	return m, nil
}

// has returns the first of these packages that package.json names.
func (m *manifest) has(names ...string) (string, bool) {
	for _, name := range names {
		if _, ok := m.deps[name]; ok {
			return name, true
		}
	}
	return "", false
}

// major returns the major version that a range begins with, or -1.
func major(version string) int {
	version = strings.TrimLeft(version, "^~>=v ")
	end := 0
	for end < len(version) && version[end] >= '0' && version[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(version[:end])
	if err != nil || n > 10_000 {
		return -1
	}
	return n
}

// local returns a dependency that only the tree's neighbours could provide, with
// what it is wanted as: workspace:*, catalog:, or a path that leads out.
func (m *manifest) local(catalog bool) (name, version string) {
	for _, name := range slices.Sorted(maps.Keys(m.deps)) {
		version := m.deps[name].version
		if strings.HasPrefix(version, "workspace:") || strings.HasPrefix(version, "catalog:") && !catalog {
			return name, version
		}
		for _, scheme := range []string{"file:", "link:", "portal:"} {
			if target, ok := strings.CutPrefix(version, scheme); ok {
				if _, ok := inside("", target); !ok {
					return name, version
				}
			}
		}
	}
	return "", ""
}

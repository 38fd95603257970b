package runner

import (
	"cmp"
	"maps"
	"slices"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/npm"
)

// addPackages notes what the build is made with.
func (j *job) addPackages(list ...previewd.Package) {
	if j.packages == nil {
		j.packages = map[string]previewd.Package{}
	}
	for _, p := range list {
		j.packages[p.Name+"@"+p.Version] = p
	}
}

// packageList returns what the build was made with, sorted.
func (j *job) packageList() []previewd.Package {
	return slices.SortedFunc(maps.Values(j.packages), func(a, b previewd.Package) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
}

// packagesOf returns the packages of what was fetched; the rest are lists of versions.
func packagesOf(fetched []npm.Fetch) []previewd.Package {
	list := []previewd.Package{}
	for _, f := range fetched {
		if f.Integrity != "" {
			list = append(list, previewd.Package{Name: f.Name, Version: f.Version, Bytes: f.Bytes, Integrity: f.Integrity, Cached: f.Cached})
		}
	}
	return list
}

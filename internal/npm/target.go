package npm

import (
	"regexp"
	"strings"
)

// target is what a path names: a packument, or of its package a tarball, or the
// manifest of a version.
type target struct {
	name    string
	file    string // of a tarball
	version string // or a tag
}

const (
	maxPath = 300
	maxName = 214 // npm's
)

// targets is npm's grammar of names, and all that can be asked of one. A name that
// begins with - would look like an endpoint.
var targets = regexp.MustCompile(`^/((?:@[A-Za-z0-9~_][A-Za-z0-9._~-]*(?:/|%2[fF])[A-Za-z0-9~_]|[A-Za-z0-9~])[A-Za-z0-9._~-]*)` +
	`(?:/-/([A-Za-z0-9~_][A-Za-z0-9._~+-]*\.tgz)|/([A-Za-z0-9~_][A-Za-z0-9._~+-]*))?$`)

// parseTarget reads an escaped path. It reports false for everything that is
// neither a packument, a manifest nor a tarball, in the one spelling that clients use.
func parseTarget(path string) (target, bool) {
	match := targets.FindStringSubmatch(path)
	if match == nil || len(path) > maxPath || strings.Contains(path, "..") {
		return target{}, false
	}
	name := strings.NewReplacer("%2f", "/", "%2F", "/").Replace(match[1])
	return target{name: name, file: match[2], version: match[3]}, len(name) <= maxName
}

// tarball is the path of the tarball that t names.
func (t target) tarball() string { return "/" + t.name + "/-/" + t.file }

// tarballVersion is the version that a tarball's name tells: name-version.tgz.
func (t target) tarballVersion() string {
	_, base, scoped := strings.Cut(t.name, "/")
	if !scoped {
		base = t.name
	}
	return strings.TrimSuffix(strings.TrimPrefix(t.file, base+"-"), ".tgz")
}

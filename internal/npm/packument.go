package npm

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// object is a JSON object whose members stay as they were written.
type object map[string]json.RawMessage

// read decodes a member; one that is missing leaves into as it is.
func (o object) read(name string, into any) error {
	if raw, ok := o[name]; ok {
		return json.Unmarshal(raw, into)
	}
	return nil
}

// time decodes a member that is a time. It is zero when it is not.
func (o object) time(name string) time.Time {
	var t time.Time
	if o.read(name, &t) != nil {
		return time.Time{}
	}
	return t
}

// encode does not check its members: they were read as JSON, or have a baseMark.
func (o object) encode() json.RawMessage {
	b := []byte{'{'}
	for i, name := range slices.Sorted(maps.Keys(o)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, quote(name)...)
		b = append(b, ':')
		b = append(b, o[name]...)
	}
	return append(b, '}')
}

func quote(s string) []byte {
	quoted, _ := json.Marshal(s) // a string has a form
	return quoted
}

// baseMark stands in kept packuments where the base of a view goes. JSON cannot
// contain it, so it is nowhere else.
const baseMark = '\x00'

func insertBase(text []byte, base string) []byte {
	return bytes.ReplaceAll(text, []byte{baseMark}, []byte(base))
}

func parse(text []byte) (object, error) {
	var doc object
	err := json.Unmarshal(text, &doc)
	return doc, err
}

// rewritten is a packument as it is kept.
type rewritten struct {
	text  []byte   // with a baseMark before each tarball's path
	shown int      // versions, each with one baseMark
	young []string // versions that were taken out, and their tarballs
}

// rewrite points tarballs to a base that is filled in later, and takes out
// versions that must not be shown. prefix is the path of the registry itself.
func rewrite(text []byte, prefix string, show func(published time.Time) bool) (rewritten, error) {
	var result rewritten
	var versions map[string]object
	times := object{}
	doc, err := parse(text)
	if err != nil {
		return result, err
	}
	if err := doc.read("versions", &versions); err != nil {
		return result, err
	}
	if err := doc.read("time", &times); err != nil {
		return result, err
	}
	kept := object{}
	for version, manifest := range versions {
		var dist object
		var tarball string
		if manifest.read("dist", &dist) != nil || dist.read("tarball", &tarball) != nil || dist["tarball"] == nil {
			continue // there is nothing that could be installed
		}
		path := tarballPath(tarball, prefix)
		if !show(times.time(version)) {
			delete(times, version)
			result.young = append(result.young, version, path)
			continue
		}
		quoted := quote(path)
		dist["tarball"] = append([]byte{'"', baseMark}, quoted[1:]...)
		manifest["dist"] = dist.encode()
		kept[version] = manifest.encode()
	}
	if len(result.young) > 0 {
		var tags map[string]string
		if err := doc.read("dist-tags", &tags); err != nil {
			return result, err
		}
		moveTags(tags, kept, result.young)
		doc["dist-tags"], _ = json.Marshal(tags) // strings have a form
		doc["time"] = times.encode()
	}
	if versions != nil {
		doc["versions"] = kept.encode()
	}
	result.text, result.shown = doc.encode(), len(kept)
	return result, nil
}

// noTarball is a path that every view refuses.
const noTarball = "/-/no-tarball"

// tarballPath returns the path under which a view shows a tarball. The host of its
// URL does not matter: tarballs are had from the registry, at their path.
func tarballPath(tarball, prefix string) string {
	u, err := url.Parse(tarball)
	if err != nil {
		return noTarball
	}
	path := u.EscapedPath()
	if rest, ok := strings.CutPrefix(path, prefix+"/"); ok {
		path = "/" + rest
	}
	t, ok := parseTarget(path)
	if !ok || t.file == "" {
		return noTarball
	}
	return t.tarball()
}

// moveTags drops tags whose version was taken out. latest moves to the highest
// release below it that is left.
func moveTags(tags map[string]string, kept object, young []string) {
	for tag, version := range tags {
		if !slices.Contains(young, version) {
			continue
		}
		delete(tags, tag)
		if tag != "latest" {
			continue
		}
		releases := slices.DeleteFunc(slices.Collect(maps.Keys(kept)), func(v string) bool {
			return isPrerelease(v) || compareVersions(v, version) > 0
		})
		if len(releases) > 0 {
			tags[tag] = slices.MaxFunc(releases, compareVersions)
		}
	}
}

func isPrerelease(version string) bool {
	core, _, _ := strings.Cut(version, "+")
	return strings.Contains(core, "-")
}

// compareVersions compares by major, minor and patch.
func compareVersions(a, b string) int { return slices.Compare(numbers(a), numbers(b)) }

func numbers(version string) []int {
	core := version[:len(version)-len(strings.TrimLeft(version, "0123456789."))]
	var list []int
	for part := range strings.SplitSeq(core, ".") {
		n, _ := strconv.Atoi(part)
		list = append(list, n)
	}
	return list
}

// dist returns what a kept packument says of a tarball, nil when it says nothing.
func (o object) dist(tarball string) (object, error) {
	var versions map[string]object
	if err := o.read("versions", &versions); err != nil {
		return nil, err
	}
	for _, manifest := range versions {
		var dist object
		var path string
		if err := cmp.Or(manifest.read("dist", &dist), dist.read("tarball", &path)); err != nil {
			return nil, err
		}
		if path == tarball {
			return dist, nil
		}
	}
	return nil, nil
}

// sha512 returns the hashes of that kind in a dist's integrity.
func (o object) sha512() []string {
	var integrity string
	if o.read("integrity", &integrity) != nil {
		return nil
	}
	var list []string
	for _, hash := range strings.Fields(integrity) {
		hash, _, _ = strings.Cut(hash, "?") // options
		if strings.HasPrefix(hash, "sha512-") {
			list = append(list, hash)
		}
	}
	return list
}

// version returns the manifest of a version, or of the one that a tag names.
func (o object) version(name string) ([]byte, error) {
	var versions object
	var tags map[string]string
	if err := cmp.Or(o.read("versions", &versions), o.read("dist-tags", &tags)); err != nil {
		return nil, err
	}
	if tagged, ok := tags[name]; ok {
		name = tagged
	}
	if manifest, ok := versions[name]; ok {
		return manifest, nil
	}
	return nil, errNotFound
}

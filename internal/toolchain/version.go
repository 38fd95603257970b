package toolchain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// lines are the release lines of Node.js with long-term support: their names and
// major versions.
var lines = map[string]uint64{
	"argon": 4, "boron": 6, "carbon": 8, "dubnium": 10, "erbium": 12, "fermium": 14, "gallium": 16,
	"hydrogen": 18, "iron": 20, "jod": 22, "krypton": 24, "lithium": 26,
}

// wish is what a tree wants: a range as npm reads them, or a word of nvm's.
type wish struct {
	fits func(*semver.Version) bool
	// newest says that of what fits only the newest will do, so that nobody can
	// tell without knowing all versions.
	newest bool
}

// readWish reads a range, a bare major version, lts/*, lts/iron, node or latest.
func readWish(text string) (wish, error) {
	text = strings.TrimSpace(text)
	name, isLine := strings.CutPrefix(text, "lts/")
	switch {
	case text == "node" || text == "latest" || text == "current":
		return wish{func(*semver.Version) bool { return true }, true}, nil
	case text == "lts" || isLine && name == "*":
		return wish{isLTS, true}, nil
	case isLine && lines[name] != 0:
		return wish{fits: func(v *semver.Version) bool { return v.Major() == lines[name] }}, nil
	}
	constraint, err := semver.NewConstraint(text)
	if err != nil {
		return wish{}, fmt.Errorf("%w: %q", ErrUnreadable, text)
	}
	return wish{fits: constraint.Check}, nil
}

func isLTS(v *semver.Version) bool {
	for _, major := range lines {
		if v.Major() == major {
			return true
		}
	}
	return false
}

// choose returns the newest of these versions that fits; of ranges over several
// release lines one with long-term support before others. It is "" when none does.
func (w wish) choose(versions []string) string {
	var fitting []*semver.Version
	for _, text := range versions {
		v, err := semver.StrictNewVersion(text)
		if err == nil && v.Prerelease() == "" && v.Metadata() == "" && w.fits(v) {
			fitting = append(fitting, v)
		}
	}
	if len(fitting) == 0 {
		return ""
	}
	return slices.MaxFunc(fitting, func(a, b *semver.Version) int {
		if long := isLTS(a); !w.newest && long != isLTS(b) {
			if long {
				return 1
			}
			return -1
		}
		return a.Compare(b)
	}).String()
}

// runsOn reports whether a range of engines.node has a version.
func runsOn(engines, node string) bool {
	constraint, err := semver.NewConstraint(engines)
	version, bad := semver.NewVersion(node)
	return err == nil && bad == nil && constraint.Check(version)
}

// majorOf returns 0 for what is no version.
func majorOf(version string) uint64 {
	v, err := semver.NewVersion(version)
	if err != nil {
		return 0
	}
	return v.Major()
}

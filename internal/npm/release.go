package npm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ErrUnreachable says that the registry could not be asked, or has not answered well.
var ErrUnreachable = errors.New("the registry cannot be reached")

// Release is a version of a package, for the server's own use.
type Release struct {
	Name, Version string
	Node          string // engines.node: what it runs on
	Integrity     string // sha512-…
	tarball       string // path
}

// Releases lists the versions of a package that builds may have: none of one that
// is blocked, too young or not there. It returns ErrUnreachable when nobody knows.
func (m *Mirror) Releases(ctx context.Context, name string) ([]Release, error) {
	if slices.Contains(m.cfg.Block, name) {
		return nil, nil
	}
	var list []Release
	err := wait(ctx, func() (err error) {
		list, err = m.releases(name)
		return err
	})
	return list, asked(ctx, err)
}

func (m *Mirror) releases(name string) ([]Release, error) {
	kept, err := m.packument(name, abbreviated)
	if err != nil {
		return nil, err
	}
	defer kept.close()
	doc, err := m.parse(kept, "")
	if err != nil {
		return nil, err
	}
	var versions map[string]object
	if err := doc.read("versions", &versions); err != nil {
		return nil, err
	}
	var list []Release
	for version, manifest := range versions {
		var engines struct{ Node string }
		_ = manifest.read("engines", &engines) // old packages have a list there
		var dist object
		var path string
		if manifest.read("dist", &dist) != nil || dist.read("tarball", &path) != nil {
			continue
		}
		list = append(list, Release{Name: name, Version: version, Node: engines.Node, Integrity: strings.Join(dist.sha512(), " "), tarball: path})
	}
	return list, nil
}

// Open returns a release's tarball, once all of it is there and right. The caller
// closes it.
func (m *Mirror) Open(ctx context.Context, r Release) (io.ReadCloser, error) {
	t, ok := parseTarget(r.tarball)
	if !ok || t.file == "" || r.Integrity == "" {
		return nil, fmt.Errorf("cannot fetch %s@%s: the registry does not say what it is", r.Name, r.Version)
	}
	opened := make(chan *entry, 1) // nobody takes it when ctx ends first: then its file is closed with the rest
	err := wait(ctx, func() error {
		kept, _, err := m.tarball(t)
		if err == nil {
			opened <- kept
		}
		return err
	})
	var denied *denial
	if errors.As(err, &denied) {
		return nil, fmt.Errorf("cannot fetch %s@%s: %w", r.Name, r.Version, err)
	}
	if err != nil {
		return nil, asked(ctx, err)
	}
	kept := <-opened
	if !slices.Contains(strings.Fields(r.Integrity), kept.Integrity) {
		kept.close()
		return nil, fmt.Errorf("cannot use %s@%s: what is kept of it is another", r.Name, r.Version)
	}
	return struct {
		io.Reader
		io.Closer
	}{kept.body, kept.file}, nil
}

// asked tells an answer of the registry, that there is nothing, from none.
func asked(ctx context.Context, err error) error {
	var denied *denial
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil, errors.As(err, &denied):
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// wait returns when load does, or when ctx ends; then load goes on for others.
func wait(ctx context.Context, load func() error) error {
	done := make(chan error, 1)
	go func() { done <- load() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Newest returns the newest of these releases of a version: an exact one, a major
// or minor one, or any.
func Newest(list []Release, version string) (newest Release, ok bool) {
	for _, r := range list {
		if r.Version == version {
			return r, true
		}
		if isPrerelease(r.Version) || version != "" && !strings.HasPrefix(r.Version, version+".") {
			continue
		}
		if !ok || compareVersions(r.Version, newest.Version) > 0 {
			newest, ok = r, true
		}
	}
	return newest, ok
}

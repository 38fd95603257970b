package runner

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/previewd/previewd"
)

// keptPackages are packages that an earlier build has installed, or this one. They
// stay where they are until it is over.
type keptPackages struct {
	key, modules string
	info         modulesInfo
	release      func()
}

// useKept notes that the build uses them; what it has installed itself is no hit.
func (j *job) useKept() {
	if j.cache == "" {
		j.cache = "hit"
		for _, p := range j.kept.info.Packages {
			p.Cached = true
			j.addPackages(p)
		}
	}
	j.log.printf("packages: as they were installed before, which took %.1f s", j.kept.info.Took.Seconds())
}

// saved is how long the packages took to install that an earlier build has installed.
func (j *job) saved() time.Duration {
	if j.cache != "hit" {
		return 0
	}
	return j.kept.info.Took
}

// takeKept returns the node_modules of what was installed before; "" when it was not.
func (j *job) takeKept(with *Sandbox, want *wanted) (modules string) {
	if j.kept.key == want.key {
		want.scripts = j.kept.info.Scripts
		return j.kept.modules
	}
	modules, info, release, ok := with.Modules.take(want.key)
	if ok {
		if j.kept.release != nil {
			j.kept.release() // those of another Node.js
		}
		j.kept = keptPackages{want.key, modules, info, release}
		want.scripts = info.Scripts
	}
	return modules
}

// findKept looks for packages before anything of the tree is understood, so that
// the child that reads it can bundle it at once. A tree that does not even name
// Vite does not wait for a sandbox.
func (j *job) findKept(ctx context.Context) (modules string) {
	manifest, err := readLimited(j.sourceRoot.FS(), "package.json", maxJSONFile)
	if err != nil || !bytes.Contains(manifest, []byte(`"vite"`)) {
		return ""
	}
	for _, lockfile := range []string{"npm-shrinkwrap.json", "package-lock.json"} { // as npm prefers them
		if _, err := j.sourceRoot.Stat(lockfile); err != nil {
			continue
		}
		with, err := j.Sandbox(ctx)
		if err != nil {
			return "" // who needs it asks again
		}
		if want := j.locked(with, npmKeeper, lockfile); want != nil {
			return j.takeKept(with, want)
		}
		return ""
	}
	return ""
}

// read has the child read the tree and, if nothing of it has to be run, make the
// site. A bundler that dies of a tree with packages leaves it to the tree's own build.
func (j *job) read(ctx context.Context, modules string) error {
	if modules == "" {
		return j.runChild(ctx, "")
	}
	err := j.runChild(ctx, filepath.Dir(modules))
	var failed *failedError
	if errors.As(err, &failed) && failed.Code == previewd.FailBundlerCrashed {
		if err = j.runChild(ctx, ""); err == nil {
			j.result.Aside = "the bundler died of its source"
		}
	}
	return err
}

// bundle installs the packages that the lockfile names and has the bundler make
// the site, if the plan lets it. It reports false when the tree's own build must.
func (p *packagesBuild) bundle(ctx context.Context) (done bool, err error) {
	if !p.plan.Bundle.OK || p.result.Aside != "" {
		return false, nil
	}
	want := p.keepable(ctx)
	if want == nil {
		p.result.Aside = "its packages are not the same wherever they are installed"
		return false, nil
	}
	modules := p.takeKept(p.with, want) // since the child first looked another build may have kept them
	if modules == "" {
		if modules, err = p.installKept(ctx, want); err != nil {
			return false, err
		}
	} else {
		p.useKept()
	}
	if modules == "" {
		p.notKept, p.result.Aside = true, "its packages could not be kept"
		return false, nil
	}
	err = p.read(ctx, modules)
	return err == nil && p.result.Plan == nil, err
}

// installKept installs packages, keeps them and returns their node_modules; "" when
// they cannot be kept.
func (p *packagesBuild) installKept(ctx context.Context, want *wanted) (modules string, err error) {
	if err := p.start(ctx, previewd.StepInstall); err != nil {
		return "", err
	}
	p.cache = "miss"
	_, err = p.installToKeep(ctx, want)
	p.keep()
	p.keep = func() {}
	if p.box != nil {
		p.box.Close()
		p.box = nil
	}
	if err != nil {
		return "", err
	}
	return p.takeKept(p.with, want), nil
}

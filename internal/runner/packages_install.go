package runner

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/telemetry"
)

// install opens the sandbox and installs packages: kept ones if the same were
// installed before; else, if they can be kept, where nothing of the tree is but
// its manifest and lockfile; else with the whole tree.
func (p *packagesBuild) install(ctx context.Context) error {
	source, err := p.Artifacts.Open(ctx, p.claim.Source)
	if err != nil {
		return fmt.Errorf("cannot open the source: %w", err)
	}
	defer source.Close()
	if len(p.plan.Install.Argv) > 0 {
		if err := p.start(ctx, previewd.StepInstall); err != nil {
			return err
		}
	}
	if err := p.chooseNode(ctx); err != nil {
		return err
	}
	if len(p.plan.Install.Argv) == 0 {
		return p.open(ctx, source, "")
	}
	want := p.keepable(ctx)
	if want == nil {
		if err := p.open(ctx, source, ""); err != nil {
			return err
		}
		return p.installHere(ctx)
	}
	if dir := p.takeKept(p.with, want); dir != "" {
		p.useKept()
		if err := p.open(ctx, source, dir); err != nil {
			return err
		}
		return p.runScripts(ctx, want)
	}
	p.cache = "miss"
	kept, err := p.installToKeep(ctx, want)
	if err != nil {
		return err
	}
	if kept {
		if err := p.box.Unpack(ctx, source); err != nil {
			return p.setupError(ctx, "cannot lay out the source", err)
		}
		return p.runScripts(ctx, want)
	}
	p.box.Close()
	if err := p.open(ctx, source, ""); err != nil {
		return err
	}
	return p.installHere(ctx)
}

// installToKeep installs packages where no code of the tree is and none of theirs
// is run, and keeps them. It reports false when that does not work: with the
// whole tree it may, or the author is told why not.
func (p *packagesBuild) installToKeep(ctx context.Context, want *wanted) (bool, error) {
	var source bytes.Buffer
	if err := packText(&source, want.files); err != nil {
		return false, err
	}
	if err := p.open(ctx, &source, ""); err != nil {
		return false, err
	}
	began := time.Now()
	p.keeping = true
	failure, err := p.rewriteLockfile(ctx)
	if err == nil && failure == nil {
		failure, err = p.command(ctx, want.by.install)
	}
	p.keeping = false
	if err != nil || failure != nil {
		return false, err
	}
	p.tellFetched()
	// npm does without an optional package that it cannot get: this time only.
	if len(p.view.Refused()) == 0 {
		p.keep = p.keepModules(ctx, want, time.Since(began))
	} else {
		want.scripts = true // nobody has looked
	}
	return true, nil
}

func packText(w io.Writer, files map[string]string) error {
	archive := tar.NewWriter(w)
	for name, text := range files {
		if err := archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}); err != nil {
			return err
		}
		if _, err := io.WriteString(archive, text); err != nil {
			return err
		}
	}
	return archive.Close()
}

// installHere installs packages in the tree. A lockfile that does not fit
// package.json is a slip that people make, and models more often: then versions
// are resolved anew.
func (p *packagesBuild) installHere(ctx context.Context) error {
	argv := p.plan.Install.Argv
	if failure, err := p.rewriteLockfile(ctx); err != nil || failure != nil {
		return errors.Join(err, asFailed(failure))
	}
	failure, err := p.command(ctx, argv)
	if lenient := lenientInstall(argv); failure != nil && failure.Code == previewd.FailLockfile && lenient != nil {
		p.log.printf("%s: the lockfile does not fit package.json, so versions are resolved anew", failure.Code)
		failure, err = p.command(ctx, lenient)
	}
	if err == nil && failure == nil {
		p.tellFetched()
	}
	return errors.Join(err, asFailed(failure))
}

// rewriteLockfile has yarn 1 fetch from the mirror: it fetches from where its
// lockfile says, whatever its registry is.
func (p *packagesBuild) rewriteLockfile(ctx context.Context) (*previewd.Failure, error) {
	m := p.plan.PackageManager
	if m.Variant != "classic" || m.Lockfile == "" {
		return nil, nil
	}
	here := `s#https?://[^/"]+/((@[^/"]+/)?[^/"]+/-/)#` + mirrorURL + `/\1#`
	return p.command(ctx, []string{"sed", "-i", "-E", here, m.Lockfile})
}

// lenientInstall returns the command that installs what a strict one refuses; nil
// for one that is not strict.
func lenientInstall(argv []string) []string {
	switch {
	case slices.Equal(argv, []string{"npm", "ci"}):
		return []string{"npm", "install"}
	case len(argv) == 3 && (argv[2] == "--frozen-lockfile" || argv[2] == "--immutable"):
		return []string{argv[0], argv[1], strings.Replace(argv[2], "--", "--no-", 1)}
	}
	return nil
}

func (p *packagesBuild) tellFetched() {
	list := packagesOf(p.view.Fetched())
	size, cached := int64(0), 0
	for _, p := range list {
		size += p.Bytes
		if p.Cached {
			cached++
		}
	}
	p.log.printf("fetched %d packages, %.1f MB, %d of them from the cache", len(list), float64(size)/1e6, cached)
}

// keepModules has the packages that were just installed kept for later builds. A
// build does not fail for it, unless a container has to be ended since its files do
// not come.
func (p *packagesBuild) keepModules(ctx context.Context, want *wanted, took time.Duration) (keep func()) {
	began := time.Now()
	files, err := p.box.Files(ctx)
	if err != nil {
		p.Log.WarnContext(ctx, "packages are not kept", telemetry.Error, err)
		want.scripts = true
		return func() {}
	}
	defer files.Close()
	copied, finish, err := p.with.Modules.copy(ctx, files, want.key, modulesInfo{Took: took, Packages: packagesOf(p.view.Fetched())})
	want.scripts = copied.Scripts || err != nil
	if err != nil {
		p.Log.WarnContext(ctx, "packages are not kept", telemetry.BuildID, p.claim.BuildID, telemetry.Error, err)
		return func() {}
	}
	p.log.printf("packages: kept for later builds in %d ms", time.Since(began).Milliseconds())
	return func() {
		if err := finish(); err != nil {
			p.Log.WarnContext(ctx, "packages are not kept", telemetry.BuildID, p.claim.BuildID, telemetry.Error, err)
		}
	}
}

package runner

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/npm"
	"github.com/previewd/previewd/internal/telemetry"
)

const maxLockfile = 16 << 20

// install opens the sandbox and installs packages: kept ones if the same were
// installed before; else, if they can be kept, where nothing of the tree is but
// its manifest and lockfile; else with the whole tree.
func (p *packagesBuild) install(ctx context.Context) error {
	source, err := p.Artifacts.Open(ctx, p.claim.Source)
	if err != nil {
		return fmt.Errorf("cannot open the source: %w", err)
	}
	defer source.Close()
	if len(p.plan.Install.Argv) == 0 {
		return p.open(ctx, source, "")
	}
	if err := p.start(ctx, previewd.StepInstall); err != nil {
		return err
	}
	want := p.keepable()
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
			return p.setupError("cannot lay out the source", err)
		}
		return p.runScripts(ctx, want)
	}
	p.box.Close()
	if err := p.open(ctx, source, ""); err != nil {
		return err
	}
	return p.installHere(ctx)
}

// wanted is what packages are installed from that can be kept.
type wanted struct {
	key   string // names them, and what installs them
	files map[string]string
}

// keepable returns what packages are installed from, if they are the same for
// every tree that has it; else nil.
func (p *packagesBuild) keepable() *wanted {
	m := p.plan.PackageManager
	if p.notKept || m.Name != "npm" || !slices.Equal(p.plan.Install.Argv, []string{"npm", "ci"}) || p.plan.Workspace.Root {
		return nil
	}
	return p.locked(p.with, m.Lockfile)
}

// locked returns what packages are installed from by a lockfile, if that means the
// same in every tree; else nil. It reads bytes and understands none of them.
func (j *job) locked(with *Sandbox, lockfile string) *wanted {
	if _, err := j.sourceRoot.Stat(".npmrc"); err == nil || with.Modules == nil {
		return nil // it may say anything
	}
	w := &wanted{files: map[string]string{}}
	sum := sha256.New()
	fmt.Fprintf(sum, "modules 2 %q %q %q %q %q\n", filepath.Base(with.Root), runtime.GOARCH, lockfile, with.Mirror.Registry(), with.Mirror.Rules())
	for _, name := range []string{"package.json", lockfile} {
		raw, err := readLimited(j.sourceRoot.FS(), name, maxLockfile)
		if err != nil || bytes.Contains(raw, []byte(`"link": true`)) || bytes.Contains(raw, []byte(`"file:`)) {
			return nil // parts of the tree are packages
		}
		fmt.Fprintf(sum, "%d\n%s", len(raw), raw)
		w.files[name] = string(raw)
	}
	w.key = hex.EncodeToString(sum.Sum(nil))
	return w
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
	failure, err := p.command(ctx, []string{"npm", "ci", "--ignore-scripts"})
	p.keeping = false
	if err != nil || failure != nil {
		return false, err
	}
	p.tellFetched()
	// npm does without an optional package that it cannot get: this time only.
	if len(p.view.Refused()) == 0 {
		p.keep = p.keepModules(ctx, want.key, time.Since(began))
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

// runScripts runs the install scripts that were left out so far: the packages',
// and the tree's own.
func (p *packagesBuild) runScripts(ctx context.Context, want *wanted) error {
	var commands [][]string
	if strings.Contains(want.files[p.plan.PackageManager.Lockfile], `"hasInstallScript": true`) {
		commands = append(commands, []string{"npm", "rebuild"})
	}
	for _, script := range []string{"preinstall", "install", "postinstall", "prepare"} { // npm-install(1)
		if strings.Contains(want.files["package.json"], `"`+script+`"`) {
			commands = append(commands, []string{"npm", "run", "--if-present", script})
		}
	}
	for _, argv := range commands {
		if failure, err := p.command(ctx, argv); err != nil || failure != nil {
			return errors.Join(err, asFailed(failure))
		}
	}
	return nil
}

// installHere installs packages in the tree. A lockfile that does not fit
// package.json is a slip that people make, and models more often: then versions
// are resolved anew.
func (p *packagesBuild) installHere(ctx context.Context) error {
	argv := p.plan.Install.Argv
	if m := p.plan.PackageManager; m.Variant == "classic" && m.Lockfile != "" {
		// Yarn 1 fetches from where its lockfile says, whatever its registry is.
		here := `s#https?://[^/"]+/((@[^/"]+/)?[^/"]+/-/)#` + mirrorURL + `/\1#`
		if failure, err := p.command(ctx, []string{"sed", "-i", "-E", here, m.Lockfile}); err != nil || failure != nil {
			return errors.Join(err, asFailed(failure))
		}
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

func (p *packagesBuild) tellFetched() { p.log.printf("%s", fetchedText(p.view.Fetched())) }

func fetchedText(list []npm.Fetch) string {
	var size int64
	packages, cached := 0, 0
	for _, f := range list {
		if f.Integrity == "" {
			continue // a list of versions
		}
		packages++
		size += f.Bytes
		if f.Cached {
			cached++
		}
	}
	return fmt.Sprintf("fetched %d packages, %.1f MB, %d of them from the cache", packages, float64(size)/1e6, cached)
}

// keepModules has the packages that were just installed kept for later builds. A
// build does not fail for it.
func (p *packagesBuild) keepModules(ctx context.Context, key string, took time.Duration) (keep func()) {
	began := time.Now()
	files, err := p.box.Files()
	if err != nil {
		p.Log.WarnContext(ctx, "packages are not kept", telemetry.Error, err)
		return func() {}
	}
	defer files.Close()
	finish, err := p.with.Modules.copy(ctx, files, key, modulesInfo{Took: took, Packages: packagesOf(p.view.Fetched())})
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

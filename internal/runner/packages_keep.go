package runner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/npm"
)

const maxLockfile = 16 << 20

// keeper is a package manager that installs the same from a manifest and a
// lockfile wherever that is, and without running anything.
type keeper struct {
	strict  string   // what a plan says that installs exactly what a lockfile names
	install []string // the same, with nothing run
	rebuild []string // runs what was left out of packages
	own     []string // runs a script of the tree's own, if it has it; nil when rebuild does
	scripts []string // those that an install runs
	refuses []string // files of a tree that would change what is installed, or run
	also    []string // files that are part of what is installed from
	link    *regexp.Regexp
}

var (
	ownScripts = []string{"preinstall", "install", "postinstall", "prepare"} // npm-install(1)
	runByNPM   = []string{"npm", "run", "--if-present"}
	rebuildNPM = []string{"npm", "rebuild"}

	// Parts of the tree that are packages, and code that makes one.
	localInYAML = regexp.MustCompile(`(?:^|[\s"'@])(?:file|link|portal|exec):|configDependencies`)

	npmKeeper = &keeper{
		strict: "npm ci", install: []string{"npm", "ci", "--ignore-scripts"}, rebuild: rebuildNPM, own: runByNPM, scripts: ownScripts,
		link: regexp.MustCompile(`"link": true|"file:`),
	}
	pnpmKeeper = &keeper{
		strict: "pnpm install --frozen-lockfile", install: []string{"pnpm", "install", "--frozen-lockfile", "--ignore-scripts", "--ignore-pnpmfile"},
		rebuild: []string{"pnpm", "rebuild"}, scripts: ownScripts,
		refuses: []string{".pnpmfile.cjs", ".pnpmfile.mjs", "pnpmfile.js", "patches"}, also: []string{"pnpm-workspace.yaml"}, link: localInYAML,
	}
	yarnKeeper = &keeper{
		strict: "yarn install --frozen-lockfile", install: []string{"yarn", "install", "--frozen-lockfile", "--ignore-scripts"},
		rebuild: rebuildNPM, own: runByNPM, scripts: ownScripts, refuses: []string{".yarnrc", ".yarnrc.yml"}, link: localInYAML,
	}
	berryKeeper = &keeper{
		strict: "yarn install --immutable", install: []string{"yarn", "install", "--immutable", "--mode=skip-build"},
		rebuild: rebuildNPM, own: runByNPM, scripts: ownScripts[:3], also: []string{".yarnrc.yml"}, link: localInYAML,
	}
	bunKeeper = &keeper{
		strict: "bun install --frozen-lockfile", install: []string{"bun", "install", "--frozen-lockfile", "--ignore-scripts"},
		rebuild: rebuildNPM, own: runByNPM, scripts: ownScripts, refuses: []string{"bunfig.toml", "bun.lockb"}, link: localInYAML,
	}
)

func keeperOf(m previewd.PlanPackageManager) *keeper {
	switch {
	case m.Name == "pnpm":
		return pnpmKeeper
	case m.Name == "yarn" && m.Variant == "berry":
		return berryKeeper
	case m.Name == "yarn":
		return yarnKeeper
	case m.Name == "bun":
		return bunKeeper
	}
	return npmKeeper
}

// wanted is what packages are installed from that can be kept.
type wanted struct {
	by      *keeper
	key     string // names them, and what installs them
	files   map[string]string
	scripts bool // a package may have one that runs when it is installed
}

// keepable returns what packages are installed from, if they are the same for
// every tree that has it; else nil. A package manager whose version is not told
// exactly becomes the newest that is meant: it is part of what they are.
func (p *packagesBuild) keepable(ctx context.Context) *wanted {
	m := &p.plan.PackageManager
	by := keeperOf(*m)
	if p.notKept || m.Lockfile == "" || strings.Join(p.plan.Install.Argv, " ") != by.strict || p.plan.Workspace.Root || !p.exactManager(ctx) {
		return nil
	}
	if by == npmKeeper {
		return p.locked(p.with, by, m.Lockfile)
	}
	return p.locked(p.with, by, m.Lockfile, p.managerSpec())
}

// locked returns what packages are installed from by a lockfile, if that means the
// same in every tree; else nil. It reads bytes and understands next to none of them.
// besides is what else tells packages apart.
func (j *job) locked(with *Sandbox, by *keeper, lockfile string, besides ...string) *wanted {
	if with.Modules == nil {
		return nil
	}
	for _, name := range append([]string{".npmrc"}, by.refuses...) { // they may say anything
		if _, err := j.sourceRoot.Lstat(name); err == nil {
			return nil
		}
	}
	w := &wanted{by: by, files: map[string]string{}}
	sum := sha256.New()
	fmt.Fprintf(sum, "modules 3 %q %q %q %q %q %q\n", filepath.Base(with.Root), runtime.GOARCH, lockfile, with.Mirror.Registry(), with.Mirror.Rules(), besides)
	for i, name := range append([]string{"package.json", lockfile}, by.also...) {
		raw, err := readLimited(j.sourceRoot.FS(), name, maxLockfile)
		if err != nil && i > 1 {
			continue
		}
		if err != nil || by.link.Match(raw) {
			return nil // parts of the tree are packages
		}
		if name == ".yarnrc.yml" && !plainYarnrc(raw) {
			return nil
		}
		fmt.Fprintf(sum, "%q %d\n%s", name, len(raw), raw)
		w.files[name] = string(raw)
	}
	if by == berryKeeper {
		if w.files[".yarnrc.yml"] == "" {
			return nil // without it nothing gets into node_modules
		}
		w.files[".yarnrc.yml"] = "nodeLinker: node-modules\n" // yarnPath is a program of the tree
	}
	w.key = hex.EncodeToString(sum.Sum(nil))
	return w
}

// exactManager makes the version of the package manager an exact one. It reports
// false when nobody knows which one is meant.
func (p *packagesBuild) exactManager(ctx context.Context) bool {
	m := &p.plan.PackageManager
	if m.Name == "npm" || strings.Count(m.Version, ".") == 2 {
		return true
	}
	name, version := splitSpec(p.managerSpec())
	releases, err := p.with.Mirror.Releases(ctx, name)
	if err != nil {
		return false
	}
	newest, ok := npm.Newest(releases, version)
	m.Version = newest.Version
	return ok
}

// runScripts runs the install scripts that were left out so far: the packages',
// and the tree's own.
func (p *packagesBuild) runScripts(ctx context.Context, want *wanted) error {
	by := want.by
	var commands [][]string
	if by == npmKeeper {
		want.scripts = strings.Contains(want.files[p.plan.PackageManager.Lockfile], `"hasInstallScript": true`)
	}
	for _, script := range by.scripts {
		switch {
		case !strings.Contains(want.files["package.json"], `"`+script+`"`):
		case by.own == nil:
			want.scripts = true
		default:
			commands = append(commands, append(slices.Clone(by.own), script))
		}
	}
	if want.scripts {
		commands = slices.Insert(commands, 0, by.rebuild)
	}
	for _, argv := range commands {
		failure, err := p.command(ctx, argv)
		if by == bunKeeper && failure != nil && slices.Equal(argv, by.rebuild) {
			p.log.printf("bun runs few install scripts, so the build goes on without this one")
			failure = nil
		}
		if err != nil || failure != nil {
			return errors.Join(err, asFailed(failure))
		}
	}
	return nil
}

// plainYarnrc reports whether yarn installs into node_modules, and nothing that it is
// told besides changes what.
func plainYarnrc(raw []byte) bool {
	linker := false
	for line := range bytes.Lines(raw) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		switch name {
		case "", "yarnPath", "enableTelemetry", "enableGlobalCache", "compressionLevel", "enableProgressBars", "enableColors":
		case "nodeLinker":
			linker = strings.Trim(value, ` "'`) == "node-modules"
		default:
			return false
		}
	}
	return linker
}

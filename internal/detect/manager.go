package detect

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/previewd/previewd"
)

const (
	npm  = "npm"
	pnpm = "pnpm"
	yarn = "yarn"
	bun  = "bun"

	berry   = "berry"   // yarn 2 and newer
	classic = "classic" // yarn 1

	managersKnown = `Known are npm, pnpm, yarn and bun, perhaps with a version: "pnpm@9.15.0".`
)

// lockfiles, with who writes them. The first that is there wins when nothing
// else decides: package-lock.json is last, for npm writes one wherever somebody
// runs it by habit.
var lockfiles = []lockfile{
	{"pnpm-lock.yaml", pnpm}, {"bun.lock", bun}, {"bun.lockb", bun}, {"yarn.lock", yarn},
	{"npm-shrinkwrap.json", npm}, {"package-lock.json", npm},
}

type lockfile struct{ file, manager string }

var managerText = regexp.MustCompile(`^(npm|pnpm|yarn|bun)(?:@(\d{1,5}(?:\.\d{1,5}){0,2}(?:-[0-9A-Za-z.-]{1,40})?)(?:\+[0-9A-Za-z.-]{1,200})?)?$`)

// parseManager reads name or name@version, with or without corepack's hash.
func parseManager(text string) (name, version string, ok bool) {
	m := managerText.FindStringSubmatch(text)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// packageManager decides what installs packages: an override, what package.json
// declares, the lockfile, else npm.
func (d *detector) packageManager() {
	p := &d.plan.PackageManager
	present := d.presentLockfiles()
	declared := d.declaredManager()
	switch {
	case declared.name != "":
		p.Name, p.Version, p.From = declared.name, declared.version, declared.file
		p.Reason = fmt.Sprintf("%s names %s.", declared.where, strings.TrimSuffix(p.Name+"@"+p.Version, "@"))
	case len(present) > 0:
		p.Name, p.From = present[0].manager, present[0].file
		p.Reason = fmt.Sprintf("%s is there.", present[0].file)
	default:
		p.Name, p.Reason = npm, "There is no lockfile, and package.json names no package manager."
	}
	others := false
	for _, lock := range present {
		switch {
		case lock.manager != p.Name:
			others = true
			d.note("%s is not read, for %s installs. Remove it, or set packageManager in package.json to %s.", lock.file, p.Name, lock.manager)
		case p.Lockfile == "":
			p.Lockfile = lock.file
		default:
			d.note("%s is not read: %s has the same purpose.", lock.file, p.Lockfile)
		}
	}
	switch {
	case p.Lockfile == "" && others:
		p.Reason += " Its lockfile is missing, so versions are resolved anew."
	case declared.name == "" && others:
		p.Reason += " Of several lockfiles pnpm's, bun's, yarn's and npm's win in this order, for npm writes one wherever it is run by habit."
	}
	d.lockfileVersion()
}

func (d *detector) presentLockfiles() []lockfile {
	var present []lockfile
	for _, lock := range lockfiles {
		if d.tree.isFile(lock.file) {
			present = append(present, lock)
		} else if _, err := d.tree.lstat(lock.file); err == nil {
			d.note("%s is no regular file and is not read: links are not followed.", lock.file)
		}
	}
	return present
}

// declaration is a package manager that somebody names.
type declaration struct{ name, version, file, where string }

func (d *detector) declaredManager() declaration {
	if text := d.config.PackageManager; text != "" {
		name, version, _ := parseManager(text)
		return declaration{name, version, d.from["packageManager"], d.from["packageManager"]}
	}
	if d.pkg == nil {
		return declaration{}
	}
	text, where := textAt(d.pkg.value, "packageManager"), "packageManager of package.json"
	if text == "" {
		text, where = textAt(d.pkg.value, "devEngines", "packageManager", "name"), "devEngines of package.json"
	}
	if text != "" {
		name, version, ok := parseManager(text)
		if !ok {
			d.refuse(badConfig(manifestFile, fmt.Sprintf("%s names %q, which is no package manager that previewd knows.", where, clean(text, 60)), managersKnown))
		}
		return declaration{name, version, manifestFile, where}
	}
	for _, name := range []string{pnpm, yarn} {
		if version := textAt(d.pkg.value, "volta", name); version != "" {
			if _, version, ok := parseManager(name + "@" + version); ok {
				return declaration{name, version, manifestFile, "volta of package.json"}
			}
		}
	}
	return declaration{}
}

var (
	npmLockVersion   = regexp.MustCompile(`"lockfileVersion"\s*:\s*(\d{1,3})\b`)
	pnpmLockVersion  = regexp.MustCompile(`(?m)^lockfileVersion:\s*['"]?(\d{1,3}(?:\.\d{1,3})?)`)
	yarnLockVersion  = regexp.MustCompile(`(?m)^__metadata:\r?\n(?:  .*\r?\n)*?  version:\s*['"]?(\d{1,3})`)
	yarnClassic      = regexp.MustCompile(`(?m)^# yarn lockfile v1\b`)
	yarnOlderByLocks = map[string]string{"4": "2", "5": "3", "6": "3", "7": "4", "8": "4"}
	pnpmByLocks      = map[string]string{"5": "7", "6": "8", "9": "9"}
)

// lockfileVersion reads how the lockfile is written, and concludes which version
// of the package manager reads it.
func (d *detector) lockfileVersion() {
	p := &d.plan.PackageManager
	head, err := d.tree.head(p.Lockfile, maxHead)
	if p.Lockfile != "" && err != nil {
		d.note("%s cannot be read: %s.", p.Lockfile, clean(err.Error(), 100))
	}
	told := ""
	find := func(re *regexp.Regexp) {
		if m := re.FindSubmatch(head); m != nil {
			p.LockfileVersion = string(m[1])
		}
	}
	switch {
	case p.Name == yarn:
		find(yarnLockVersion)
		d.yarnVariant(yarnClassic.Match(head))
		told = yarnOlderByLocks[p.LockfileVersion]
	case p.Name == pnpm:
		find(pnpmLockVersion)
		told = pnpmByLocks[strings.SplitN(p.LockfileVersion, ".", 2)[0]]
	case p.Lockfile != "bun.lockb":
		find(npmLockVersion)
	}
	if p.Version == "" && told != "" {
		p.Version = told
		p.Reason += fmt.Sprintf(" Its version %s is what %s %s writes.", p.LockfileVersion, p.Name, told)
	}
	if len(bytes.TrimSpace(head)) > 0 && p.LockfileVersion == "" && p.Lockfile != "bun.lockb" {
		d.note("%s does not say in which version it is written.", p.Lockfile)
	}
}

// yarnVariant tells yarn 1 from what came after it: they share little but the name.
func (d *detector) yarnVariant(v1 bool) {
	p := &d.plan.PackageManager
	switch {
	case v1:
		p.Variant, p.LockfileVersion = classic, "1"
		p.Reason += " Its lockfile is of yarn 1."
	case p.LockfileVersion != "":
		p.Variant = berry
	case major(p.Version) == 1:
		p.Variant = classic
	case major(p.Version) > 1:
		p.Variant = berry
	case d.tree.isFile(".yarnrc.yml"):
		p.Variant = berry
		p.Reason += " .yarnrc.yml is of yarn 2 or newer."
	default:
		p.Variant = classic
		p.Reason += " Nothing says which yarn, so it is yarn 1."
		p.Unsure = true
	}
}

// installArgv returns the command that installs packages: exactly what a lockfile
// names when there is one.
func installArgv(p previewd.PlanPackageManager) []string {
	strict := p.Lockfile != ""
	choose := func(yes, no string) []string {
		if strict {
			return []string{p.Name, "install", yes}
		}
		return []string{p.Name, "install", no}
	}
	switch {
	case p.Name == npm && strict:
		return []string{npm, "ci"}
	case p.Name == pnpm:
		return choose("--frozen-lockfile", "--no-frozen-lockfile")
	case p.Name == yarn && p.Variant == berry:
		return choose("--immutable", "--no-immutable")
	case p.Name != npm && strict:
		return []string{p.Name, "install", "--frozen-lockfile"}
	}
	return []string{p.Name, "install"}
}

// execArgv returns the command that runs a program of the installed packages.
func execArgv(manager string, program []string) []string {
	switch manager {
	case npm:
		return append([]string{npm, "exec", "--no", "--"}, program...)
	case pnpm:
		return append([]string{pnpm, "exec"}, program...)
	}
	return append([]string{manager, "run"}, program...)
}

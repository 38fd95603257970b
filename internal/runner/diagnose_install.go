package runner

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/previewd/previewd"
)

var lockfileStale = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^.*can only install packages when your package\.json and package-lock\.json`),
	regexp.MustCompile(`(?m)^.*can only install with an existing package-lock\.json`),
	regexp.MustCompile(`(?m)^.*ERR_PNPM_OUTDATED_LOCKFILE`),
	regexp.MustCompile(`(?m)^.*ERR_PNPM_NO_LOCKFILE`),
	regexp.MustCompile(`(?m)^.*ERR_PNPM_LOCKFILE_CONFIG_MISMATCH`),
	regexp.MustCompile(`(?m)^.*[Tt]he lockfile would have been (?:modified|created) by this install`),
	regexp.MustCompile(`(?m)^.*Your lockfile needs to be updated`),
	regexp.MustCompile(`(?m)^.*lockfile had changes, but lockfile is frozen`),
}

// Which packages a stale lockfile is about.
var lockfileDifference = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^(?:Missing: (?P<name>\S+) from lock file|Invalid: lock file's (?P<other>\S+) does not satisfy (?P<want>\S+))$`),
	regexp.MustCompile(`(?m)^\* \d+ dependencies were (?:added|removed|mismatched): (?P<name>[^\n]{1,200})$`),
	regexp.MustCompile(`(?m)^YN0028: \+"?(?P<name>[^\s"]+@[^\s"]+?)"?:$`),
	regexp.MustCompile(`(?m)^note: dependencies in package\.json changed since \S+ was saved: (?P<name>\S+) was`),
}

func (d *diagnosis) lockfile() *previewd.Failure {
	found := d.find(lockfileStale...)
	if found == nil {
		return nil
	}
	manager, lockfile := d.manager()
	message := fmt.Sprintf("%s does not fit package.json", lockfile)
	if difference := d.find(lockfileDifference...); difference != nil {
		names := difference["name"] + difference["other"]
		message += ": they differ in " + clip(names, 200)
	}
	f := d.fail(previewd.FailLockfile, message+".",
		fmt.Sprintf("Run `%s install` and send the new %s along, or remove it from the tree.", manager, lockfile), found["rest"])
	f.File = lockfile
	return f
}

var (
	eresolve     = regexp.MustCompile(`(?m)^(?:code ERESOLVE|ERESOLVE (?:unable to resolve|could not resolve)[^\n]*)$`)
	peerWanted   = regexp.MustCompile(`(?m)^(?:Could not resolve dependency|Conflicting peer dependency): *\n(?:\w+ )*?(?P<want>\S+@"[^"\n]*") from (?P<who>\S+)$`)
	peerFound    = regexp.MustCompile(`(?m)^Found: (?P<found>\S+)$`)
	peerFoundTwo = regexp.MustCompile(`(?m)^While resolving: (?P<found>\S+)$`)
)

func (d *diagnosis) conflict() *previewd.Failure {
	found := d.find(eresolve)
	if found == nil {
		return nil
	}
	message := "Packages of package.json want different versions of the same package."
	want, has := d.find(peerWanted), d.find(peerFound, peerFoundTwo)
	rest := found["rest"]
	if want != nil && has != nil {
		message = fmt.Sprintf("%s needs %s, but %s is to be installed.", want["who"], strings.ReplaceAll(want["want"], `"`, ""), has["found"])
		rest = has["rest"]
	}
	f := d.fail(previewd.FailEresolve, message,
		"Change one of the two versions in package.json so that they fit, or add an .npmrc with legacy-peer-deps=true.", rest)
	f.File = "package.json"
	return f
}

// Groups: who wants it, the version of Node.js that was found and the one required.
var engineShapes = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^(?:notsup )?Not compatible with your version of node/npm: (?P<who>\S+)\n(?:notsup )?Required: \{[^\n]*?"node":"(?P<required>[^"\n]*)"[^\n]*\n(?:notsup )?Actual: +\{[^\n]*?"node":"(?P<found>[^"\n]*)"`),
	regexp.MustCompile(`(?m)^(?:ERR_PNPM_UNSUPPORTED_ENGINE|Your Node version is incompatible with "(?P<who>[^"\n]*)"\.\n+Expected version: (?P<required>[^\n]*)\nGot: (?P<found>\S+))`),
	regexp.MustCompile(`(?m)^error (?P<who>\S+): The engine "node" is incompatible with this module\. Expected version "(?P<required>[^"\n]*)"\. Got "(?P<found>[^"\n]*)"`),
	regexp.MustCompile(`(?m)^You are using Node\.js v?(?P<found>\d[\w.]*?)\. For (?P<who>Next\.js), Node\.js version "?(?P<required>[^"\n]+?)"? is required`),
	regexp.MustCompile(`(?m)^.*You are using Node\.js v?(?P<found>\d[\w.]*?)\. (?P<who>\w+) requires Node\.js version (?P<required>[^\n]+?)\. Please`),
	regexp.MustCompile(`(?m)^Node\.js v?(?P<found>\S+) is not supported by (?P<who>\w+)!?\n(?:[^\n]*supported version: "?(?P<required>[^"\n]*)"?)?`),
	regexp.MustCompile(`(?m)^Node\.js version v?(?P<found>\S+) detected\.\nThe (?P<who>[\w ]+) requires a minimum Node\.js version of v?(?P<required>[^\n]*?)\.?$`),
	regexp.MustCompile(`(?m)^SyntaxError: The requested module 'node:[^'\n]*' does not provide an export named [^\n]*$`),
}

var nodeVersion = regexp.MustCompile(`(?m)^Node\.js v(?P<found>\d[\w.]*)$`)

func (d *diagnosis) engine() *previewd.Failure {
	found := d.find(engineShapes...)
	if found == nil {
		return nil
	}
	who, version, required := found["who"], found["found"], found["required"]
	if version == "" {
		version = d.find(nodeVersion)["found"]
	}
	version = strings.TrimPrefix(version, "v")
	if who == "" {
		who = "A package"
	}
	if required == "" {
		required = "of another version"
	}
	message := fmt.Sprintf("%s needs Node.js %s", clip(who, 200), clip(required, 200))
	if version != "" {
		message += ", but it runs on " + clip(version, 60)
	}
	return d.fail(previewd.FailEngine, message+".",
		"Set engines.node in package.json to a version that the server has, or use a version of the package that runs on this one.", found["rest"])
}

// What package managers say of packages, and of versions, that do not exist.
var unavailableShapes = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^404 +The requested resource '(?P<gone>[^'\n]+)' could not be found`),
	regexp.MustCompile(`(?m)^404 +'(?P<gone>[^'\n]+)' is not in (?:this|the npm) registry`),
	regexp.MustCompile(`(?m)^notarget No matching version found for (?P<spec>[^\n]+?)\.$`),
	regexp.MustCompile(`(?m)^(?P<gone>\S+) is not in the npm registry, or you have no permission`),
	regexp.MustCompile(`(?m)^.*ERR_PNPM_NO_MATCHING_VERSION +No matching version found for (?P<spec>\S+)`),
	regexp.MustCompile(`(?m)^.*ERR_PNPM_FETCH_404 +GET \S*/(?P<gone>(?:@[^/\s]+(?:/|%2[fF]))?[^/\s]+): `),
	regexp.MustCompile(`(?m)^error Couldn't find package "(?P<gone>[^"\n]+)"`),
	regexp.MustCompile(`(?m)^error Couldn't find any versions for "(?P<spec>[^"\n]+)" that matches "(?P<wanted>[^"\n]+)"`),
	regexp.MustCompile(`(?m)^YN0035: (?P<gone>\S+?)@npm:\S+: Package not found`),
	regexp.MustCompile(`(?m)^YN0082: (?P<spec>\S+?)@npm:(?P<wanted>\S+): No candidates found`),
	regexp.MustCompile(`(?m)^error: No version matching "(?P<wanted>[^"\n]+)" found for specifier "(?P<spec>[^"\n]+)"`),
	regexp.MustCompile(`(?m)^error: (?:GET \S+ - 404\nerror: )?(?P<gone>\S+) failed to resolve$`),
}

func (d *diagnosis) unavailable() *previewd.Failure {
	found := d.find(unavailableShapes...)
	if found == nil {
		return nil
	}
	if found["gone"] != "" {
		return d.noPackage(found["gone"], found["rest"])
	}
	name, wanted := splitSpec(found["spec"])
	if found["wanted"] != "" {
		name, wanted = found["spec"], found["wanted"]
	}
	f := d.fail(previewd.FailDependencyUnavailable,
		fmt.Sprintf("No version of the package %q fits %s.%s", clip(name, 200), clip(wanted, 200), d.manifest.told(name)),
		"Change its version in package.json to one that is published.", found["rest"])
	f.File = "package.json"
	return f
}

// missingPackage tells of what the registry said when the output does not.
func (d *diagnosis) missingPackage() *previewd.Failure {
	if len(d.missing) == 0 {
		return nil
	}
	return d.noPackage(d.missing[0], d.unexplained().Excerpt)
}

func (d *diagnosis) noPackage(spec, rest string) *previewd.Failure {
	name, _ := splitSpec(spec)
	told := d.manifest.told(name)
	hint := "Correct its name in package.json, or remove it."
	if d.manifest.known && d.manifest.lists[name] == "" {
		told, hint = " package.json does not list it: another package wants it.", "Remove the package that wants it."
	}
	message := fmt.Sprintf("The registry has no package %q.%s", clip(name, 200), told)
	f := d.fail(previewd.FailDependencyUnavailable, message, hint, rest)
	f.File = "package.json"
	return f
}

// installedScript is a script that runs when a package is installed.
type installedScript struct{ name, command string }

var scriptShapes = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^path (?P<path>\S+)\ncommand failed\ncommand (?:sh -c )?(?P<command>[^\n]*)$`),
	regexp.MustCompile(`(?m)^error (?P<path>\S+): Command failed\.\nExit code: \d+\nCommand: (?P<command>[^\n]*)$`),
	regexp.MustCompile(`(?m)^YN0009: (?P<name>@?[^@\s]+)@\S+ couldn't be built`),
	regexp.MustCompile(`(?m)^error: (?P<command>\w+) script from "(?P<name>[^"\n]+)" exited with`),
	regexp.MustCompile(`(?m)^(?P<path>\S+) (?P<command>(?:pre|post)?install): Failed$`),
}

func (d *diagnosis) script() (installedScript, bool) {
	found := d.find(scriptShapes...)
	if found == nil {
		return installedScript{}, false
	}
	s := installedScript{found["name"], found["command"]}
	if _, inside, ok := strings.Cut("/"+found["path"], "/node_modules/"); ok {
		if i := strings.LastIndex(inside, "node_modules/"); i >= 0 {
			inside = inside[i+len("node_modules/"):]
		}
		s.name = packageName(path.Clean(inside))
	}
	if s.name == "" {
		s.name = "package.json"
	}
	return s, true
}

func (d *diagnosis) installScript() *previewd.Failure {
	s, ok := d.script()
	if !ok {
		return nil
	}
	f := d.unexplained()
	f.Message = fmt.Sprintf("The install script of %s failed.", clip(s.name, 200))
	if s.command != "" {
		f.Message = fmt.Sprintf("The install script of %s failed: %s", clip(s.name, 200), clip(s.command, 200))
	}
	f.Hint = "Use a version of the package that brings its files along, or a package that needs no compiler."
	if s.name == "package.json" {
		f.Hint = "Change or remove the script in package.json."
	}
	return f
}

// Package detect tells how a tree is built, and why. It reads text and runs nothing.
package detect

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/previewd/previewd"
)

// Options are what detection needs beside the tree.
type Options struct {
	// Request is metadata.build of the create request, as JSON. Nil: there is none.
	Request []byte
	// Choose says which runner takes a tree that needs no npm, and why, as it reads
	// on after "because". It gets the one that a configuration names, and where, or "".
	// Nil: that is left open.
	Choose func(named, from string) (runner, reason string, failure *previewd.Failure)
}

// Detect returns the plan of a tree. With a Failure the tree cannot be built, and
// the plan says what was found all the same.
func Detect(fsys fs.FS, options Options) *previewd.Plan {
	d := &detector{tree: &tree{fsys: fsys}, plan: &previewd.Plan{Notes: []string{}}, text: &sourceText{}, script: "build"}
	d.plan.Install.Argv, d.plan.Build.Argv = []string{}, []string{}
	if failure := d.read(options.Request); failure != nil {
		d.refuse(failure)
		d.leaveOpen()
		return d.plan
	}
	d.chooseFramework()
	if d.chooseNPM() {
		d.planNPM()
	} else {
		d.planFiles(options)
	}
	return d.plan
}

// detector is one detection.
type detector struct {
	tree      *tree
	plan      *previewd.Plan
	config    Config
	from      map[string]string // who set which member of the configuration
	pkg       *manifest
	hasPkg    bool
	framework *framework
	script    string      // the script of package.json that builds
	commands  []command   // that the build runs, as far as package.json tells
	file      string      // the framework's configuration
	text      *sourceText // what it says
	outBase   string      // what the output folder's name is relative to
}

const maxNotes = 20

func (d *detector) note(format string, args ...any) {
	if len(d.plan.Notes) < maxNotes {
		d.plan.Notes = append(d.plan.Notes, clean(fmt.Sprintf(format, args...), 500))
	}
}

// refuse says that the tree cannot be built. The first reason stays.
func (d *detector) refuse(failure *previewd.Failure) {
	if d.plan.Failure == nil {
		d.plan.Failure = failure
	}
}

// server refuses a tree that a server would have to render, unless its author
// says where static files are.
func (d *detector) server(file, message, hint string) {
	if d.config.Output != "" {
		d.note("%s %s says that %s is static all the same.", message, d.from["output"], d.config.Output)
		return
	}
	d.refuse(&previewd.Failure{
		Class: previewd.FailureUser, Code: previewd.FailSSRAdapter, Step: previewd.StepBuild, File: file,
		Message: clean(message, 500) + " Only static files are served here.",
		Hint:    clean(hint, 300) + fmt.Sprintf(` If the build writes static files anyway, name their folder in %s: {"output": "dist"}.`, ConfigFile),
	})
}

func (d *detector) read(request []byte) (failure *previewd.Failure) {
	if d.config, failure = ReadConfig(d.tree.fsys); failure != nil {
		return failure
	}
	d.from = map[string]string{}
	for _, name := range configMembers {
		d.from[name] = ConfigFile
	}
	if request != nil {
		over, failure := parseConfig(request, requestBuild, requestMembers)
		if failure != nil {
			return failure
		}
		d.override(over)
	}
	if d.pkg, failure = readManifest(d.tree, manifestFile); failure != nil {
		return failure
	}
	if d.hasPkg = d.pkg != nil; !d.hasPkg {
		d.pkg = &manifest{}
	}
	if len(d.pkg.doubles) > 0 {
		d.note("package.json says %s twice; the last one counts, as for npm.", oneOf(quoted(d.pkg.doubles), "and"))
	}
	return nil
}

// override lays what the request says over what the tree says.
func (d *detector) override(over Config) {
	set := func(name string, given bool, apply func()) {
		if given {
			d.from[name] = requestBuild
			apply()
		}
	}
	c := &d.config
	set("runner", over.Runner != "", func() {
		if c.Runner = over.Runner; c.files() {
			c.Build, c.Install = nil, nil
		}
	})
	set("framework", over.Framework != "", func() { c.Framework = over.Framework })
	set("packageManager", over.PackageManager != "", func() { c.PackageManager = over.PackageManager })
	set("install", over.Install != nil, func() { c.Install = over.Install })
	set("build", over.Build != nil, func() { c.Build, c.Runner = over.Build, "" })
	set("output", over.Output != "", func() { c.Output = over.Output })
	set("node", over.Node != "", func() { c.Node = over.Node })
	set("fallback", over.Fallback != nil, func() { c.Fallback = over.Fallback })
}

func quoted(names []string) []string {
	var list []string
	for _, name := range names {
		list = append(list, fmt.Sprintf("%q", clean(name, 60)))
	}
	return list
}

// leaveOpen says of every decision that it was not made.
func (d *detector) leaveOpen() {
	p := d.plan
	for _, why := range []*previewd.Why{&p.Runner.Why, &p.Framework.Why, &p.PackageManager.Why, &p.Install.Why, &p.Build.Why, &p.Output.Why, &p.Node.Why, &p.Fallback.Why, &p.Workspace.Why, &p.Bundle.Why} {
		if why.Reason == "" {
			why.Reason = "Not decided: the tree is refused before."
		}
	}
}

// chooseNPM decides whether packages and a build command are needed. It says what
// runner.choose says, and more only where that finds nothing to show.
func (d *detector) chooseNPM() bool {
	p := &d.plan.Runner
	p.Name = previewd.RunnerSandbox
	switch {
	case d.config.files():
		return false
	case d.config.Build != nil:
		p.Reason, p.From = d.from["build"]+" names a build command.", d.from["build"]
	case d.pkg.scripts["build"] != "":
		p.Reason, p.From = "package.json has a build script.", manifestFile
	case d.framework != nil && d.hasPkg && !d.tree.isFile("index.html"):
		p.Reason, p.From = fmt.Sprintf("package.json has no build script, but the tree is made with %s and has no index.html to show.", d.framework.title), manifestFile
	default:
		return false
	}
	return true
}

// planFiles plans a tree that is shown, or bundled, as it is.
func (d *detector) planFiles(options Options) {
	p := d.plan
	if d.config.Runner == previewd.RunnerSandbox {
		d.refuse(badConfig(d.from["runner"], d.from["runner"]+" names the runner sandbox, but nothing says which command builds.", `Name it: {"build": ["npm", "run", "build"]}, or leave runner out.`))
		d.leaveOpen()
		return
	}
	p.Bundle.Reason = "Packages are not looked at."
	p.Runner = previewd.PlanRunner{Name: d.config.Runner, Why: previewd.Why{Reason: "No command is needed; whether its modules need bundling was not looked at.", Unsure: true}}
	if d.config.Runner != "" {
		p.Runner.Why = previewd.Why{Reason: d.from["runner"] + " says so.", From: d.from["runner"]}
	}
	if options.Choose != nil {
		runner, reason, failure := options.Choose(d.config.Runner, d.from["runner"])
		p.Runner.Name, p.Runner.Unsure = runner, false
		if failure != nil {
			d.refuse(failure)
			p.Runner.Reason = clean(failure.Message, 300)
		} else if d.config.Runner == "" {
			p.Runner.Reason = "Chosen because " + clean(reason, 300) + "."
		}
	}
	none := "Nothing is installed and no command is run."
	p.PackageManager.Reason, p.Install.Reason, p.Build.Reason, p.Node.Reason = none, none, none, "No Node.js is needed."
	p.Workspace.Reason = "Packages are not looked at."
	p.Output.Reason = "The files are the site."
	switch p.Runner.Name {
	case previewd.RunnerStatic:
		p.Output.Path = "."
	case previewd.RunnerBundle:
		p.Output.Reason = "The bundler writes to a folder of its own."
	}
	if d.framework != nil {
		d.note("The tree is taken as it is, for package.json has no build script. To have %s build it, add one: %q.", d.framework.title, strings.Join(d.framework.command, " "))
		p.Framework.Reason += " It does not build this tree."
	}
	d.framework = nil // its single-page routes need its build
	d.fallback()
}

// planNPM plans a tree whose packages are installed and whose command is run.
func (d *detector) planNPM() {
	d.workspace()
	d.packageManager()
	if d.framework != nil {
		d.readFrameworkConfig()
		if d.framework.rule != nil {
			d.framework.rule(d)
		}
		d.basePath()
	}
	d.install()
	d.build()
	d.output()
	d.node()
	d.fallback()
	d.bundle()
}

func (d *detector) install() {
	p := &d.plan.Install
	manager := d.plan.PackageManager
	switch {
	case d.config.Install != nil:
		p.Argv, p.From = d.config.Install, d.from["install"]
		p.Reason = p.From + " says so."
	case !d.hasPkg:
		p.Reason = "There is no package.json, so there is nothing to install."
	case manager.Name == "":
		p.Reason = "The package manager is not known."
	case manager.Lockfile == "":
		p.Argv, p.Reason = installArgv(manager), "Without a lockfile, versions are resolved anew in each build that finds no cache."
	default:
		p.Argv, p.From = installArgv(manager), manager.Lockfile
		p.Reason = fmt.Sprintf("Exactly what %s names is installed.", manager.Lockfile)
	}
}

func (d *detector) build() {
	p := &d.plan.Build
	manager := d.plan.PackageManager.Name
	script := clean(d.pkg.scripts[d.script], 120)
	switch {
	case d.config.Build != nil:
		p.Argv, p.From = d.config.Build, d.from["build"]
		p.Reason = p.From + " says so."
	case manager == "":
		p.Reason = "The package manager is not known."
	case script != "":
		p.Argv, p.From = []string{manager, "run", d.script}, manifestFile
		p.Reason = strings.TrimSpace(fmt.Sprintf("package.json has the script %q: %s. %s", d.script, script, p.Reason))
	default: // chooseNPM: there is a framework
		p.Argv = execArgv(manager, d.framework.command)
		p.Reason = fmt.Sprintf("package.json has no build script; this is how %s builds.", d.framework.title)
	}
}

// output decides where the site is when the build is over.
func (d *detector) output() {
	p := &d.plan.Output
	switch {
	case d.config.Output != "":
		p.Path, p.From = d.config.Output, d.from["output"]
		p.Reason = p.From + " says so."
	case p.Reason != "": // the framework's rule knew
	case d.framework == nil:
		p.Reason, p.Unsure = "No known framework; the first of the usual folders is taken that the build makes with an index.html.", true
	default:
		d.frameworkOutput()
	}
	if p.Unsure {
		for _, name := range append([]string{p.Path}, "dist", "build", "out", "public", "_site", ".output/public") {
			if name != "" && !slices.Contains(p.Candidates, name) && (name == p.Path || !d.tree.isDir(name)) {
				p.Candidates = append(p.Candidates, name)
			}
		}
		if p.Path == "" && len(p.Candidates) > 0 {
			p.Path = p.Candidates[0]
		}
	}
	p.Path = clean(p.Path, 200)
	if p.Path != "" && d.tree.isDir(p.Path) {
		d.note("%s is in the tree already: what the build writes there takes its place.", p.Path)
	}
}

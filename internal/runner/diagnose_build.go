package runner

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/previewd/previewd"
)

// Package managers use one message for a script and for a program that is not there.
var (
	scriptMissing = []*regexp.Regexp{
		regexp.MustCompile(`(?m)^Missing script: "?(?P<name>[^"\n]+)"?$`),
		regexp.MustCompile(`(?m)^ ?ERR_PNPM_NO_SCRIPT +Missing script: (?P<name>[^\n]+)$`),
		regexp.MustCompile(`(?m)^Usage Error: Couldn't find a script named "(?P<name>[^"\n]+)"`),
	}
	programMissing = []*regexp.Regexp{
		regexp.MustCompile(`(?m)^\S*sh: (?:line )?(?:\d+: )?(?P<name>[^\s:]+): (?:command )?not found$`),
		regexp.MustCompile(`(?m)^command not found: (?P<name>\S+)$`),
		regexp.MustCompile(`(?m)^npx canceled due to missing packages and no YES option: \["(?P<spec>[^"\n]+)"`),
		regexp.MustCompile(`(?m)^ ?ERR_PNPM_RECURSIVE_EXEC_FIRST_FAIL +Command "(?P<name>[^"\n]+)" not found$`),
		regexp.MustCompile(`(?m)^.*\bspawn (?P<name>[\w@./-]+) ENOENT$`),
	}
	eitherMissing = []*regexp.Regexp{
		regexp.MustCompile(`(?m)^error Command "(?P<name>[^"\n]+)" not found\.$`),
		regexp.MustCompile(`(?m)^error: Script not found "(?P<name>[^"\n]+)"$`),
	}
)

func (d *diagnosis) missingScript() *previewd.Failure {
	found := d.find(scriptMissing...)
	if found == nil {
		found = d.find(eitherMissing...)
		if found == nil || d.runsProgram(found["name"]) {
			return nil
		}
	}
	f := d.fail(d.general(), fmt.Sprintf("package.json has no script %q.", clip(found["name"], 100)),
		"Add the script to package.json, or name another build command in previewd.json.", found["rest"])
	f.File = "package.json"
	return f
}

// runsProgram reports whether a name is of a package's program, as far as
// package.json and what is known of programs tell.
func (d *diagnosis) runsProgram(name string) bool {
	_, known := programs[name]
	return known || d.manifest.lists[name] != ""
}

func (d *diagnosis) missingProgram() *previewd.Failure {
	found := d.find(append(slices.Clone(programMissing), eitherMissing...)...)
	if found == nil {
		return nil
	}
	name := found["name"]
	if spec := found["spec"]; spec != "" {
		name, _ = splitSpec(spec)
	}
	if slices.Contains(ofTheServer, name) {
		return d.fail(d.general(), fmt.Sprintf("The command %q is not there: builds have Node.js and its package managers only.", name),
			"Change the build command so that it does without.", found["rest"])
	}
	from := programs[name]
	if from == "" {
		from = name
	}
	message := fmt.Sprintf("The command %q is not there: the package %s, which brings it, is not installed.%s",
		clip(name, 100), clip(from, 100), d.manifest.told(from))
	f := d.fail(d.general(), message, d.wanted(from), found["rest"])
	f.File = "package.json"
	return f
}

// ofTheServer are commands that no package brings.
var ofTheServer = []string{"git", "python", "python3", "make", "g++", "gcc", "docker", "php", "ruby", "go", "cargo", "java", "curl", "wget", "zip", "unzip", "npm", "pnpm", "yarn", "bun", "deno", "hugo"}

// programs maps a command to the package that brings it; a package's own name
// stands for itself.
var programs = map[string]string{
	"astro": "astro", "docusaurus": "@docusaurus/core", "eleventy": "@11ty/eleventy", "esbuild": "esbuild", "gatsby": "gatsby",
	"next": "next", "ng": "@angular/cli", "nuxi": "nuxt", "nuxt": "nuxt", "parcel": "parcel", "postcss": "postcss-cli",
	"qwik": "@builder.io/qwik", "react-router": "@react-router/dev", "react-scripts": "react-scripts", "remix": "@remix-run/dev",
	"rollup": "rollup", "rsbuild": "@rsbuild/core", "run-p": "npm-run-all", "run-s": "npm-run-all", "sass": "sass",
	"svelte-kit": "@sveltejs/kit", "svelte-check": "svelte-check", "tailwindcss": "@tailwindcss/cli", "tsc": "typescript",
	"tsup": "tsup", "tsx": "tsx", "vinxi": "vinxi", "vite": "vite", "vitepress": "vitepress", "vue-cli-service": "@vue/cli-service",
	"vue-tsc": "vue-tsc", "webpack": "webpack", "webpack-cli": "webpack-cli",
}

// Groups: what is imported (spec, or path when it is a file's), from which file or
// at the head of which stack of files, and where in it.
var moduleShapes = []shape{
	{re: regexp.MustCompile(`(?m)^.*(?:Rollup|Rolldown) failed to resolve import "(?P<spec>[^"\n]+)" from "(?P<file>[^"\n]+)"`)},
	{re: regexp.MustCompile(`(?m)^.*Failed to resolve import "(?P<spec>[^"\n]+)" from "(?P<file>[^"\n]+)"`)},
	{re: regexp.MustCompile(`(?m)^.*Could not resolve ["'](?P<spec>[^"'\n]+)["'] (?:from|in) "?(?P<file>[^"\n]+?)"?(?:\n[^\n]*\[ [^\n]*?:(?P<line>\d{1,7}):(?P<col>\d{1,7}) [^\n]*)?$`), first: 1},
	{re: regexp.MustCompile(`(?m)^.*\[ERROR\] Could not resolve "(?P<spec>[^"\n]+)"[^\n]*\n\s*(?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7}):$`)},
	{re: regexp.MustCompile(`(?m)^(?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7}): ERROR: Could not resolve "(?P<spec>[^"\n]+)"`)},
	{re: regexp.MustCompile(`(?m)^ERROR in (?P<file>\S+) (?P<line>\d{1,7}):(?P<col>\d{1,7})[-\d]*\nModule not found: (?:Error: )?Can't resolve '(?P<spec>[^'\n]+)'`)},
	{re: regexp.MustCompile(`(?m)^(?P<file>\./[^\n]+?)(?::(?P<line>\d{1,7}):(?P<col>\d{1,7}))?\n(?:Error: )?Module not found: (?:Error: )?Can't resolve '(?P<spec>[^'\n]+)'`), first: 1},
	{re: regexp.MustCompile(`(?m)^.*Can't resolve '(?P<spec>[^'\n]+)'`)},
	{re: regexp.MustCompile(`(?m)^\[UNLOADABLE_DEPENDENCY\] Could not load (?P<path>\S+)\n[^\n]*\[ (?P<file>[^\n]+?):(?P<line>\d{1,7}):(?P<col>\d{1,7}) \]$`), first: 1},
	{re: regexp.MustCompile(`(?m)^.*Could not load (?P<path>\S+) \(imported by (?P<file>[^\n)]+)\): (?:ENOENT|[^\n]*No such file)`)},
	{re: regexp.MustCompile(`(?m)^.*Cannot find (?:module|package) '(?P<spec>[^'\n]+)'(?: imported from '?(?P<file>[^\s']+)'?|\nRequire stack:\n- (?P<stack>[^\n]+))?`)},
}

// missingModule tells of an import that leads nowhere: to a package that is not
// installed, or to a file that is not there.
func (d *diagnosis) missingModule() *previewd.Failure {
	for _, s := range moduleShapes {
		found := d.find(s.re)
		if found == nil {
			continue
		}
		spec := found["spec"]
		if file := found["path"]; file != "" {
			spec = "./" + strings.TrimPrefix(file, "./")
		}
		f := d.notFound(spec, found["rest"])
		d.place(f, s, found)
		if f.Line == 0 {
			d.locate(f, spec)
		}
		return f
	}
	return nil
}

var typesMissing = regexp.MustCompile(`(?m)^(?P<file>\S[^\n]*?)[(:](?P<line>\d{1,7})[,:](?P<col>\d{1,7})\)?(?:: | - )error TS(?:2307|2792): Cannot find module '(?P<spec>[^'\n]+)'`)

// missingTypes tells of a package that TypeScript misses. It says so of packages
// without types too: those that package.json lists are a type error.
func (d *diagnosis) missingTypes() *previewd.Failure {
	for _, at := range typesMissing.FindAllStringSubmatchIndex(d.text, 50) {
		found := groups(typesMissing, d.text, at)
		if spec := found["spec"]; isPackage(spec) && d.manifest.lists[packageName(spec)] == "" {
			f := d.notFound(spec, found["rest"])
			d.place(f, shape{first: 1}, found)
			return f
		}
	}
	return nil
}

func (d *diagnosis) notFound(spec, rest string) *previewd.Failure {
	if !isPackage(spec) {
		return d.fail(previewd.FailBundle, fmt.Sprintf("Cannot find %q.", clip(spec, 300)),
			"Send the file along, or correct the import. Capital letters count in names of files.", rest)
	}
	name := packageName(spec)
	message := fmt.Sprintf("The package %q is not installed.%s", clip(name, 200), d.manifest.told(name))
	return d.fail(previewd.FailDependencyUnavailable, message, d.wanted(name), rest)
}

var npmName = regexp.MustCompile(`^(?:@[a-z0-9~][a-z0-9._~-]*/)?[a-z0-9~][a-zA-Z0-9._~-]*$`)

// isPackage tells the import of a package from one of a file: "./x", "/x", and
// "@/x", "~/x" and "#x", which aliases are for.
func isPackage(spec string) bool {
	return npmName.MatchString(packageName(spec)) && !strings.HasPrefix(spec, "~")
}

package detect

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/previewd/previewd"
)

// ConfigFile overrides, from the root of a tree, what detection finds.
const ConfigFile = "previewd.json"

// requestBuild is where a create request overrides; it wins over the tree.
const requestBuild = "metadata.build"

// Config is what a tree, or a request, says about its build. Zero members are
// left to detection.
type Config struct {
	Runner         string   // static, bundle or sandbox; "" chooses by the tree
	Framework      string   // a name of the table, or "none"
	PackageManager string   // npm, pnpm, yarn or bun, and perhaps @version
	Install, Build []string // argv; an Install that is not nil and empty installs nothing
	Output         string   // a folder of the tree
	Node           string   // a range
	Fallback       *string  // "" for none
}

var (
	configMembers  = []string{"runner", "framework", "packageManager", "install", "build", "output", "node", "fallback"}
	requestMembers = []string{"runner", "framework", "packageManager", "install", "build", "output", "node", "fallback", "env"}
)

// badConfig says what is wrong with a file, and what to do.
func badConfig(file, message, hint string) *previewd.Failure {
	return &previewd.Failure{
		Class: previewd.FailureUser, Code: previewd.FailBadConfig, Step: previewd.StepBuild,
		File: clean(file, 200), Message: clean(message, 500), Hint: clean(hint, 300),
	}
}

// files reports whether the files are to be taken as they are, without packages.
func (c Config) files() bool {
	return c.Runner == previewd.RunnerStatic || c.Runner == previewd.RunnerBundle
}

// ReadConfig reads previewd.json. A tree without one has an empty Config.
func ReadConfig(fsys fs.FS) (Config, *previewd.Failure) {
	raw, err := (&tree{fsys: fsys}).read(ConfigFile, maxManifest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Config{}, nil
	case err != nil:
		return Config{}, badConfig(ConfigFile, fmt.Sprintf("%s %v.", ConfigFile, err), "")
	}
	return parseConfig(raw, ConfigFile, configMembers)
}

// CheckRequest returns what is wrong with metadata.build of a request, so that it
// is refused and no build has to fail for it; nil when nothing is.
func CheckRequest(raw []byte) *previewd.Failure {
	_, failure := parseConfig(raw, requestBuild, requestMembers)
	return failure
}

// parseConfig reads the object of overrides that where names. Who writes one is
// told of every mistake: a name that is not known, or is there twice, means
// something that would not happen.
func parseConfig(raw []byte, where string, known []string) (Config, *previewd.Failure) {
	doc, err := parseJSON(raw)
	if err != nil {
		return Config{}, badConfig(where, fmt.Sprintf("%s is not valid: %v.", where, err), "")
	}
	object, ok := doc.value.(map[string]any)
	if !ok {
		return Config{}, badConfig(where, where+" must be an object.", knownText(known))
	}
	if len(doc.doubles) > 0 {
		return Config{}, badConfig(where, fmt.Sprintf("%s says %q twice.", where, clean(doc.doubles[0], 60)), "Keep one of them.")
	}
	var c Config
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if !slices.Contains(known, name) {
			return Config{}, badConfig(where, fmt.Sprintf("%s holds %q, which means nothing here.", where, clean(name, 60)), knownText(known))
		}
		if message, hint := c.set(name, object[name]); message != "" {
			return Config{}, badConfig(where, message, hint)
		}
	}
	if c.files() && (c.Build != nil || c.Install != nil) {
		return Config{}, badConfig(where, fmt.Sprintf("The runner %s installs nothing and runs no command.", c.Runner), "Remove either runner, or install and build.")
	}
	return c, nil
}

func knownText(known []string) string { return "Known are " + oneOf(known, "and") + "." }

// set takes one member, or says why not and what to do.
func (c *Config) set(name string, value any) (message, hint string) {
	if name == "install" || name == "build" {
		argv, message, hint := parseArgv(name, value)
		if name == "install" {
			c.Install = argv
		} else {
			c.Build = argv
		}
		return message, hint
	}
	if name == "env" {
		return "", "" // the worker's to check
	}
	if name == "fallback" && value == false {
		value = ""
	}
	text, ok := value.(string)
	if !ok {
		return name + " must be a string.", ""
	}
	switch name {
	case "runner":
		if text == "auto" {
			text = "" // what is done when nobody says anything
		}
		c.Runner = text
		if !slices.Contains([]string{"", previewd.RunnerStatic, previewd.RunnerBundle, previewd.RunnerSandbox}, text) {
			return fmt.Sprintf("runner %q is not known: it is auto, static, bundle or sandbox.", clean(text, 40)), ""
		}
	case "framework":
		c.Framework = text
		if text != noFramework && frameworkNamed(text) == nil {
			return fmt.Sprintf("framework %q is not known.", clean(text, 40)), knownText(append(frameworkNames(), noFramework))
		}
	case "packageManager":
		c.PackageManager = text
		if _, _, ok := parseManager(text); !ok {
			return fmt.Sprintf("packageManager %q is not known.", clean(text, 40)), managersKnown
		}
	case "output":
		var ok bool
		if c.Output, ok = inside("", text); !ok || c.Output == "." || path.Base(c.Output) == "node_modules" {
			return fmt.Sprintf("output %q is no folder of its own in the tree.", clean(text, 80)), `Name it as seen from the root, like {"output": "dist"}.`
		}
	case "node":
		c.Node = text
		if !isNodeRange(text) {
			return fmt.Sprintf("node %q is no version.", clean(text, 40)), `Say it like "22", ">=20.19" or "lts/*".`
		}
	case "fallback":
		text = strings.TrimPrefix(text, "/")
		if _, ok := inside("", text); text != "" && !ok {
			return fmt.Sprintf("fallback %q is no file of the output.", clean(text, 80)), `Say it like {"fallback": "index.html"}.`
		}
		c.Fallback = &text
	}
	return "", ""
}

const maxWords, maxWord = 64, 1024

// parseArgv reads a command. A string would need a shell to be read, and what a
// shell reads can be more than its author meant.
func parseArgv(name string, value any) (argv []string, message, hint string) {
	if text, ok := value.(string); ok {
		return nil, fmt.Sprintf("%s is a string; no shell reads it here.", name), argvHint(name, text)
	}
	list, ok := value.([]any)
	if !ok || len(list) > maxWords {
		return nil, fmt.Sprintf("%s must be a list of up to %d words.", name, maxWords), argvHint(name, "")
	}
	argv = []string{}
	for _, item := range list {
		word, ok := item.(string)
		if !ok || len(word) > maxWord || clean(word, maxWord) != word {
			return nil, fmt.Sprintf("Each word of %s must be a string of up to %d bytes, without control characters.", name, maxWord), ""
		}
		argv = append(argv, word)
	}
	if len(argv) == 0 {
		if name == "build" {
			return nil, "build is empty, so nothing would be built.", `Say {"runner": "static"} in ` + ConfigFile + ` to show the files as they are.`
		}
		return argv, "", ""
	}
	if _, ok := inside("", argv[0]); !ok {
		return nil, fmt.Sprintf("%s begins with %q, which is no program's name and no path in the tree.", name, clean(argv[0], 80)), ""
	}
	if shells.MatchString(path.Base(argv[0])) && slices.ContainsFunc(argv[1:], func(s string) bool { return shellFlag.MatchString(s) }) {
		return nil, fmt.Sprintf("%s hands a string to a shell.", name), argvHint(name, argv[len(argv)-1])
	}
	return argv, "", ""
}

var (
	shells    = regexp.MustCompile(`^(?i:(ba|da|z|k|a|fi)?sh|cmd(\.exe)?|powershell(\.exe)?|pwsh)$`)
	shellFlag = regexp.MustCompile(`^(?i:-[a-z]*c|/c|-command)$`)
)

// argvHint suggests the list of words that a shell's string means, if it means
// one command.
func argvHint(name, text string) string {
	if text == "" {
		return fmt.Sprintf(`Say it like {%q: ["npm", "run", %q]}.`, name, name)
	}
	commands := splitScript(text)
	if len(commands) != 1 || commands[0].unclear || len(commands[0].words) > 12 || len(commands[0].env) > 0 {
		return fmt.Sprintf(`Put it into a script of package.json, and run that: {%q: ["npm", "run", "preview-build"]}.`, name)
	}
	words := make([]string, 0, 12)
	for _, word := range commands[0].words {
		words = append(words, fmt.Sprintf("%q", clean(word, 60)))
	}
	return fmt.Sprintf("Write it as a list of words: {%q: [%s]}.", name, strings.Join(words, ", "))
}

// clean makes a stranger's text harmless to a terminal and a row, on one line
// and no longer than n bytes.
func clean(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		return previewd.Harmless(r)
	}, strings.ToValidUTF8(text, "�"))
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + "…"
}

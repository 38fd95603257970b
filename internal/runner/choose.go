package runner

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/detect"
)

const (
	runnerStatic = previewd.RunnerStatic
	runnerBundle = previewd.RunnerBundle
)

// Choose says which runner takes the tree in a folder, why, and whether none does.
// It parses strangers' source in this process: call it on a folder of one's own.
func Choose(dir string) (runner, reason string, failure *previewd.Failure) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", "", badConfig("", err.Error())
	}
	defer root.Close()
	tree, failure := readTree(root.FS())
	if failure != nil {
		return "", "", failure
	}
	c := choose(tree, func() string { return findBundlerNeed(tree, dir) })
	return c.Runner, c.Reason, c.Failure
}

// choice says which runner takes a tree and why. With a Failure no runner does.
type choice struct {
	Runner  string
	Reason  string // reads on after "because"
	Failure *previewd.Failure
}

// choose decides which runner takes a tree. The first rule that holds wins:
//
//  1. previewd.json has a build command: npm, which is not available yet.
//  2. package.json has a build script, and previewd.json names no runner: npm too.
//  3. No index.html at the root: nothing would answer at the preview's root.
//  4. previewd.json names a runner.
//  5. A page loads TypeScript or JSX as a module: bundle.
//  6. A module that a page loads needs a bundler, as need tells: bundle.
//  7. Otherwise browsers can run the files as they are: static.
func choose(t *sourceTree, need func() string) choice {
	if t.config.Build != nil {
		return choice{Failure: &previewd.Failure{
			Class: previewd.FailureUser, Code: previewd.FailRunnerUnavailable, Step: previewd.StepBuild, File: detect.ConfigFile,
			Message: "previewd.json has a build command, which needs the npm runner; this server has none yet.",
			Hint:    `Remove build, or set {"runner": "bundle"} to bundle the tree without npm, or {"runner": "static"} to serve it as it is.`,
		}}
	}
	if t.config.Runner == "" && t.buildScript != "" {
		return choice{Failure: &previewd.Failure{
			Class: previewd.FailureUser, Code: previewd.FailRunnerUnavailable, Step: previewd.StepBuild, File: "package.json",
			Message: fmt.Sprintf("package.json has a build script (%q), which needs the npm runner; this server has none yet.", clip(t.buildScript, 80)),
			Hint:    `Remove scripts.build, or add previewd.json with {"runner": "bundle"} to bundle the tree without npm, or {"runner": "static"} to serve it as it is.`,
		}}
	}
	if !t.has("index.html") {
		return choice{Failure: t.noIndex()}
	}
	if t.config.Runner != "" {
		return choice{Runner: t.config.Runner, Reason: detect.ConfigFile + " says so"}
	}
	for _, p := range t.pages {
		for _, s := range p.modules {
			if slices.Contains([]string{".ts", ".tsx", ".jsx", ".mts"}, path.Ext(stripQuery(s.src))) {
				return choice{Runner: runnerBundle, Reason: fmt.Sprintf("%s loads %s, which browsers cannot run as it is", p.path, clip(s.src, 200))}
			}
		}
	}
	if why := need(); why != "" {
		return choice{Runner: runnerBundle, Reason: why}
	}
	return choice{Runner: runnerStatic, Reason: "browsers can run its files as they are"}
}

func (t *sourceTree) noIndex() *previewd.Failure {
	f := &previewd.Failure{
		Class: previewd.FailureUser, Code: previewd.FailNoIndex, Step: previewd.StepBuild,
		Message: "The tree has no index.html at its root, so there is nothing to show.",
		Hint:    "Add an index.html.",
	}
	for _, p := range t.pages {
		if path.Base(p.path) == "index.html" {
			f.Hint = fmt.Sprintf("There is one at %s: send the files of %s/ instead.", p.path, path.Dir(p.path))
			break
		}
	}
	return f
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// stripQuery cuts what follows the path of a reference.
func stripQuery(ref string) string {
	if i := strings.IndexAny(ref, "?#"); i >= 0 {
		return ref[:i]
	}
	return ref
}

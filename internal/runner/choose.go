package runner

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/previewd/previewd"
)

const (
	runnerStatic = previewd.RunnerStatic
	runnerBundle = previewd.RunnerBundle
)

// Choose says which runner takes the tree in a folder, why, and whether none does;
// a configuration may have named one.
// It parses strangers' source in this process: call it on a folder of one's own.
func Choose(dir, named, from string) (runner, reason string, failure *previewd.Failure) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", "", badConfig("", err.Error())
	}
	defer root.Close()
	tree, failure := readTree(root.FS())
	if failure != nil {
		return "", "", failure
	}
	c := choose(tree, named, from, func() string { return findBundlerNeed(tree, dir) })
	return c.Runner, c.Reason, c.Failure
}

// choice says which runner takes a tree and why. With a Failure no runner does.
type choice struct {
	Runner  string
	Reason  string // reads on after "because"
	Failure *previewd.Failure
}

// choose decides which runner takes a tree of which no code is to run; package
// detect tells whether that is so. The first rule that holds wins:
//
//  1. No index.html at the root: nothing would answer at the preview's root.
//  2. previewd.json or the request names a runner.
//  3. A page loads TypeScript or JSX as a module: bundle.
//  4. A module that a page loads needs a bundler, as need tells: bundle.
//  5. Otherwise browsers can run the files as they are: static.
func choose(t *sourceTree, named, from string, need func() string) choice {
	if !t.has("index.html") {
		return choice{Failure: t.noIndex()}
	}
	if named != "" {
		return choice{Runner: named, Reason: from + " says so"}
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

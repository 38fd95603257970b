package runner

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/detect"
	"github.com/previewd/previewd/internal/sandbox"
)

// ChildArg is the hidden argument that makes the program a build's child.
const ChildArg = "build-child"

// childRequest is what the parent writes to the child's standard input.
type childRequest struct {
	Source string            // folder with the tree
	Out    string            // empty folder for the site
	Env    map[string]string // VITE_* of the build

	// Packages holds node_modules of what the tree's lockfile names; "" when that is
	// not installed.
	Packages  string          `json:",omitempty"`
	Overrides json.RawMessage `json:",omitempty"` // metadata.build
}

// childMessage is one line of the child's standard output: a line for the
// build's log, that it has begun to make the site, a source file large enough to
// be worth remembering, or at the end the result.
type childMessage struct {
	Log      string       `json:"log,omitempty"`
	Building bool         `json:"building,omitempty"`
	Large    string       `json:"large,omitempty"`
	Result   *childResult `json:"result,omitempty"`
}

// childResult is what became of a tree. The parent takes none of it on trust:
// it decides by it what to publish, never where from.
type childResult struct {
	Runner    string            `json:"runner"`
	Reason    string            `json:"reason"`
	Isolation string            `json:"isolation"`
	Failure   *previewd.Failure `json:"failure,omitempty"`
	Plan      *previewd.Plan    `json:"plan,omitempty"`      // the tree's own code makes the site, like this
	Aside     string            `json:"aside,omitempty"`     // why the bundler did not, although the plan lets it
	Built     bool              `json:"built"`               // the site is in Out, else the tree is the site
	Packages  bool              `json:"packages,omitempty"`  // and holds installed packages
	Immutable []string          `json:"immutable,omitempty"` // files whose names hold their hash
	Fallback  string            `json:"fallback,omitempty"`
}

// childStack bounds what deep nesting can take before the child dies of it.
const childStack = 64 << 20

// Child is the whole life of a build's child process: it confines itself, reads
// a request, works on the tree and writes the result. Strangers' source is
// parsed here and nowhere else: what kills this process kills one build.
func Child(stdin io.Reader, stdout io.Writer) (exitCode int) {
	debug.SetMaxStack(childStack)
	c := &child{out: bufio.NewWriter(stdout)}
	var req childRequest
	if err := json.NewDecoder(stdin).Decode(&req); err != nil {
		fmt.Fprintln(os.Stderr, "cannot read the request:", err)
		return 2
	}
	policy := sandbox.Policy{Read: []string{req.Source}, Write: []string{req.Out}}
	if req.Packages != "" {
		policy.Read = append(policy.Read, req.Packages)
	}
	level, err := sandbox.Confine(policy)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot confine the build:", err)
		return 2
	}
	result, err := c.build(req)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot build:", err)
		return 2
	}
	result.Isolation = level
	c.send(childMessage{Result: &result})
	if c.err != nil {
		fmt.Fprintln(os.Stderr, "cannot tell the result:", c.err)
		return 2
	}
	return 0
}

// child speaks to the parent. The bundler's files are loaded in parallel, and
// all of them may have something to say.
type child struct {
	mu  sync.Mutex
	out *bufio.Writer
	err error // the first write that failed
}

// send writes through at once: the log must be there when the next file kills
// the process. A parent that is gone has killed it already.
func (c *child) send(m childMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	line, err := json.Marshal(m)
	if err == nil {
		_, err = c.out.Write(append(line, '\n'))
	}
	c.err = errors.Join(c.err, err, c.out.Flush())
}

func (c *child) logf(format string, args ...any) {
	c.send(childMessage{Log: fmt.Sprintf(format, args...)})
}

func (c *child) build(req childRequest) (childResult, error) {
	root, err := os.OpenRoot(req.Source)
	if err != nil {
		return childResult{}, err
	}
	defer root.Close()
	var tree *sourceTree
	var files choice
	plan := detect.Detect(root.FS(), detect.Options{Request: req.Overrides, Choose: func(named, from string) (string, string, *previewd.Failure) {
		if tree, files.Failure = readTree(root.FS()); files.Failure != nil {
			return "", "", files.Failure
		}
		files = choose(tree, named, from, func() string { return findBundlerNeed(tree, req.Source) })
		return files.Runner, files.Reason, files.Failure
	}})
	result := childResult{Runner: plan.Runner.Name, Reason: files.Reason, Failure: plan.Failure, Fallback: plan.Fallback.File}
	if plan.Runner.Name == previewd.RunnerSandbox {
		result.Plan, result.Reason = plan, clause(plan.Runner.Reason)
	}
	if result.Failure != nil {
		return result, nil
	}
	if result.Plan != nil {
		return c.buildPackages(req, root, result)
	}
	c.tellRunner(result)
	c.tellNotes(plan)
	c.send(childMessage{Building: true})
	if result.Runner == runnerStatic {
		return result, nil
	}
	req.Packages = "" // its author wants none
	return c.bundle(req, root, tree, "react", result)
}

func (c *child) tellRunner(r childResult) { c.logf("runner: %s, because %s", r.Runner, r.Reason) }

// clause returns a sentence as it reads on after "because" or a colon.
func clause(sentence string) string {
	sentence = strings.TrimSuffix(sentence, ".")
	if rest, ok := strings.CutPrefix(sentence, "The "); ok {
		return "the " + rest
	}
	return sentence
}

func (c *child) tellNotes(plan *previewd.Plan) {
	for _, note := range plan.Notes {
		c.logf("note: %s", note)
	}
}

func (c *child) bundle(req childRequest, root *os.Root, tree *sourceTree, jsx string, result childResult) (childResult, error) {
	b, err := newBundle(c, root, req, tree, jsx)
	if err != nil {
		return result, err
	}
	result.Immutable, result.Failure, err = b.run()
	result.Built = result.Failure == nil
	return result, err
}

// buildPackages bundles a tree with its packages, if they are there and nothing
// has to be run. Whatever the bundler does not manage is left to the tree's own
// build, which is right by definition.
func (c *child) buildPackages(req childRequest, root *os.Root, result childResult) (childResult, error) {
	if !result.Plan.Bundle.OK || req.Packages == "" {
		return result, nil
	}
	tree, failure := readTree(root.FS())
	if failure != nil {
		result.Failure = failure
		return result, nil
	}
	// Vite takes this page alone, unless its configuration names others.
	tree.pages = slices.DeleteFunc(tree.pages, func(p page) bool { return p.path != "index.html" })
	if len(tree.pages) == 0 || bytes.Contains(tree.pages[0].source, []byte("importmap")) {
		result.Aside = "index.html has an import map"
		return result, nil
	}
	bundled := childResult{Runner: runnerBundle, Packages: true, Reason: clause(result.Plan.Bundle.Reason), Fallback: result.Fallback}
	c.tellRunner(bundled)
	bundled, err := c.bundle(req, root, tree, cmp.Or(result.Plan.Bundle.JSX, "react"), bundled)
	if err != nil || bundled.Failure == nil {
		c.tellNotes(result.Plan)
		c.send(childMessage{Building: true}) // not before: packages may have to be installed yet, and steps do not go back
		return bundled, err
	}
	result.Aside = clause(bundled.Failure.Message)
	return result, nil
}

// checked returns the result with everything in bounds: its text is made from a
// stranger's source and ends up in rows, logs, pages and terminals.
func (r childResult) checked() childResult {
	if !slices.Contains([]string{runnerStatic, runnerBundle, previewd.RunnerSandbox}, r.Runner) {
		r.Runner = ""
	}
	if r.Isolation != sandbox.LevelProcess && r.Isolation != sandbox.LevelLandlock {
		r.Isolation = ""
	}
	if (r.Runner == previewd.RunnerSandbox) != (r.Plan != nil && len(r.Plan.Build.Argv) > 0) && r.Failure == nil {
		r.Runner = ""
	}
	r.Reason, r.Aside = clip(strings.Map(printable, r.Reason), 300), clip(strings.Map(printable, r.Aside), 300)
	if r.Failure == nil {
		return r
	}
	f := bounded(*r.Failure)
	f.Class = previewd.FailureUser // a child that we have failed ends without a result
	if !slices.Contains(childCodes, f.Code) {
		f.Code = previewd.FailBundle
	}
	f.Step = previewd.StepBuild
	r.Failure = &f
	return r
}

// bounded returns a failure with its text cut to size and freed of what could
// drive a terminal.
func bounded(f previewd.Failure) previewd.Failure {
	f.Message = clip(strings.Map(printable, f.Message), 1000)
	f.Hint = clip(strings.Map(printable, f.Hint), 500)
	f.File = clip(strings.Map(printable, f.File), 1024)
	lines := strings.SplitN(f.Excerpt, "\n", 4)
	for i, line := range lines {
		lines[i] = clip(strings.Map(printable, line), 400)
	}
	f.Excerpt = strings.Join(lines, "\n")
	return f
}

// childCodes are the failures that a child can find.
var childCodes = []string{
	previewd.FailBundle, previewd.FailDependencyUnavailable, previewd.FailUnsafePath,
	previewd.FailRunnerUnavailable, previewd.FailNoIndex, previewd.FailBadConfig, previewd.FailSSRAdapter, previewd.FailWorkspace,
}

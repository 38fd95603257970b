package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/npm"
	"github.com/previewd/previewd/internal/sandbox"
	"github.com/previewd/previewd/internal/toolchain"
)

// chooseNode has the tree's commands run on the Node.js that it wants. Kept
// packages are those of that one from here on.
func (p *packagesBuild) chooseNode(ctx context.Context) error {
	wanted := p.plan.Node.Range
	if wanted == "" || p.with.Nodes == nil {
		return nil
	}
	began := time.Now()
	source := strings.TrimSuffix(firstSentence(p.plan.Node.Reason), " says so.")
	tools, err := p.with.Nodes.Take(ctx, wanted, p.prove)
	var none *toolchain.NoneError
	switch {
	case errors.Is(err, toolchain.ErrUnreadable):
		p.log.printf("node: %q of %s is no range that npm reads, so it is the server's", wanted, source)
		return nil
	case errors.As(err, &none):
		return p.nodeFailed(previewd.Failure{
			Class: previewd.FailureUser, Code: previewd.FailEngine,
			Message: fmt.Sprintf("The tree needs Node.js %s (%s), but this server has %s and %s.", clip(none.Wanted, 100), source, none.Machine, none.Why),
			Hint:    "Ask for a version that there is: set engines.node in package.json, or remove what asks for this one.",
		})
	case errors.Is(err, npm.ErrUnreachable):
		return p.nodeFailed(previewd.Failure{
			Class: previewd.FailureInfra, Code: previewd.FailRegistryUnreachable,
			Message: fmt.Sprintf("The tree needs Node.js %s (%s), and the registry that has it could not be reached.", clip(wanted, 100), source),
			Hint:    "Try again later.",
		})
	case err != nil:
		return fmt.Errorf("cannot get Node.js %s: %w", wanted, err)
	}
	p.node = tools
	if tools.Root == p.with.Root {
		if tools.Why != "" {
			p.log.printf("node: %s of this server, though %s asks for the newest: %s", tools.Node, source, tools.Why)
			p.result.Reason = clip(p.result.Reason, 250) + "; on this server's Node.js " + tools.Node
			return nil
		}
		p.log.printf("node: %s of this server, which %s allows", tools.Node, source)
		return nil
	}
	with := *p.with
	with.Root = tools.Root
	p.with = &with
	p.result.Reason = clip(p.result.Reason, 250) + "; on Node.js " + tools.Node
	p.log.printf("node: %s of the registry, with npm %s, because %s says %s; ready in %d ms", tools.Node, tools.NPM, source, wanted, time.Since(began).Milliseconds())
	return nil
}

func firstSentence(text string) string {
	if i := strings.Index(text, ". "); i >= 0 {
		return text[:i+1]
	}
	return text
}

func (p *packagesBuild) nodeFailed(f previewd.Failure) error {
	f.Step = p.step
	f = bounded(f)
	return &failedError{&f}
}

// prove runs the programs of a toolchain in a box: the registry's were never run,
// and the host does not run them.
func (p *packagesBuild) prove(ctx context.Context, root string) (node, npm string, err error) {
	box, err := p.with.Open(ctx, sandbox.BoxConfig{Executable: p.Executable, Root: root, Source: strings.NewReader(""), Limits: p.with.Limits, UID: p.with.UID, WorkDir: p.dir})
	if err != nil {
		return "", "", p.setupError(ctx, "cannot start the sandbox", err)
	}
	defer box.Close()
	said := func(argv ...string) (string, error) {
		output := &sandbox.HeadBuffer{Limit: 1 << 10}
		end, err := box.Run(ctx, sandbox.Task{Argv: argv, Env: []string{"PATH=/usr/bin", "HOME=" + sandbox.Home}, Output: output})
		text := strings.TrimSpace(strings.Map(previewd.Harmless, strings.ToValidUTF8(output.String(), "")))
		if err == nil && end.Code != 0 {
			err = &toolchain.RefusedError{Output: clip(text, 200)}
		}
		return text, err
	}
	if node, err = said("node", "--version"); err != nil {
		return "", "", err
	}
	npm, err = said("npm", "--version")
	return strings.TrimPrefix(node, "v"), npm, err
}

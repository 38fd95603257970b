package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/npm"
	"github.com/previewd/previewd/internal/runner"
	"github.com/previewd/previewd/internal/sandbox"
	"github.com/previewd/previewd/internal/telemetry"
	"github.com/previewd/previewd/internal/toolchain"
)

// SandboxInitArg is the hidden argument with which the program is the first
// process of a sandbox.
const SandboxInitArg = sandbox.InitArg

// SandboxInit is the whole life of that process.
func SandboxInit() (exitCode int) { return sandbox.Init() }

// sandboxes prepares what builds need that run their tree's code, when the first
// one comes: most servers of static sites never need it.
type sandboxes struct {
	builder *builder
	turn    chan struct{} // holds one: whose turn it is
	ready   *runner.Sandbox

	mu     sync.Mutex
	opened *caches
}

// caches are what builds leave to be faster the next time.
type caches struct {
	mirror  *npm.Mirror
	modules *runner.Modules
	tools   *runner.Caches
}

func newSandboxes(b *builder) *sandboxes { return &sandboxes{builder: b, turn: make(chan struct{}, 1)} }

// caches opens them once. What was in the way may be gone the next time.
func (s *sandboxes) caches() (*caches, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != nil {
		return s.opened, nil
	}
	cfg := s.builder.Config
	mirror, err := npm.NewMirror(npm.Config{
		Registry: cfg.NPMRegistry, Dir: filepath.Join(cfg.Data, "npm"), MaxBytes: cfg.NPMCache << 20, MinAge: cfg.NPMMinAge, Block: cfg.NPMBlock, Log: s.builder.log,
	})
	if err != nil {
		return nil, err
	}
	modules, err := runner.NewModules(filepath.Join(cfg.Data, "modules"), cmp.Or(cfg.ModulesCache, 4096)<<20, cmp.Or(cfg.BuildUID, sandbox.DefaultUID))
	if err != nil {
		return nil, err
	}
	tools, err := runner.NewCaches(filepath.Join(cfg.Data, "caches"), 200<<20, 2<<30)
	if err != nil {
		return nil, err
	}
	s.opened = &caches{mirror, modules, tools}
	return s.opened, nil
}

// shrink drops of what is cached for as long as bytes are wanted: installed packages
// first, which the others make again without a network, and toolchains that nobody
// uses last.
func (s *sandboxes) shrink(wanted func() int64) {
	c, err := s.caches()
	if err == nil {
		for _, shrink := range []func(int64) error{c.modules.Shrink, c.tools.Shrink, c.mirror.Shrink} {
			if bytes := wanted(); bytes > 0 {
				err = errors.Join(err, shrink(bytes))
			}
		}
	}
	if err = errors.Join(err, toolchain.Shrink(toolchains(s.builder.Config), wanted)); err != nil {
		s.builder.log.Warn("emptying caches failed", telemetry.Error, err)
	}
}

func (s *sandboxes) get(ctx context.Context) (*runner.Sandbox, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s.ready != nil {
		return s.ready, nil
	}
	cfg := s.builder.Config
	if cfg.UnsafeNoSandbox {
		return s.bare()
	}
	boxes, err := newBoxes(cfg, s.builder.runnerID, s.builder.log)
	if err != nil {
		return nil, err
	}
	tools, report, err := boxes.ready(ctx, cfg, s.builder.opts.Executable)
	if err == nil && !report.OK() {
		err = fmt.Errorf("%w: %s", runner.ErrNoSandbox, report.Reason)
	} else if errors.Is(err, toolchain.ErrMissing) {
		err = fmt.Errorf("%w: %w", runner.ErrNoSandbox, err)
	}
	if err != nil {
		s.builder.log.WarnContext(ctx, "no sandbox: builds that run code are refused", telemetry.Error, err, "fix", report.Fix)
		return nil, err
	}
	c, err := s.caches()
	if err != nil {
		return nil, err
	}
	s.builder.log.InfoContext(ctx, "sandbox ready", "level", report.Level, "node", tools.Node, "npm", tools.NPM, telemetry.Took, report.Start)
	s.ready = &runner.Sandbox{
		Open: boxes.open, Runner: cfg.Runner, Level: report.Level, Root: tools.Root, Nodes: toolchain.NewShelf(tools, c.mirror),
		Mirror: c.mirror, Modules: c.modules, Caches: c.tools, Limits: limitsOf(cfg), UID: cfg.BuildUID,
	}
	return s.ready, nil
}

// bare is what builds get that run without a sandbox: this machine's own programs.
func (s *sandboxes) bare() (*runner.Sandbox, error) {
	c, err := s.caches()
	if err != nil {
		return nil, err
	}
	s.ready = &runner.Sandbox{
		Open: runner.OpenBare, Level: sandbox.LevelNone, Root: sandbox.LevelNone,
		Mirror: c.mirror, Modules: c.modules, Caches: c.tools, Limits: limitsOf(s.builder.Config), UID: s.builder.Config.BuildUID,
	}
	return s.ready, nil
}

func limitsOf(cfg config.Config) sandbox.Limits {
	limits := sandbox.DefaultLimits()
	limits.Memory, limits.Disk = cmp.Or(cfg.BuildMemory<<20, limits.Memory), cmp.Or(cfg.BuildDisk<<20, limits.Disk)
	limits.Processes = cmp.Or(cfg.BuildProcesses, limits.Processes)
	return limits
}

// ProbeSandbox lays the toolchain out and opens a sandbox that checks itself.
func ProbeSandbox(ctx context.Context, cfg config.Config, executable string) (*toolchain.Toolchain, sandbox.Report, error) {
	boxes, err := newBoxes(cfg, "doctor", slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, sandbox.Report{Level: sandbox.LevelProcess}, err
	}
	return boxes.ready(ctx, cfg, executable)
}

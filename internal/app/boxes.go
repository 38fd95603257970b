package app

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/container"
	"github.com/previewd/previewd/internal/runner"
	"github.com/previewd/previewd/internal/sandbox"
	"github.com/previewd/previewd/internal/telemetry"
	"github.com/previewd/previewd/internal/toolchain"
)

// ContainerAgentArg is the hidden argument with which the program is the first
// process of a container.
const ContainerAgentArg = container.AgentArg

// ContainerAgent is the whole life of that process.
func ContainerAgent() (exitCode int) { return container.Agent() }

// boxes is one way to confine the code of trees: the configured one. No other
// takes its place.
type boxes struct {
	open  func(ctx context.Context, cfg sandbox.BoxConfig) (runner.Box, error)
	probe func(ctx context.Context, cfg sandbox.BoxConfig) sandbox.Report
	sweep func(ctx context.Context) error // ends what an earlier process has left
	log   *slog.Logger
}

// newBoxes returns the configured way. The owner's name is on what outlives it.
func newBoxes(cfg config.Config, owner string, log *slog.Logger) (*boxes, error) {
	if cfg.Runner == "" || cfg.Runner == config.BoxSandbox {
		return &boxes{runner.OpenSandbox, sandbox.Probe, func(context.Context) error { return nil }, log}, nil
	}
	backend, err := container.New(container.Config{
		Kind: cfg.Runner, Socket: cfg.DockerSocket, Runtime: cfg.DockerRuntime, Runsc: cfg.Runsc, Owner: owner,
	})
	if err != nil {
		return nil, err
	}
	open := func(ctx context.Context, cfg sandbox.BoxConfig) (runner.Box, error) {
		b, err := backend.Open(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return b, nil
	}
	return &boxes{open, backend.Probe, backend.Sweep, log}, nil
}

// toolchains is the folder that has them.
func toolchains(cfg config.Config) string { return filepath.Join(cfg.Data, "toolchains") }

// ready lays the toolchain out, ends what is left from before, and opens a box that
// checks itself.
func (b *boxes) ready(ctx context.Context, cfg config.Config, executable string) (*toolchain.Toolchain, sandbox.Report, error) {
	tools, err := toolchain.Prepare(ctx, toolchains(cfg))
	if err != nil {
		return nil, sandbox.Report{Level: sandbox.LevelProcess}, err
	}
	report := b.probe(ctx, sandbox.BoxConfig{Executable: executable, Root: tools.Root, Limits: limitsOf(cfg), UID: cfg.BuildUID})
	if report.OK() {
		if err := b.sweep(ctx); err != nil {
			b.log.WarnContext(ctx, "what an earlier process has left stays", telemetry.Error, err)
		}
	}
	return tools, report, nil
}

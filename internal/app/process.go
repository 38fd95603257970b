package app

import (
	"io"
	"log/slog"

	"github.com/previewd/previewd/internal/runner"
	"github.com/previewd/previewd/internal/telemetry"
)

// BuildChildArg is the hidden argument with which the program is a build's child.
const BuildChildArg = runner.ChildArg

// BuildChild runs a build's child and returns the process's exit code.
func BuildChild(stdin io.Reader, stdout io.Writer) int { return runner.Child(stdin, stdout) }

// NewLogger returns the logger of a server.
func NewLogger(w io.Writer, level slog.Level, json bool) *slog.Logger {
	return telemetry.NewLogger(w, level, json)
}

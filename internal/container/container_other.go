//go:build !linux

package container

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/previewd/previewd/internal/sandbox"
)

// Backend makes boxes of containers: on Linux only.
type Backend struct{ Config }

// New returns ErrUnavailable: the first process of a container is a program for
// Linux, which this one is not.
func New(Config) (*Backend, error) {
	return nil, fmt.Errorf("%w: it needs Linux", sandbox.ErrUnavailable)
}

// Agent has nothing to do here.
func Agent() (exitCode int) { return 2 }

// Sweep does nothing.
func (*Backend) Sweep(context.Context) error { return nil }

// Open returns ErrUnavailable.
func (*Backend) Open(context.Context, sandbox.BoxConfig) (*Box, error) {
	return nil, sandbox.ErrUnavailable
}

// Probe reports that there are no boxes here.
func (*Backend) Probe(context.Context, sandbox.BoxConfig) sandbox.Report {
	return sandbox.Report{Level: sandbox.LevelProcess, Reason: "The sandbox needs Linux."}
}

// Box is what one build runs in: on Linux only.
type Box struct{}

// Listeners returns none.
func (*Box) Listeners() []net.Listener { return nil }

// Run returns ErrUnavailable.
func (*Box) Run(context.Context, sandbox.Task) (sandbox.End, error) {
	return sandbox.End{}, sandbox.ErrUnavailable
}

// Unpack returns ErrUnavailable.
func (*Box) Unpack(context.Context, io.Reader) error { return sandbox.ErrUnavailable }

// Files returns ErrUnavailable.
func (*Box) Files(context.Context) (*os.Root, error) { return nil, sandbox.ErrUnavailable }

// Output returns ErrUnavailable.
func (*Box) Output(context.Context, string) (*os.Root, error) { return nil, sandbox.ErrUnavailable }

// Usage returns nothing.
func (*Box) Usage() sandbox.Usage { return sandbox.Usage{} }

// Close does nothing.
func (*Box) Close() {}

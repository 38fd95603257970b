//go:build !linux

package sandbox

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
)

// Box is what one build runs in: on Linux only.
type Box struct{}

// Open returns ErrUnavailable: boxes need Linux.
func Open(context.Context, BoxConfig) (*Box, error) {
	return nil, fmt.Errorf("%w: it needs Linux", ErrUnavailable)
}

// Probe reports that there are no boxes here.
func Probe(context.Context, BoxConfig) Report {
	return Report{Level: LevelProcess, Reason: "The sandbox needs Linux.", Fix: "Run previewd on Linux, or in a Linux virtual machine."}
}

// Init has nothing to do here.
func Init() (exitCode int) { return 2 }

// Listeners returns none.
func (*Box) Listeners() []net.Listener { return nil }

// Run returns ErrUnavailable.
func (*Box) Run(context.Context, Task) (End, error) { return End{}, ErrUnavailable }

// Unpack returns ErrUnavailable.
func (*Box) Unpack(context.Context, io.Reader) error { return ErrUnavailable }

// Files returns ErrUnavailable.
func (*Box) Files(context.Context) (*os.Root, error) { return nil, ErrUnavailable }

// Output returns ErrUnavailable.
func (*Box) Output(context.Context, string) (*os.Root, error) { return nil, ErrUnavailable }

// Usage returns nothing.
func (*Box) Usage() Usage { return Usage{} }

// Close does nothing.
func (*Box) Close() {}

package runner

import (
	"context"
	"io"
	"net"
	"os"

	"github.com/previewd/previewd/internal/sandbox"
)

// Box is what one build's commands run in; see sandbox.Box, which is one.
type Box interface {
	Listeners() []net.Listener
	Run(ctx context.Context, t sandbox.Task) (sandbox.End, error)
	Unpack(ctx context.Context, source io.Reader) error
	Files(ctx context.Context) (*os.Root, error)
	Output(ctx context.Context, dir string) (*os.Root, error)
	Usage() sandbox.Usage
	Close()
}

// OpenBare runs a build's commands without a box; see sandbox.Bare.
func OpenBare(ctx context.Context, cfg sandbox.BoxConfig) (Box, error) {
	b, err := sandbox.OpenBare(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// OpenSandbox starts a box of this program's own.
func OpenSandbox(ctx context.Context, cfg sandbox.BoxConfig) (Box, error) {
	b, err := sandbox.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return b, nil
}

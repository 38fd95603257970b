package runner

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/sandbox"
)

// What keeps a box from being made is the author's only when the box says that the
// tree does not fit in.
func TestWhoseFaultASetupIs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want []any
	}{
		"TreeTooLarge": {sandbox.Refused("open a: " + syscall.ENOSPC.Error()), []any{previewd.FailureUser, previewd.FailDiskLimit}},
		"HostFull":     {fmt.Errorf("mkdir: %w", syscall.ENOSPC), []any{previewd.FailureInfra, previewd.FailInfra}},
		"RunnerGone":   {fmt.Errorf("%w: connection refused", sandbox.ErrUnavailable), []any{previewd.FailureInfra, previewd.FailRunnerUnavailable}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupNPM(t, func(s *Sandbox) {
				s.Open = func(context.Context, sandbox.BoxConfig) (Box, error) { return nil, c.err }
			})
			o := b.build(b.tree("maker", "maker"))
			require.Equal(t, previewd.OutcomeFailed, o.Kind)
			require.Equal(t, c.want, []any{o.Failure.Class, o.Failure.Code}, "%+v", o.Failure)
		})
	}
}

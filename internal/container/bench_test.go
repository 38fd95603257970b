//go:build linux

package container_test

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/sandbox"
)

// BenchmarkBoxStart starts a box, runs nothing much in it and ends it, beside the
// native sandbox.
func BenchmarkBoxStart(b *testing.B) {
	task := sandbox.Task{Argv: []string{"true"}, Env: env, Output: io.Discard}
	for _, name := range []string{"docker", "gvisor", "docker-runsc"} {
		b.Run(name, func(b *testing.B) {
			way := setup(b, name)
			for b.Loop() {
				box, err := way.Open(b.Context(), way.config(b))
				require.NoError(b, err)
				_, err = box.Run(b.Context(), task)
				require.NoError(b, err)
				box.Close()
			}
		})
	}
	b.Run("sandbox", func(b *testing.B) {
		cfg := setup(b, "docker").config(b)
		cfg.Executable = ""
		for b.Loop() {
			cfg.Source = tarOf(b, nil)
			box, err := sandbox.Open(b.Context(), cfg)
			require.NoError(b, err)
			_, err = box.Run(b.Context(), task)
			require.NoError(b, err)
			box.Close()
		}
	})
}

package app_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/config"
)

// What was asked for and is not there is not replaced by something weaker.
func TestMissingContainersRefuseBuilds(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	for runner, boxes := range map[string]config.Boxes{
		"docker": {Runner: config.BoxDocker, DockerSocket: missing},
		"gvisor": {Runner: config.BoxGVisor, Runsc: missing},
	} {
		t.Run(runner, func(t *testing.T) {
			t.Parallel()
			s := startWith(t, config.Config{Boxes: boxes})
			p := s.create(`{"userId":"u","prompt":"p","templateFiles":{"index.html":"x","package.json":"{\"scripts\":{\"build\":\"echo built\"}}"}}`)
			s.wait(p.BuildID)
			b, err := s.client().FindBuild(t.Context(), p.BuildID, time.Second)
			require.NoError(t, err)
			require.Equal(t, previewd.BuildFailed, b.Status)
			require.Equal(t, previewd.FailRunnerUnavailable, b.Failure.Code, "%+v", b.Failure)
		})
	}
}

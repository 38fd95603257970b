package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/config"
)

func TestRunnersAreChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		boxes config.Boxes
		want  string
	}{
		"None":           {},
		"Sandbox":        {boxes: config.Boxes{Runner: "sandbox"}},
		"DockerRuntime":  {boxes: config.Boxes{Runner: "docker", DockerRuntime: "runsc"}},
		"GVisor":         {boxes: config.Boxes{Runner: "gvisor", Runsc: "/opt/runsc"}},
		"Unknown":        {config.Boxes{Runner: "podman"}, `--runner "podman" is not known`},
		"RuntimeOfWhich": {config.Boxes{Runner: "gvisor", DockerRuntime: "runsc"}, "--docker-runtime is for --runner docker"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := base(func(cfg *config.Config) { cfg.Boxes = c.boxes }).Validate()
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

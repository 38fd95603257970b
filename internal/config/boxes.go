package config

import (
	"errors"
	"fmt"
	"slices"
)

// What runs the code of trees.
const (
	BoxSandbox = "sandbox" // the server itself
	BoxDocker  = "docker"
	BoxGVisor  = "gvisor"
)

// Boxes is what the code of trees runs in.
type Boxes struct {
	Runner        string `help:"What runs the code of trees: sandbox, the server itself; docker, containers of a Docker Engine on this machine; or gvisor, which has a kernel of its own. None takes another's place." enum:"sandbox,docker,gvisor" default:"sandbox" env:"PREVIEWD_RUNNER"`
	DockerSocket  string `help:"Socket of the Docker Engine." default:"/var/run/docker.sock" env:"PREVIEWD_DOCKER_SOCKET" placeholder:"PATH"`
	DockerRuntime string `help:"Runtime of the Docker Engine for builds, such as runsc, which is gVisor. Default: the engine's." env:"PREVIEWD_DOCKER_RUNTIME" placeholder:"NAME"`
	Runsc         string `help:"gVisor's program, for --runner gvisor." default:"runsc" env:"PREVIEWD_RUNSC" placeholder:"PATH"`
}

func (b *Boxes) checkBoxes() error {
	if !slices.Contains([]string{"", BoxSandbox, BoxDocker, BoxGVisor}, b.Runner) {
		return fmt.Errorf("--runner %q is not known: it is sandbox, docker or gvisor", b.Runner)
	}
	if b.DockerRuntime != "" && b.Runner != BoxDocker {
		return errors.New("--docker-runtime is for --runner docker: name that too")
	}
	return nil
}

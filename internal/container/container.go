// Package container makes boxes of containers: of a local Docker Engine, or of
// gVisor's runsc without one. The first process in each is this program again, and
// serves the tasks of one build over a socket.
package container

import (
	"strings"
	"time"

	"github.com/previewd/previewd/internal/sandbox"
)

// AgentArg is the hidden argument that makes the program the first process of a
// container.
const AgentArg = "container-agent"

// What may come after it.
const (
	launchArg = "launch" // wait for a line, then become the program that follows
	checkArg  = "check"  // tell whether a task is confined; the name of a file of the host follows
)

// Kinds of containers.
const (
	Docker = "docker"
	GVisor = "gvisor"
)

// Config says what makes containers.
type Config struct {
	Kind    string // Docker or GVisor
	Socket  string // of the Docker Engine; default /var/run/docker.sock
	Runtime string // of the Docker Engine; "" for its default
	Runsc   string // gVisor's program; default runsc in the PATH
	Owner   string // names the server, which sweeps what it has left behind
}

// gvisor reports whether containers are to have gVisor's kernel.
func (c Config) gvisor() bool {
	return c.Kind == GVisor || strings.Contains(c.Runtime, "runsc") || strings.Contains(c.Runtime, "gvisor")
}

// ownLimits returns the bounds for what the host sees of gVisor: it needs memory
// and threads of its own beside what a build may take, and dies where it cannot
// start one.
func ownLimits(l sandbox.Limits) sandbox.Limits {
	l.Memory += 256 << 20
	l.Processes = 32*l.Processes + 1024
	return l
}

// Where a container has what is not of its root file system.
const (
	agentDir    = "/dev/previewd" // /dev is not of the root, which nothing is made in
	agentPath   = agentDir + "/agent"
	linkDir     = agentDir + "/link"
	modulesDir  = agentDir + "/modules"
	socketName  = "socket"
	modulesName = "node_modules"
)

// What the host tells the first process and is told, each a line of JSON.
type (
	// hello is the first line. Every other connection begins with its secret.
	hello struct {
		Secret  string
		Ports   []int
		Modules bool // there are some
		UID     int  // of tasks
		Limits  sandbox.Limits
	}
	request struct {
		ID     uint32
		Op     string
		Task   sandbox.Task // opRun; without its writer
		Hidden string       // opProbe: a file of the host
		All    bool         // opPack: packages too
	}
	reply struct {
		ID     uint32 // the request's; 0 says that the first process is ready
		Error  string
		Code   int
		Checks []sandbox.Check
		GVisor bool // opProbe
		// Of what the kernel counts for the container, where it can be read inside.
		OutOfMemory, ProcessesBound bool
		CPU                         time.Duration
		Memory                      int64
	}
)

// Operations. Those that move bytes do it on a connection of their own.
const (
	opRun    = "run"
	opUnpack = "unpack"
	opPack   = "pack"
	opProbe  = "probe"
)

const (
	maxLine = 256 << 10 // bytes: a command with its environment

	// maxConnections bounds those from a port at once; more wait.
	maxConnections = 64
	// headerSize is that of what a connection begins with: the secret, what it is for
	// and a number.
	headerSize = secretSize + 1 + 4
	secretSize = 26
)

// What a connection is for, and what its number means.
const (
	forTask = 't' // the request's
	forPort = 'p' // the port's place in the list
)

// Bounds on a workspace that leaves a container, beside those on its size.
const (
	maxDepth = 128  // folders
	maxPath  = 3000 // bytes
	maxName  = 256  // bytes of a last part that is one too many
)

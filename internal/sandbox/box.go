package sandbox

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"
)

// InitArg is the hidden argument that makes the program the first process of a box.
const InitArg = "sandbox-init"

// LevelNamespace is what a box gives: namespaces of its own, no network, no
// privileges, a filter on system calls and bounds on what it takes.
const LevelNamespace = "namespace"

// LevelGVisor is what a box gives that has a kernel of its own, gVisor's: it
// shares none of the host's system calls with what runs in it.
const LevelGVisor = "gvisor"

// Limits bound what all processes of a box take together, and each by itself.
type Limits struct {
	Memory    int64 // bytes, with the files that are written
	Processes int64 // and threads
	CPUs      int   // hundredths of one; 0 is no bound, and a full share
	Disk      int64 // bytes of the workspace, the home and temporary files together
	Inodes    int64 // and their number
	FileSize  int64 // bytes of one file
	OpenFiles int64 // of one process
}

// DefaultLimits are enough for the large frameworks.
func DefaultLimits() Limits {
	return Limits{
		Memory: 2 << 30, Processes: 256, CPUs: 200, Disk: 1 << 30, Inodes: 300_000, FileSize: 512 << 20, OpenFiles: 8192,
	}
}

// BoxConfig says what a box is made of.
type BoxConfig struct {
	Executable string    // runs Init when its argument is InitArg; default this program
	Root       string    // folder that is the root file system, read-only; it has proc, dev, tmp, workspace and home/build
	Source     io.Reader // tar of the files to lay out in /workspace
	// Modules is a folder that shows through in /workspace/node_modules, and that
	// nothing in the box can change; "" for none. Its files are UID's.
	Modules string
	Limits  Limits
	WorkDir string // folder for what the box needs outside while it lasts; a container's
	Ports   []int  // of 127.0.0.1 inside, that the caller accepts connections on
	// UID is the host's user and group of everything in the box, when the caller
	// is root: one that owns nothing, by default DefaultUID. Any other caller's boxes
	// run as itself.
	UID int
	// Unlimited allows a box where memory and processes cannot be bounded, for
	// want of control groups.
	Unlimited bool
}

// DefaultUID is BoxConfig.UID's default.
const DefaultUID = 200_001

// Where things are in a box.
const (
	Workspace = "/workspace"
	Home      = "/home/build"
	TempDir   = "/tmp"
)

// Task is a command to run in a box.
type Task struct {
	Argv   []string // the program is looked for in the PATH of Env
	Dir    string   // default Workspace
	Env    []string // all of it
	Output io.Writer
}

// End is how a task ended. All that it has started is dead by then.
type End struct {
	Code           int  // 128 + the signal's number when one ended it
	OutOfMemory    bool // the kernel has killed a process for its memory
	ProcessesBound bool // the bound on processes was met
}

// Usage is what a box has taken.
type Usage struct {
	CPU    time.Duration
	Memory int64 // bytes, at most at once; 0 when it is not known
}

// Check is one thing that a box must hold to, and whether it does.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Got  string `json:"got,omitempty"`
}

// Report says what a machine's boxes are worth.
type Report struct {
	Level  string        `json:"level"` // LevelNamespace, LevelGVisor, or LevelProcess when there can be no box
	Checks []Check       `json:"checks,omitempty"`
	Reason string        `json:"reason,omitempty"` // why there can be none
	Fix    string        `json:"fix,omitempty"`
	Start  time.Duration `json:"-"` // of a box
}

// OK reports whether strangers' code may run in a box here.
func (r Report) OK() bool { return r.Level == LevelNamespace || r.Level == LevelGVisor }

// Judge takes what was checked of a box. One that does not hold to all of it is none.
func (r *Report) Judge(box string, checks []Check) {
	r.Checks = checks
	for _, c := range checks {
		if !c.OK {
			r.Level, r.Reason = LevelProcess, fmt.Sprintf("the %s does not hold: %s (%s)", box, c.Name, c.Got)
		}
	}
}

// ErrUnavailable says that this machine allows no box.
var ErrUnavailable = errors.New("the sandbox is not available on this machine")

// ErrFull says that a box has no room for what is laid out in it.
var ErrFull = errors.New("the sandbox is full")

// Refused returns what the first process of a box says is wrong inside.
func Refused(said string) error {
	if strings.Contains(said, syscall.ENOSPC.Error()) {
		return fmt.Errorf("%w: %s", ErrFull, said)
	}
	return fmt.Errorf("%w: %s", ErrUnavailable, said)
}

// What PID 1 of a box is told and tells, each a packet of JSON.
type (
	initConfig struct {
		Mounted       bool // the folders come as files, mounted
		Root, Modules string
		Limits        Limits
		Ports         []int
	}
	initTask struct {
		Argv, Env []string
		Dir       string
		Unpack    bool   // lay a tar out instead
		Probe     bool   // tell what the checks say instead
		Hidden    string // a file of the host
	}
	initReply struct {
		Code   int
		Error  string
		Checks []Check
	}
)

// maxPacket bounds a packet, in bytes: a task with its environment.
const maxPacket = 128 << 10

// folders lists what is mounted, the root first.
func (c *initConfig) folders() []string {
	if c.Modules == "" {
		return []string{c.Root}
	}
	return []string{c.Root, c.Modules}
}

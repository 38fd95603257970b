package sandbox

import (
	"fmt"
	"io"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

// Tasks runs what a container's build consists of, for a first process that is not
// Init: one whose container somebody else has made.
type Tasks struct{ process initProcess }

// NewTasks readies the calling process, which must be the container's first: tasks
// can neither look into it nor end it.
func NewTasks() (*Tasks, error) {
	startThreads()
	t := &Tasks{}
	// Once the process is hidden it cannot open this any more. Not every kernel has it.
	t.process.victim, _ = os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("cannot hide this process: %w", err)
	}
	if err := dropSignalHandlers(); err != nil {
		return nil, fmt.Errorf("cannot drop signal handlers: %w", err)
	}
	return t, nil
}

// RunAs has tasks be another user's than this process's.
func (t *Tasks) RunAs(uid int) {
	t.process.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
}

// Run runs a task to its end, and kills what it leaves behind. Its output goes to
// a file, not to the task's writer.
func (t *Tasks) Run(task Task, out *os.File) (exitCode int) {
	return t.process.run(initTask{Argv: task.Argv, Env: task.Env, Dir: path.Join(Workspace, task.Dir)}, out)
}

// LayOut lays a tar of regular files out in the workspace.
func LayOut(source io.Reader) error { return unpack(source, Workspace) }

// SelfChecks tells whether the calling process, and so every task of its, is
// confined. The file is one of the host's.
func SelfChecks(hidden string) []Check { return selfChecks(hidden) }

// ConfineThread leaves the calling thread, and what it starts, without a capability to
// gain and with the filter on system calls. Capabilities that it has stay.
func ConfineThread() error {
	if err := dropBounding(); err != nil {
		return fmt.Errorf("cannot drop capabilities: %w", err)
	}
	return boxCalls().filter(0)
}

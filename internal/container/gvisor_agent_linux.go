package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/previewd/previewd/internal/sandbox"
)

// groupDir is where a container sees its own control group.
const groupDir = "/sys/fs/cgroup/"

// ownKernel makes of a container of gVisor's what takes root in it: there the first
// process may be that, for it is nobody outside.
func (a *agent) ownKernel() error {
	if !isGVisor() {
		return errors.New("the kernel is not gVisor's, whose root the first process would be")
	}
	if err := os.WriteFile(groupDir+"pids/pids.max", strconv.AppendInt(nil, a.Limits.Processes, 10), 0o600); err != nil {
		return fmt.Errorf("cannot bound processes: %w", err)
	}
	if err := os.Chmod(groupDir, 0o555); err != nil { // it is a file system without bounds
		return fmt.Errorf("cannot close the folder of groups: %w", err)
	}
	if err := a.mountScratch(); err != nil {
		return err
	}
	return a.startThread()
}

// mountScratch makes one file system for all that is written, so that one bound
// holds for it, as the native sandbox does. It lies under the workspace, where
// nobody can reach it but through its parts.
func (a *agent) mountScratch() error {
	var failed error
	mount := func(source, target, kind string, flags uintptr, data string) {
		if failed == nil {
			if err := unix.Mount(source, target, kind, flags, data); err != nil {
				failed = fmt.Errorf("cannot mount %s: %w", target, err)
			}
		}
	}
	const scratch = sandbox.Workspace
	mount("scratch", scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,nr_inodes=%d,mode=0755", a.Limits.Disk, a.Limits.Inodes))
	for _, dir := range []string{"workspace", "home", "tmp", "shm", "upper", "work", "workspace/" + modulesName} {
		if failed == nil && (a.Modules || dir != "workspace/"+modulesName) {
			failed = errors.Join(os.Mkdir(scratch+"/"+dir, 0o755), os.Chown(scratch+"/"+dir, a.UID, a.UID))
		}
	}
	if a.Modules {
		mount("modules", scratch+"/workspace/"+modulesName, "overlay", unix.MS_NOSUID|unix.MS_NODEV,
			fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", modulesDir, scratch, scratch))
	}
	mount(scratch+"/home", sandbox.Home, "", unix.MS_BIND, "")
	mount(scratch+"/tmp", sandbox.TempDir, "", unix.MS_BIND, "")
	mount(scratch+"/shm", "/dev/shm", "", unix.MS_BIND, "")
	mount(scratch+"/workspace", sandbox.Workspace, "", unix.MS_BIND|unix.MS_REC, "")
	return failed
}

// On one thread tasks are started, without a capability to gain and filtered, and
// files are handled as their user. gVisor does not spare a first process the signals
// of its own user, so all of this one's threads stay root's in what signals look at.

// startThread starts that thread.
func (a *agent) startThread() error {
	a.thread = make(chan func())
	confined := make(chan error)
	go func() {
		runtime.LockOSThread()
		confined <- sandbox.ConfineThread()
		for do := range a.thread {
			do()
		}
	}()
	return <-confined
}

// onThread does something on the thread that starts tasks.
func (a *agent) onThread(do func() error) error {
	if !a.root {
		return do()
	}
	done := make(chan error)
	a.thread <- func() { done <- do() }
	return <-done
}

// asBuilder does something with files as the user of tasks.
func (a *agent) asBuilder(do func() error) error {
	if !a.root {
		return do()
	}
	return a.onThread(func() error {
		if err := actAs(a.UID, unix.SYS_SETRESGID, unix.SYS_SETRESUID); err != nil {
			return err
		}
		return errors.Join(do(), actAs(0, unix.SYS_SETRESUID, unix.SYS_SETRESGID))
	})
}

// actAs changes the effective user of the calling thread, by these calls.
func actAs(id int, calls ...uintptr) error {
	const same = ^uintptr(0)
	for _, call := range calls {
		if _, _, errno := unix.RawSyscall(call, same, uintptr(id), same); errno != 0 {
			return fmt.Errorf("cannot act as the user of tasks: %w", errno)
		}
	}
	return nil
}

// probe has a task check itself, which is this program again.
func (a *agent) probe(hidden string) (checks []sandbox.Check, err error) {
	if !a.root {
		return sandbox.SelfChecks(hidden), nil
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	code := 0
	told := make(chan error, 1)
	go func() { told <- json.NewDecoder(read).Decode(&checks) }()
	err = a.onThread(func() error {
		code = a.tasks.Run(sandbox.Task{Argv: []string{agentPath, AgentArg, checkArg, hidden}}, write)
		return write.Close()
	})
	if err == nil {
		err = <-told
	}
	if err == nil && code != 0 {
		err = fmt.Errorf("the check ended with code %d", code)
	}
	for i, c := range checks {
		if c.Name == sandbox.CheckFirst {
			checks[i] = sandbox.Check{Name: c.Name, OK: os.Getpid() == 1, Got: strconv.Itoa(os.Getpid())}
		}
	}
	return checks, err
}

// isGVisor reports whether the kernel is gVisor's.
func isGVisor() bool {
	_, err := os.Stat("/proc/gvisor/kernel_is_gvisor")
	if err == nil {
		return true
	}
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	return strings.Contains(unix.ByteSliceToString(name.Release[:]), "gvisor")
}

// watchProcesses begins to look whether the bound on processes is met, or nearly so,
// where the kernel does not count how often it was: gVisor's. The result ends that
// and tells. It may miss what lasts a moment.
func watchProcesses(g *sandbox.Group) (met func() bool) {
	bound, counted := g.MaxProcesses()
	if counted || bound == 0 {
		return func() bool { return false }
	}
	stop, seen := make(chan struct{}), make(chan bool)
	go func() {
		every := time.NewTicker(5 * time.Millisecond)
		defer every.Stop()
		full := false
		for {
			select {
			case <-stop:
				seen <- full
				return
			case <-every.C:
				full = full || g.Processes() >= bound-bound/16
			}
		}
	}()
	return func() bool {
		close(stop)
		return <-seen
	}
}

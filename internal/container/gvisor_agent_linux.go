package container

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/previewd/previewd/internal/sandbox"
)

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
	return a.startBuilder()
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

// asBuilder does something as the user of tasks, without any capability. gVisor
// does not spare a first process the signals of its own user, so there it is another.
func (a *agent) asBuilder(do func() error) error {
	if !a.root {
		return do()
	}
	done := make(chan error)
	a.builder <- func() { done <- do() }
	return <-done
}

// startBuilder starts the one thread that is the user of tasks, and stays it. One
// for each thing to do would be lacking when tasks have met the bound on processes.
func (a *agent) startBuilder() error {
	a.builder = make(chan func())
	became := make(chan error)
	go func() {
		runtime.LockOSThread()
		became <- becomeUser(a.UID)
		for do := range a.builder {
			do()
		}
	}()
	return <-became
}

// becomeUser makes the calling thread a user's, for good.
func becomeUser(id int) error {
	if err := sandbox.ConfineThread(); err != nil {
		return err
	}
	uid := uintptr(id)
	for _, call := range []struct{ number, first, second, third uintptr }{
		{unix.SYS_SETGROUPS, 0, 0, 0}, {unix.SYS_SETRESGID, uid, uid, uid}, {unix.SYS_SETRESUID, uid, uid, uid},
	} {
		if _, _, errno := unix.RawSyscall(call.number, call.first, call.second, call.third); errno != 0 {
			return fmt.Errorf("cannot become the user of tasks: %w", errno)
		}
	}
	return nil
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

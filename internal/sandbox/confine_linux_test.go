package sandbox_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/previewd/previewd/internal/sandbox"
)

// roleParser makes the test's program confine itself and say what it can still do.
const roleParser = "parser"

// parse confines this process to a folder and tells each attempt's end. The other
// file is outside the folder.
func parse(dir, other string) {
	level, err := sandbox.Confine(sandbox.Policy{Read: []string{dir}})
	fmt.Println("level:", level, err)
	// All threads are confined, those that were there before too.
	var threads, told sync.WaitGroup
	threads.Add(4)
	for range 4 {
		told.Go(func() {
			runtime.LockOSThread()
			threads.Done()
			threads.Wait()
			_, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			fmt.Println("socket:", err)
		})
	}
	told.Wait()
	fmt.Println("program:", unix.Exec("/bin/true", []string{"true"}, nil))
	_, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	fmt.Println("process:", errno)
	fmt.Println("signal:", unix.Kill(os.Getppid(), 0))
	fmt.Println("signal to a thread:", unix.Tgkill(os.Getppid(), os.Getppid(), 0))
	_, err = unix.FcntlInt(0, unix.F_SETOWN, os.Getppid())
	fmt.Println("signal of input:", err)
	_, _, errno = unix.Syscall(unix.SYS_FCNTL, 0, unix.F_SETOWN|1<<32, uintptr(os.Getppid()))
	fmt.Println("the same in other words:", errno)
	_, _, errno = unix.RawSyscall(unix.SYS_CLONE, unix.CLONE_THREAD|unix.CLONE_NEWNET, 0, 0) // invalid, where it is not refused
	fmt.Println("namespace:", errno)
	fmt.Println("mode:", unix.Chmod(other, 0o4755))
	fmt.Println("time:", unix.Utimes(other, make([]unix.Timeval, 2)))
	fmt.Println("length:", unix.Truncate(other, 0))
	fmt.Println("attribute:", unix.Setxattr(other, "user.x", []byte("x"), 0))
	fmt.Println("share of the CPU:", unix.Setpriority(unix.PRIO_PROCESS, os.Getppid(), 7))
	_, _, errno = unix.Syscall(unix.SYS_SCHED_SETAFFINITY, uintptr(os.Getppid()), 0, 0)
	fmt.Println("place on the CPU:", errno)
	fmt.Println("mount:", unix.Mount("x", dir, "tmpfs", 0, ""))
	_, _, errno = unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	fmt.Println("clone3:", errors.Is(errno, unix.ENOSYS))
	_, _, errno = unix.Syscall(unix.SYS_IO_URING_SETUP, 0, 0, 0)
	fmt.Println("io_uring:", errors.Is(errno, unix.ENOSYS))
	_, err = os.ReadFile("/etc/passwd")
	fmt.Println("another file:", err != nil)
	text, err := os.ReadFile(filepath.Join(dir, "tree.txt"))
	fmt.Println("its own:", string(text), err)
}

// Who parses strangers' source reads its tree and can do nothing else: the kernel
// refuses it on each of its threads.
func TestConfinedParserCanDoNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tree.txt"), []byte("tree"), 0o600))
	other := filepath.Join(t.TempDir(), "other.txt")
	require.NoError(t, os.WriteFile(other, []byte("other"), 0o600))
	said, err := exec.CommandContext(t.Context(), os.Args[0], roleParser, dir, other).CombinedOutput()
	require.NoError(t, err, "%s", said)
	_, _, noLandlock := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if _, err := os.Stat("/proc/sys/kernel/seccomp/actions_avail"); err != nil || noLandlock != 0 {
		t.Skipf("SKIPPED: this kernel lacks Landlock (%v) or filters on system calls (%v)", noLandlock, err)
	}
	refused := []string{
		"socket", "socket", "socket", "socket", "program", "process", "signal", "signal to a thread", "signal of input", "the same in other words",
		"namespace", "mode", "time", "length", "attribute", "share of the CPU", "place on the CPU", "mount",
	}
	require.Equal(t, "level: "+sandbox.LevelLandlock+" <nil>\n"+strings.Join(refused, ": operation not permitted\n")+": operation not permitted\n"+
		"clone3: true\nio_uring: true\nanother file: true\nits own: tree <nil>\n", string(said))
	info, err := os.Stat(other)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

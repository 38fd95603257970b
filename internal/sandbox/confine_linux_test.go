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

// parse confines this process to a folder and tells each attempt's end.
func parse(dir string) {
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
	_, _, errno = unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	fmt.Println("clone3:", errors.Is(errno, unix.ENOSYS))
	fmt.Println("signal:", unix.Kill(os.Getppid(), 0))
	fmt.Println("mount:", unix.Mount("x", dir, "tmpfs", 0, ""))
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
	said, err := exec.CommandContext(t.Context(), os.Args[0], roleParser, dir).CombinedOutput()
	require.NoError(t, err, "%s", said)
	if strings.HasPrefix(string(said), "level: "+sandbox.LevelProcess+" ") {
		t.Skipf("SKIPPED: this kernel lacks Landlock or filters on system calls")
	}
	refused := "operation not permitted\n"
	require.Equal(t, "level: "+sandbox.LevelLandlock+" <nil>\n"+strings.Repeat("socket: "+refused, 4)+
		"program: "+refused+"process: "+refused+"clone3: true\nsignal: "+refused+"mount: "+refused+
		"io_uring: true\nanother file: true\nits own: tree <nil>\n", string(said))
}

//go:build linux

package sandbox_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/boxtest"
	"github.com/previewd/previewd/internal/sandbox"
)

// Files that the server has from whoever started it are not a task's.
func TestInheritedFilesStayOutside(t *testing.T) {
	cfg := config(t)
	read, write, err := os.Pipe()
	require.NoError(t, err)
	defer read.Close()
	defer write.Close()
	fd, _, errno := syscall.Syscall(syscall.SYS_FCNTL, write.Fd(), syscall.F_DUPFD, 200) // without close-on-exec
	require.Zero(t, errno)
	defer syscall.Close(int(fd))
	_, out := run(t, open(t, cfg), sh(`ls /proc/self/fd`))
	require.Equal(t, "0\n1\n2\n3\n", out, "and the folder that ls reads")
}

// A box dies with its owner, whatever that dies of.
func TestBoxDiesWithItsOwner(t *testing.T) {
	cfg := config(t)
	open(t, cfg).Close() // skips where there is none
	owner := boxtest.StartOwner(t, roleOwner, cfg.Root)
	mark := boxtest.OwnerMark(owner.Process.Pid)
	require.NotEmpty(t, boxtest.ProcessesWith(t, mark))
	require.NoError(t, owner.Process.Signal(syscall.SIGKILL))
	_ = owner.Wait()
	deadline := time.Now().Add(time.Minute)
	for len(boxtest.ProcessesWith(t, mark)) > 0 {
		require.True(t, time.Now().Before(deadline), "processes are left")
		time.Sleep(5 * time.Millisecond)
	}
}

// ownBox is the test's child: it says when its box is alive, and waits.
func ownBox(root string) {
	if len(os.Args) > 4 { // it has a child already
		child := exec.Command("sleep", "300")
		if err := child.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		defer child.Process.Kill()
	}
	b, err := sandbox.Open(context.Background(), sandbox.BoxConfig{Root: root, Limits: sandbox.DefaultLimits(), Source: strings.NewReader("")})
	if err != nil {
		fmt.Println(err)
		return
	}
	if len(os.Args) > 3 { // a start is all that is wanted
		b.Close()
		return
	}
	_, _ = b.Run(context.Background(), boxtest.Stay(os.Getpid()))
}

// A server that starts sweeps what dead ones have left, and takes nothing from one
// that is about to use what it has just made.
func TestStartsDoNotSweepEachOther(t *testing.T) {
	cfg := config(t)
	open(t, cfg).Close() // skips where there is none
	stop := make(chan struct{})
	swept := make(chan int)
	go func() {
		starts := 0
		for {
			select {
			case <-stop:
				swept <- starts
				return
			default:
				owner := exec.Command("/proc/self/exe", roleOwner, cfg.Root, "start")
				if out, err := owner.CombinedOutput(); err == nil && len(out) == 0 {
					starts++
				}
			}
		}
	}()
	for range 40 {
		cfg.Source = tarOf(t, nil)
		b, err := sandbox.Open(t.Context(), cfg)
		require.NoError(t, err)
		b.Close()
	}
	close(stop)
	require.Positive(t, <-swept)
}

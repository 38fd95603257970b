//go:build linux

package sandbox_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
	owner := exec.Command("/proc/self/exe", roleOwner, cfg.Root)
	out, err := owner.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, owner.Start())
	t.Cleanup(func() {
		_ = owner.Process.Kill()
		_ = owner.Wait()
	})
	line := make([]byte, 6)
	_, err = io.ReadFull(out, line)
	require.NoError(t, err)
	require.Equal(t, "alive\n", string(line))
	mark := "previewd-sandbox-" + strconv.Itoa(owner.Process.Pid)
	require.NotEmpty(t, processesWith(t, mark))
	require.NoError(t, owner.Process.Signal(syscall.SIGKILL))
	_ = owner.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for len(processesWith(t, mark)) > 0 {
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
	b, err := sandbox.Open(context.Background(), sandbox.BoxConfig{Root: root, Limits: sandbox.DefaultLimits(), Source: bytes.NewReader(make([]byte, 1024))})
	if err != nil {
		fmt.Println(err)
		return
	}
	if len(os.Args) > 3 { // a start is all that is wanted
		b.Close()
		return
	}
	mark := "previewd-sandbox-" + strconv.Itoa(os.Getpid())
	_, _ = b.Run(context.Background(), sandbox.Task{
		Argv: sh("sleep 301 & sleep 302 & sh -c 'sleep 303 & sleep 303' & echo alive; while :; do sleep 304; done # " + mark), Env: append(env, "MARK="+mark), Output: os.Stdout,
	})
}

// processesWith lists this machine's processes that have a text in their
// environment or command.
func processesWith(t *testing.T, text string) (pids []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, dir := range all {
		for _, file := range []string{"environ", "cmdline"} {
			raw, _ := os.ReadFile(filepath.Join(dir, file))
			if bytes.Contains(raw, []byte(text)) {
				pids = append(pids, filepath.Base(dir))
				break
			}
		}
	}
	return pids
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

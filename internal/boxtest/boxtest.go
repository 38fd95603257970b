// Package boxtest holds what tests of every kind of box share. Tests only import it.
// It is apart from testkit, which would bring the whole server into programs that
// are a box's first process too.
package boxtest

import (
	"archive/tar"
	"bytes"
	"context"
	_ "embed"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/sandbox"
)

// Env is what tasks of tests are given.
var Env = []string{"PATH=/usr/bin", "HOME=" + sandbox.Home, "NODE_OPTIONS=--max-old-space-size=4096"}

// Sh is a command of the shell.
func Sh(script string) []string { return []string{"sh", "-c", script} }

// Node is a program for Node.js.
func Node(script string) []string { return []string{"node", "-e", script} }

// Tar packs files.
func Tar(t testing.TB, files map[string]string) io.Reader {
	t.Helper()
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for name, text := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}))
		_, err := w.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return &packed
}

// Runner is a box of any kind.
type Runner interface {
	Run(ctx context.Context, task sandbox.Task) (sandbox.End, error)
}

// Run runs a command to its end and returns what it said.
func Run(t testing.TB, b Runner, argv []string) (sandbox.End, string) {
	t.Helper()
	var out bytes.Buffer
	end, err := b.Run(t.Context(), sandbox.Task{Argv: argv, Env: Env, Output: &out})
	require.NoError(t, err, out.String())
	return end, out.String()
}

//go:embed testdata/calls.c
var callsSource []byte

// CallsProgram compiles a program that makes system calls which a filter denies. It
// skips the test where there is no compiler.
func CallsProgram(t *testing.T) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("SKIPPED: gcc is not installed")
	}
	program := filepath.Join(t.TempDir(), "calls")
	compile := exec.Command(gcc, "-static", "-o", program, "-x", "c", "-")
	compile.Stdin = bytes.NewReader(callsSource)
	if out, err := compile.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: cannot compile a static program: %s", out)
	}
	raw, err := os.ReadFile(program)
	require.NoError(t, err)
	return string(raw)
}

// StartOwner starts this test's program again, to own a box whose task is Stay, and
// returns once that is alive.
func StartOwner(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	owner := exec.Command("/proc/self/exe", args...)
	owner.Stderr = t.Output()
	owner.WaitDelay = time.Minute // who has outlived it has its end of that
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
	return owner
}

// Stay is a task of several processes that says that it is alive and stays. All of
// them bear the mark of their owner.
func Stay(ownerPID int) sandbox.Task {
	mark := OwnerMark(ownerPID)
	return sandbox.Task{
		Argv:   Sh("sleep 301 & sleep 302 & sh -c 'sleep 303 & sleep 303' & echo alive; while :; do sleep 304; done # " + mark),
		Env:    append([]string{"MARK=" + mark}, Env...),
		Output: os.Stdout,
	}
}

// OwnerMark is what the task of an owner is found by.
func OwnerMark(ownerPID int) string { return "previewd-owner-" + strconv.Itoa(ownerPID) + "." }

// ProcessesWith lists this machine's processes that have a text in their environment
// or command.
func ProcessesWith(t *testing.T, text string) (pids []string) {
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

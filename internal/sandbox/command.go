// Package sandbox confines a process: how it is started and killed, and what it
// can reach once it has begun.
package sandbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// Command is a program to run as a child that never outlives its parent or its
// context.
type Command struct {
	Path   string
	Args   []string
	Dir    string
	Env    []string // all of it: nothing is inherited
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Exit is how a child ended.
type Exit struct {
	Code     int  // -1 when a signal ended it
	Canceled bool // the context ended first, and the whole process group was killed
}

// Run runs the command until it ends. When ctx ends first it kills the child's
// process group. It returns an error only when the child could not be run.
func Run(ctx context.Context, c Command) (Exit, error) {
	// The kernel ties the child's death signal to the thread that started it,
	// so the thread must live as long as the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Args[0] = os.Args[0] // a path like /proc/self/exe is no name
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Dir, c.Env, c.Stdin, c.Stdout, c.Stderr
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would mean: inherit
	}
	cmd.SysProcAttr = processGroup()
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	if cmd.Process != nil {
		// Whatever the child has left behind must not run on.
		_ = killGroup(cmd.Process.Pid)
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil && cmd.Process != nil:
		return Exit{Code: -1, Canceled: true}, nil
	case err == nil:
		return Exit{}, nil
	case errors.As(err, &exit):
		return Exit{Code: exit.ExitCode()}, nil
	}
	return Exit{}, err
}

// Policy is what a confined process can reach. Every other path is out of reach,
// and so is TCP where the kernel can refuse it (Linux 6.7).
type Policy struct {
	Read  []string // folders
	Write []string // folders
}

// Levels of isolation, weakest first.
const (
	LevelProcess  = "process"          // killable, limited, no environment; the kernel guards no path
	LevelLandlock = "process+landlock" // and the kernel refuses all paths but the policy's
)

// HeadBuffer keeps the first bytes that are written to it.
type HeadBuffer struct {
	bytes.Buffer
	Limit int
}

// Write implements io.Writer.
func (b *HeadBuffer) Write(p []byte) (int, error) {
	if room := b.Limit - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

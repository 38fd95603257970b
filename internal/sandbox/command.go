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
	// Limits, of which those on memory, processes and CPU count, hold from before the
	// command has read anything, where there are control groups to be had. A command
	// with limits also has no network, where the kernel lets it have namespaces of its
	// own.
	Limits *Limits
}

// Exit is how a child ended.
type Exit struct {
	Code     int  // -1 when a signal ended it
	Canceled bool // the context ended first, and the whole process group was killed

	OutOfMemory bool // the kernel has killed it for its memory
}

// Run runs the command until it ends. When ctx ends first it kills the child's
// process group. It returns an error only when the child could not be run.
func Run(ctx context.Context, c Command) (Exit, error) {
	// The kernel ties the child's death signal to the thread that started it,
	// so the thread must live as long as the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	apart := c.Limits != nil
	bounds := boundsOf(c.Limits)
	defer bounds.remove()
	cmd, err := c.start(ctx, bounds, apart)
	if err != nil && apart && refusesNamespaces(err) {
		cmd, err = c.start(ctx, bounds, false)
	}
	if err != nil {
		return Exit{}, err
	}
	err = cmd.Wait()
	// Whatever the child has left behind must not run on.
	_ = killGroup(cmd.Process.Pid)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return Exit{Code: -1, Canceled: true}, nil
	case err == nil:
		return Exit{}, nil
	case errors.As(err, &exit):
		return Exit{Code: exit.ExitCode(), OutOfMemory: bounds.outOfMemory()}, nil
	}
	return Exit{}, err
}

// start starts the command and bounds it before it gets its input.
func (c Command) start(ctx context.Context, bounds *group, apart bool) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Args[0] = os.Args[0] // a path like /proc/self/exe is no name
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.Dir, c.Env, c.Stdout, c.Stderr
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would mean: inherit
	}
	cmd.SysProcAttr = processGroup()
	if apart {
		setApart(cmd.SysProcAttr)
	}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = 2 * time.Second
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	if err := bounds.add(cmd.Process.Pid); err != nil {
		return nil, errors.Join(err, killGroup(cmd.Process.Pid), cmd.Wait())
	}
	go func() {
		if c.Stdin != nil {
			_, _ = io.Copy(input, c.Stdin) // a child that does not read says by its end why
		}
		input.Close()
	}()
	return cmd, nil
}

// Policy is what a confined process can reach. Every other path is out of reach,
// and so are sockets; see Confine.
type Policy struct {
	Read  []string // folders
	Write []string // folders
}

// Levels of isolation, weakest first.
const (
	LevelProcess  = "process"          // killable, limited, no environment; the kernel guards no path, or no system call
	LevelLandlock = "process+landlock" // and the kernel refuses all paths but the policy's, programs, processes and sockets
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

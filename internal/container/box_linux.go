package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/previewd/previewd/internal/sandbox"
)

const (
	fetchTime = 3 * time.Minute // that fetching a workspace may take
	lastWords = 2 * time.Second // that a container may take to end when its first process has
)

// machine is a container that runs.
type machine interface {
	// dead is closed when the first process has ended.
	dead() <-chan struct{}
	// end ends all that is in it, and returns once nothing is left.
	end()
	// outOfMemory reports whether the kernel has killed any of it for its memory, where
	// the first process cannot tell: it is dead, or its kernel is another.
	outOfMemory() bool
	// usage is what it has taken, if that can be told from outside.
	usage() sandbox.Usage
	// check tells whether its bounds are as they were set.
	check(ctx context.Context, l sandbox.Limits) []sandbox.Check
	// said is what it has said when it died, or its runtime.
	said() string
}

// Box is what one build runs in: a container.
type Box struct {
	limits  sandbox.Limits
	dir     string // its own: socket/, files/, …
	link    *link
	machine machine
	stop    func() // ends it, once
	release func() // of the folder
	trees   int
	over    string // folder of the last tree, once the box has ended
	ranOut  bool   // of memory, and a task was told
	last    sandbox.Usage
}

// spec is what a container is made of.
type spec struct {
	sandbox.BoxConfig
	dir string // of the box; the machine may have files there
	uid int    // of tasks, as the container has it
	// agentUID is the first process's, who uses the socket.
	agentUID int
}

func (s *spec) linkDir() string { return filepath.Join(s.dir, "link") }

// Open starts a box and lays its files out. It returns an error that wraps
// sandbox.ErrUnavailable when there can be none.
func (b *Backend) Open(ctx context.Context, cfg sandbox.BoxConfig) (*Box, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cfg.Executable = cmp.Or(cfg.Executable, executable)
	box := &Box{limits: cfg.Limits, stop: func() {}, release: func() {}}
	if cfg.WorkDir != "" {
		box.dir, err = os.MkdirTemp(cfg.WorkDir, "previewd-box-")
	} else {
		box.dir, box.release, err = sandbox.TempFolder("previewd-box-")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make a folder for the container: %w", err)
	}
	s := &spec{BoxConfig: cfg, dir: box.dir, uid: os.Geteuid()}
	if s.uid == 0 {
		s.uid = cmp.Or(cfg.UID, sandbox.DefaultUID)
	}
	if !b.gvisor() {
		s.agentUID = s.uid // else it is gVisor's root
	}
	if err := box.open(ctx, b, s); err != nil {
		box.Close()
		return nil, err
	}
	return box, nil
}

func (b *Box) open(ctx context.Context, backend *Backend, s *spec) (err error) {
	if err := os.Mkdir(s.linkDir(), 0o700); err != nil {
		return err
	}
	if b.link, err = listen(s.linkDir(), s.agentUID, len(s.Ports)); err != nil {
		return err
	}
	if b.machine, err = backend.start(ctx, s); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	b.stop = sync.OnceFunc(func() {
		b.link.close()
		b.machine.end()
	})
	go func() {
		<-b.machine.dead()
		b.link.close()
	}()
	defer context.AfterFunc(ctx, b.stop)()
	err = b.link.greet(hello{Ports: s.Ports, Modules: s.Modules != "", Limits: s.Limits, UID: s.uid})
	if err != nil {
		return b.broken(ctx, err)
	}
	return b.Unpack(ctx, s.Source)
}

// broken says why the first process does not answer.
func (b *Box) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	switch {
	case errors.Is(err, errHostile):
		b.stop()
		return err
	case errors.Is(err, sandbox.ErrUnavailable), errors.Is(err, sandbox.ErrFull):
		return err
	}
	select {
	case <-b.machine.dead(): // of itself, and may have said why
	case <-time.After(lastWords):
	}
	b.stop()
	return fmt.Errorf("the container has died: %s: %w", cmp.Or(b.machine.said(), "it says nothing"), err)
}

// Listeners returns one for each port of the configuration.
func (b *Box) Listeners() (list []net.Listener) {
	for _, l := range b.link.ports {
		list = append(list, l)
	}
	return list
}

// exchange has a request served: move moves the bytes of its connection. An error
// on this side ends the box: the answer that is still to come would be taken for
// that to the next request.
func (b *Box) exchange(ctx context.Context, r request, move func(net.Conn) error) (reply, error) {
	defer context.AfterFunc(ctx, b.stop)()
	stream, err := b.link.ask(r)
	if err == nil {
		var conn net.Conn
		if conn, err = b.link.connection(ctx, stream); err == nil {
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			err = move(conn)
			conn.Close()
		}
	}
	if ctx.Err() != nil {
		return reply{}, context.Cause(ctx)
	}
	if err != nil && !isGone(err) {
		b.stop()
		return reply{}, err
	}
	answer, failed := b.link.answer()
	if failed != nil {
		return reply{}, b.broken(ctx, failed)
	}
	return answer, err
}

// Run runs a task to its end. When ctx ends first it kills the box, which is of no
// use then, and returns ctx's cause.
func (b *Box) Run(ctx context.Context, t sandbox.Task) (sandbox.End, error) {
	output := t.Output
	t.Output = nil
	answer, err := b.exchange(ctx, request{Op: opRun, Task: t}, func(conn net.Conn) error {
		_, err := io.Copy(output, conn)
		return err
	})
	end := sandbox.End{Code: answer.Code, OutOfMemory: answer.OutOfMemory, ProcessesBound: answer.ProcessesBound}
	if (err != nil || end.Code != 0) && ctx.Err() == nil && !b.ranOut {
		b.ranOut = b.machine.outOfMemory()
		end.OutOfMemory = end.OutOfMemory || b.ranOut
	}
	if err != nil && end.OutOfMemory {
		return sandbox.End{Code: 128 + 9, OutOfMemory: true}, nil // the kernel has taken the whole container
	}
	if err != nil {
		return sandbox.End{}, err
	}
	b.last = sandbox.Usage{CPU: answer.CPU, Memory: answer.Memory}
	return end, nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Unpack lays more files out in the workspace.
func (b *Box) Unpack(ctx context.Context, source io.Reader) error {
	_, err := b.exchange(ctx, request{Op: opUnpack}, func(conn net.Conn) error {
		_, err := io.Copy(conn, source)
		if err == nil {
			err = conn.(*slotConn).CloseWrite()
		}
		if err == nil {
			_, err = io.Copy(io.Discard, conn) // until it was read
		}
		return err
	})
	return err
}

// Files opens a copy of the workspace, made while no task runs. Once the box has
// ended it is the one that Output has made.
func (b *Box) Files(ctx context.Context) (*os.Root, error) {
	if b.over != "" {
		return os.OpenRoot(b.over)
	}
	return b.fetch(ctx, true)
}

// Output ends the box and opens a folder of a copy of its workspace, without what
// was installed into it. The caller closes it before the box, and must expect
// anything in it: links, names.
func (b *Box) Output(ctx context.Context, dir string) (*os.Root, error) {
	root, err := b.fetch(ctx, false)
	b.last = b.Usage()
	b.stop()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	b.over = root.Name()
	return root.OpenRoot(dir)
}

// fetch copies the workspace to a folder of the box's.
func (b *Box) fetch(ctx context.Context, all bool) (*os.Root, error) {
	b.trees++
	dir := filepath.Join(b.dir, fmt.Sprintf("tree-%d", b.trees))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	_, err := b.exchange(ctx, request{Op: opPack, All: all}, func(conn net.Conn) error {
		return (&unpacker{dir: dir, limits: b.limits, free: freeOn}).unpack(conn)
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return os.OpenRoot(dir)
}

// freeOn returns how many bytes a folder's file system takes from this user.
func freeOn(dir string) (int64, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(dir, &fs)
	return int64(fs.Bavail) * fs.Bsize, err
}

// Usage returns what the box has taken so far.
func (b *Box) Usage() sandbox.Usage {
	if u := b.machine.usage(); u != (sandbox.Usage{}) {
		return u
	}
	return b.last
}

// Close ends the box. Nothing is left of it.
func (b *Box) Close() {
	b.stop()
	if b.link != nil {
		b.link.close()
	}
	os.RemoveAll(b.dir)
	b.release()
}

// isGone reports whether an error says no more than that the other end has gone,
// which says why itself.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || isReset(err)
}

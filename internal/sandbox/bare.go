package sandbox

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// LevelNone is what a Bare gives: nothing.
const LevelNone = "none"

// Bare runs tasks as processes of this machine, with the programs, the files and
// the network that its user has. It keeps nobody from anything: it is for trees
// that their owner has written and builds on a machine of his own.
type Bare struct {
	dir       string   // its own, which tasks cannot change; workspace, home and tmp are in it
	root      *os.Root // the workspace, whatever comes to be at its path
	release   func()   // of the folder
	listeners []net.Listener
	inside    *strings.Replacer // from where things are in a box to where they are here
	outside   *strings.Replacer // and back
	uid       int               // of tasks; -1 for this process's own
}

// OpenBare makes folders, lays the files out in them, and listens where a box
// would. It takes no notice of cfg.Root and cfg.Limits.
func OpenBare(ctx context.Context, cfg BoxConfig) (*Bare, error) {
	b := &Bare{uid: -1, release: func() {}}
	var err error
	if os.Geteuid() == 0 {
		b.uid = cmp.Or(cfg.UID, DefaultUID) // root would be worse than needed
	}
	if cfg.WorkDir != "" && b.uid < 0 {
		b.dir, err = os.MkdirTemp(cfg.WorkDir, "previewd-bare-")
	} else {
		b.dir, b.release, err = TempFolder("previewd-bare-") // another user cannot reach the server's folders
	}
	if err != nil {
		return nil, err
	}
	if err := b.open(ctx, cfg); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Bare) open(ctx context.Context, cfg BoxConfig) (err error) {
	if b.dir, err = filepath.EvalSymlinks(b.dir); err != nil { // /tmp is a link on some systems
		return err
	}
	var places []string // pairs: in a box, here
	for _, port := range cfg.Ports {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		b.listeners = append(b.listeners, l)
		places = append(places, fmt.Sprintf("127.0.0.1:%d", port), l.Addr().String())
	}
	places = append(places, Workspace, b.workspace(), Home, filepath.Join(b.dir, "home"), "TMPDIR="+TempDir, "TMPDIR="+filepath.Join(b.dir, "tmp"))
	b.inside = strings.NewReplacer(places...)
	b.outside = strings.NewReplacer(b.workspace(), Workspace)
	for _, name := range []string{"workspace", "home", "tmp"} {
		dir := filepath.Join(b.dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if b.uid >= 0 {
			if err := os.Lchown(dir, b.uid, b.uid); err != nil {
				return err
			}
		}
	}
	if b.uid >= 0 {
		if err := os.Chmod(b.dir, 0o711); err != nil { // they may pass, no more
			return err
		}
	}
	if b.root, err = os.OpenRoot(b.workspace()); err != nil {
		return err
	}
	if cfg.Modules != "" {
		// Copied: what is kept must stay as it is.
		if err := os.CopyFS(filepath.Join(b.workspace(), "node_modules"), os.DirFS(cfg.Modules)); err != nil {
			return fmt.Errorf("cannot copy packages: %w", err)
		}
	}
	return b.Unpack(ctx, cfg.Source)
}

func (b *Bare) workspace() string { return filepath.Join(b.dir, "workspace") }

// Listeners returns one for each port of the configuration.
func (b *Bare) Listeners() []net.Listener { return b.listeners }

// Unpack lays more files out in the workspace.
func (b *Bare) Unpack(_ context.Context, source io.Reader) error {
	if err := unpackIn(b.root, source); err != nil {
		return err
	}
	if b.uid < 0 {
		return nil
	}
	return fs.WalkDir(b.root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := b.root.Lstat(name)
		if err != nil {
			return err
		}
		// A file that has another name too may be nobody's to give away.
		stat, ok := info.Sys().(*syscall.Stat_t)
		if ok && (int(stat.Uid) == b.uid || !info.IsDir() && stat.Nlink > 1) {
			return nil
		}
		return b.root.Lchown(name, b.uid, b.uid)
	})
}

// Run runs a task to its end, or until ctx ends. Then it kills the task's process
// group; what has left the group lives on.
func (b *Bare) Run(ctx context.Context, t Task) (End, error) {
	env := make([]string, len(t.Env))
	for i, entry := range t.Env {
		env[i] = b.inside.Replace(entry)
		if path, ok := strings.CutPrefix(env[i], "PATH="); ok {
			env[i] = "PATH=" + path + string(os.PathListSeparator) + os.Getenv("PATH")
		}
	}
	argv := make([]string, len(t.Argv))
	for i, word := range t.Argv {
		argv[i] = b.inside.Replace(word)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return End{}, err
	}
	copied := make(chan struct{})
	go func() {
		b.copyOutput(t.Output, read)
		close(copied)
	}()
	cmd := exec.CommandContext(ctx, "/usr/bin/env", append([]string{"--"}, argv...)...) // looks in the PATH of env
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = env, filepath.Join(b.workspace(), filepath.FromSlash(t.Dir)), write, write
	cmd.SysProcAttr = processGroup()
	if b.uid >= 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(b.uid), Gid: uint32(b.uid)}
	}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	err = cmd.Run()
	if cmd.Process != nil {
		_ = killGroup(cmd.Process.Pid)
	}
	write.Close()
	select {
	case <-copied:
	case <-time.After(2 * time.Second): // what has left the group holds it open
	}
	read.Close()
	<-copied
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return End{}, context.Cause(ctx)
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return End{Code: 128 + int(status.Signal())}, nil
		}
		return End{Code: exit.ExitCode()}, nil
	}
	return End{}, err
}

// copyOutput copies lines, with names as they are in a box.
func (b *Bare) copyOutput(to io.Writer, from io.Reader) {
	lines := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := lines.ReadSlice('\n') // or as much of one as fits
		_, _ = b.outside.WriteString(to, string(line))
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// Files opens the workspace while no task runs.
func (b *Bare) Files(context.Context) (*os.Root, error) { return b.root.OpenRoot(".") }

// Output opens a folder of the workspace.
func (b *Bare) Output(_ context.Context, dir string) (*os.Root, error) { return b.root.OpenRoot(dir) }

// Usage returns nothing: nobody has counted.
func (b *Bare) Usage() Usage { return Usage{} }

// Close removes the folders.
func (b *Bare) Close() {
	for _, l := range b.listeners {
		l.Close()
	}
	if b.root != nil {
		b.root.Close()
	}
	_ = os.RemoveAll(b.dir)
	b.release()
}

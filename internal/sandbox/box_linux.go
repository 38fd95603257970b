package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// buildID is the user and group of everything in a box, as seen inside.
const buildID = 1000

// Box is what one build runs in. Nothing in it outlives it, or the thread of its
// owner: the kernel kills it with its first process.
type Box struct {
	control   *net.UnixConn
	command   *exec.Cmd
	dead      chan struct{} // closed when the first process has ended
	stderr    HeadBuffer
	group     *group
	workspace *os.File
	listeners []net.Listener
}

// Open starts a box and lays its files out. It returns an error that wraps
// ErrUnavailable when this machine allows none.
func Open(ctx context.Context, cfg BoxConfig) (*Box, error) {
	b := &Box{dead: make(chan struct{}), stderr: HeadBuffer{Limit: 4 << 10}}
	if err := b.open(ctx, cfg); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Box) open(ctx context.Context, cfg BoxConfig) (err error) {
	if b.group, err = newGroup(cfg.Limits); err != nil && !cfg.Unlimited {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot make a socket: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	if b.control, err = packetConn(pair[0]); err != nil {
		theirs.Close()
		return err
	}
	source, feed, err := os.Pipe()
	if err != nil {
		theirs.Close()
		return err
	}
	told := initConfig{Root: cfg.Root, Modules: cfg.Modules, Limits: cfg.Limits, Ports: cfg.Ports}
	files := []*os.File{theirs, source}
	if told.Mounted = os.Geteuid() == 0; told.Mounted {
		// The ways to the folders may be closed to the user of the box.
		for _, dir := range told.folders() {
			var mount *os.File
			if mount, err = cloneMount(dir); err != nil {
				err = fmt.Errorf("%w: %w", ErrUnavailable, err)
				break
			}
			files = append(files, mount)
		}
	}
	if err == nil {
		err = b.start(cfg, files)
	}
	// With these open here a box that dies would not be noticed.
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		feed.Close()
		return err
	}
	defer context.AfterFunc(ctx, b.kill)()
	err = b.group.add(b.command.Process.Pid)
	fed := make(chan error, 1)
	go func() {
		_, err := io.Copy(feed, cfg.Source)
		fed <- errors.Join(err, feed.Close())
	}()
	if err == nil {
		err = b.send(told, nil)
	}
	var fds []int
	if err == nil {
		fds, err = b.receive(&initReply{})
	}
	if err != nil {
		b.kill()
		<-b.dead
		return errors.Join(context.Cause(ctx), err, ignoreBrokenPipe(<-fed))
	}
	b.workspace = os.NewFile(uintptr(fds[0]), "workspace")
	for _, fd := range fds[1:] {
		f := os.NewFile(uintptr(fd), "listener")
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return err
		}
		b.listeners = append(b.listeners, l)
	}
	return <-fed
}

func ignoreBrokenPipe(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return nil // the other end says why it is gone
	}
	return err
}

func packetConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "control")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// start starts the first process in namespaces of its own.
func (b *Box) start(cfg BoxConfig, files []*os.File) error {
	cmd := exec.CommandContext(context.Background(), cmp.Or(cfg.Executable, "/proc/self/exe"), InitArg)
	cmd.Env, cmd.Stderr, cmd.ExtraFiles = []string{}, &b.stderr, files
	cmd.Dir, cmd.Args[0] = "/", "previewd" // tasks can see it
	cmd.WaitDelay = time.Second
	uid, gid := os.Geteuid(), os.Getegid()
	root := uid == 0
	if root {
		uid = cmp.Or(cfg.UID, DefaultUID)
		gid = uid
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC |
			unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: buildID, HostID: uid, Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: buildID, HostID: gid, Size: 1}},
		GidMappingsEnableSetgroups: root,
		Credential:                 &syscall.Credential{Uid: buildID, Gid: buildID, NoSetGroups: !root},
		AmbientCaps:                []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_SETPCAP, unix.CAP_DAC_OVERRIDE, unix.CAP_SYS_RESOURCE},
		Setsid:                     true,
		Pdeathsig:                  syscall.SIGKILL,
	}
	started := make(chan error)
	go func() {
		// The kernel ties the death signal to the thread that started it.
		runtime.LockOSThread()
		err := cmd.Start()
		if err == nil {
			b.command = cmd
		}
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(b.dead)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("%w: namespaces are refused: %w", ErrUnavailable, err)
	}
	return nil
}

func (b *Box) send(message any, out *os.File) error {
	raw, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(raw) > maxPacket {
		return fmt.Errorf("a command with its environment has more than %d bytes", maxPacket)
	}
	var rights []byte
	if out != nil {
		rights = unix.UnixRights(int(out.Fd()))
	}
	if _, _, err := b.control.WriteMsgUnix(raw, rights, nil); err != nil {
		return b.broken(err)
	}
	return nil
}

// receive returns the files that came with a reply.
func (b *Box) receive(reply *initReply) (fds []int, err error) {
	raw, rights := make([]byte, maxPacket), make([]byte, unix.CmsgSpace(4*8))
	n, r, _, _, err := b.control.ReadMsgUnix(raw, rights)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, b.broken(err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:r])
	for _, m := range messages {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		fds = append(fds, got...)
	}
	if err == nil {
		err = json.Unmarshal(raw[:n], reply)
	}
	if err == nil && reply.Error != "" {
		err = Refused(reply.Error)
	}
	return fds, err
}

// broken says why the first process does not answer.
func (b *Box) broken(err error) error {
	b.kill()
	<-b.dead
	if said := strings.TrimSpace(b.stderr.String()); said != "" {
		return fmt.Errorf("the sandbox has died: %s", said)
	}
	return fmt.Errorf("the sandbox has died (%s): %w", b.command.ProcessState, err)
}

// Listeners returns one for each port of the configuration.
func (b *Box) Listeners() []net.Listener { return b.listeners }

// Run runs a task to its end. When ctx ends first it kills the box, which is of no
// use then, and returns ctx's cause.
func (b *Box) Run(ctx context.Context, t Task) (End, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return End{}, err
	}
	defer context.AfterFunc(ctx, b.kill)()
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(t.Output, read)
		copied <- errors.Join(err, read.Close())
	}()
	before := b.group.events()
	err = b.send(initTask{Argv: t.Argv, Env: t.Env, Dir: path.Join(Workspace, t.Dir)}, write)
	write.Close()
	var reply initReply
	if err == nil {
		_, err = b.receive(&reply)
	}
	// All who could write are dead, so this ends.
	err = errors.Join(err, <-copied)
	if ctx.Err() != nil {
		return End{}, context.Cause(ctx)
	}
	after := b.group.events()
	end := End{Code: reply.Code, OutOfMemory: after.Killed > before.Killed, ProcessesBound: after.Refused > before.Refused}
	if err != nil && end.OutOfMemory {
		end.Code, err = 128+int(unix.SIGKILL), nil // the kernel has taken the whole box
	}
	return end, err
}

func (b *Box) kill() {
	if b.command != nil {
		_ = b.command.Process.Kill()
	}
}

// Unpack lays more files out in the workspace.
func (b *Box) Unpack(ctx context.Context, source io.Reader) error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, b.kill)()
	fed := make(chan error, 1)
	go func() {
		_, err := io.Copy(write, source)
		fed <- errors.Join(ignoreBrokenPipe(err), write.Close())
	}()
	err = b.send(initTask{Unpack: true}, read)
	read.Close()
	if err == nil {
		_, err = b.receive(&initReply{})
	}
	err = errors.Join(err, <-fed)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Files opens the workspace while no task runs.
func (b *Box) Files(context.Context) (*os.Root, error) {
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", b.workspace.Fd()))
}

// Output ends the box and opens a folder of its workspace. The caller closes it
// before the box, and must expect anything in it: links, devices, names.
func (b *Box) Output(ctx context.Context, dir string) (*os.Root, error) {
	b.kill()
	<-b.dead
	// The files are there as long as the folder is open; no process is left that
	// could change them.
	root, err := b.Files(ctx)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenRoot(dir)
}

// Usage returns what the box has taken so far.
func (b *Box) Usage() Usage { return b.group.usage() }

// Close ends the box. Nothing is left of it.
func (b *Box) Close() {
	if b.command != nil {
		b.kill()
		<-b.dead
	}
	if b.control != nil {
		b.control.Close()
	}
	for _, l := range b.listeners {
		l.Close()
	}
	if b.workspace != nil {
		b.workspace.Close()
	}
	b.group.remove()
}

// Probe opens a box and has it check itself.
func Probe(ctx context.Context, cfg BoxConfig) Report {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	refused := func(err error) Report {
		return Report{Level: LevelProcess, Reason: err.Error(), Fix: fixOf(err.Error())}
	}
	hidden, err := os.CreateTemp("", "previewd-probe-")
	if err != nil {
		return refused(err)
	}
	defer os.Remove(hidden.Name())
	defer hidden.Close()
	began := time.Now()
	cfg.Source = strings.NewReader("")
	b, err := Open(ctx, cfg)
	if err != nil {
		return refused(err)
	}
	defer b.Close()
	report := Report{Level: LevelNamespace, Start: time.Since(began)}
	var reply initReply
	if err := b.send(initTask{Probe: true, Hidden: hidden.Name()}, nil); err != nil {
		return refused(err)
	}
	if _, err := b.receive(&reply); err != nil {
		return refused(err)
	}
	report.Judge("sandbox", append(reply.Checks, b.group.check(cfg.Limits)))
	return report
}

// fixOf says what lets boxes run where they are refused.
func fixOf(reason string) string {
	switch {
	case strings.Contains(reason, "control group"):
		return "Run previewd as root, or have its service manager delegate the control groups memory, pids and cpu (systemd: Delegate=memory pids cpu)."
	case strings.Contains(reason, "namespaces are refused"):
		return "In a container, start it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined. " +
			"On Ubuntu 23.10 and newer, give the program an AppArmor profile with \"userns,\". " +
			"Elsewhere, see that user namespaces are on: sysctl user.max_user_namespaces."
	case strings.Contains(reason, "/proc"):
		return "In a container, start it with --security-opt systempaths=unconfined."
	}
	return ""
}

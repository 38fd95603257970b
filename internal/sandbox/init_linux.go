package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The files that the first process of a box is started with.
const (
	fdControl = 3
	fdSource  = 4
	fdFolders = 5 // and on: when its owner has mounted them
)

// Init is the whole life of the first process of a box. It is trusted: it lays
// the box out, gives up what it may do, and runs one task after the other.
// It ends when its owner does.
func Init() (exitCode int) {
	startThreads()
	// What confines tasks is this thread's, and theirs by being its children.
	runtime.LockOSThread()
	// What its owner has open besides is nobody's business here.
	if err := unix.CloseRange(fdControl, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, "cannot keep files from tasks:", err)
		return 2
	}
	control, err := packetConn(fdControl)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot reach the owner:", err)
		return 2
	}
	i := &initProcess{control: control}
	if err := i.prepare(); err != nil {
		_ = i.reply(initReply{Error: err.Error()})
		return 2
	}
	for {
		if err := i.serve(); err != nil {
			return 0 // its owner has gone
		}
	}
}

// startThreads starts the threads that the runtime may want later: tasks that have
// met the bound on processes leave it none, and it dies of that.
func startThreads() {
	const threads = 12
	var started, over sync.WaitGroup
	started.Add(threads)
	for range threads {
		over.Go(func() {
			runtime.LockOSThread() // each has one of its own until all have
			defer runtime.UnlockOSThread()
			started.Done()
			started.Wait()
		})
	}
	over.Wait()
}

type initProcess struct {
	control *net.UnixConn
	victim  *os.File            // its oom_score_adj, which tasks begin with
	user    *syscall.Credential // of tasks; nil for this process's
}

func (i *initProcess) reply(r initReply, fds ...int) error {
	raw, err := json.Marshal(r)
	if err == nil {
		_, _, err = i.control.WriteMsgUnix(raw, unix.UnixRights(fds...), nil)
	}
	return err
}

// receive reads a packet, and the file that came with it.
func (i *initProcess) receive(message any) (out *os.File, err error) {
	raw, rights := make([]byte, maxPacket), make([]byte, unix.CmsgSpace(4))
	n, r, _, _, err := i.control.ReadMsgUnix(raw, rights)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return nil, err
	}
	if r > 0 {
		messages, err := unix.ParseSocketControlMessage(rights[:r])
		if err != nil {
			return nil, err
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			return nil, err
		}
		out = os.NewFile(uintptr(fds[0]), "output")
	}
	return out, json.Unmarshal(raw[:n], message)
}

// prepare makes the box around this process.
func (i *initProcess) prepare() error {
	var cfg initConfig
	if _, err := i.receive(&cfg); err != nil {
		return err
	}
	var mounts []*os.File
	for i, dir := range cfg.folders() {
		var mount *os.File
		if cfg.Mounted {
			mount = os.NewFile(uintptr(fdFolders+i), dir)
		} else {
			var err error
			if mount, err = cloneMount(dir); err != nil {
				return err
			}
		}
		defer mount.Close()
		mounts = append(mounts, mount)
	}
	if err := mountAll(mounts, cfg.Limits); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("build")); err != nil {
		return fmt.Errorf("cannot name the host: %w", err)
	}
	source := os.NewFile(fdSource, "source")
	if err := unpack(source, Workspace); err != nil {
		return fmt.Errorf("cannot lay out the source: %w", err)
	}
	source.Close()
	workspace, err := os.Open(Workspace)
	if err != nil {
		return err
	}
	defer workspace.Close()
	fds := []int{int(workspace.Fd())}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("cannot set up the loopback device: %w", err)
	}
	for _, port := range cfg.Ports {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			return fmt.Errorf("cannot listen: %w", err)
		}
		defer l.Close()
		f, err := l.File()
		if err != nil {
			return err
		}
		defer f.Close()
		fds = append(fds, int(f.Fd()))
	}
	if err := boundWatches(); err != nil {
		return err
	}
	if i.victim, err = os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0); err != nil {
		return fmt.Errorf("cannot prefer tasks to this process: %w", err)
	}
	if err := harden(cfg); err != nil {
		return err
	}
	if err := dropSignalHandlers(); err != nil {
		return fmt.Errorf("cannot drop signal handlers: %w", err)
	}
	return i.reply(initReply{}, fds...)
}

// dropSignalHandlers takes the Go runtime's handlers away: the kernel spares the
// first process of a namespace every signal from inside that it does not handle
// (pid_namespaces(7)). Those stay that the runtime sends itself.
func dropSignalHandlers() error {
	var standard [4]uintptr // struct sigaction of the kernel: SIG_DFL, and nothing else
	for number := 1; number <= 31; number++ {
		switch unix.Signal(number) {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG:
			continue
		}
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(number), uintptr(unsafe.Pointer(&standard)), 0, 8, 0, 0)
		if errno != 0 {
			return errno
		}
	}
	return nil
}

// cloneMount returns a mount of a folder that is attached nowhere: read-only, and
// without devices and setuid programs.
func cloneMount(dir string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot mount %s: %w", dir, err)
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot mount %s read-only: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// attach puts a mount where it is to be.
func attach(mount *os.File, at string) error {
	if err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot mount %s: %w", mount.Name(), err)
	}
	return nil
}

// mountAll makes the file system of the box, and leaves the host's.
func mountAll(mounts []*os.File, limits Limits) error {
	const at = "/tmp" // on any machine; what it hides is not needed any more
	var failed error
	mount := func(source, target, kind string, flags uintptr, data string) {
		if failed == nil {
			if err := unix.Mount(source, target, kind, flags, data); err != nil {
				failed = fmt.Errorf("cannot mount %s: %w", strings.TrimPrefix(target, at), err)
			}
		}
	}
	do := func(err error) { failed = errors.Join(failed, err) }

	mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if failed != nil {
		return failed
	}
	if err := attach(mounts[0], at); err != nil {
		return err
	}
	mount("proc", at+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")

	// One file system for all that is written, so that one bound holds for it. It
	// lies under the workspace, where nobody can reach it but through its parts.
	scratch := at + Workspace
	mount("scratch", scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,nr_inodes=%d,mode=0755", limits.Disk, limits.Inodes))
	if failed != nil {
		return failed
	}
	for _, dir := range []string{"workspace", "home", "tmp", "shm", "modules", "upper", "work"} {
		do(os.Mkdir(scratch+"/"+dir, 0o755))
	}
	mount("dev", at+"/dev", "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "size=64k,nr_inodes=64,mode=0755")
	for _, name := range []string{"null", "zero", "full", "random", "urandom"} {
		do(os.WriteFile(at+"/dev/"+name, nil, 0o600))
		mount("/dev/"+name, at+"/dev/"+name, "", unix.MS_BIND, "")
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		do(os.Symlink(target, at+"/dev/"+name))
	}
	do(os.Mkdir(at+"/dev/shm", 0o755))
	mount(scratch+"/shm", at+"/dev/shm", "", unix.MS_BIND, "")
	mount("", at+"/dev", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NOEXEC, "")
	mount(scratch+"/home", at+Home, "", unix.MS_BIND, "")
	mount(scratch+"/tmp", at+TempDir, "", unix.MS_BIND, "")
	if failed == nil && len(mounts) > 1 {
		do(attach(mounts[1], scratch+"/modules"))
		do(os.Mkdir(scratch+"/workspace/node_modules", 0o755))
		mount("modules", scratch+"/workspace/node_modules", "overlay", unix.MS_NOSUID|unix.MS_NODEV,
			fmt.Sprintf("lowerdir=%s/modules,upperdir=%s/upper,workdir=%s/work,userxattr", scratch, scratch, scratch))
	}
	mount(scratch+"/workspace", at+Workspace, "", unix.MS_BIND|unix.MS_REC, "")
	if failed != nil {
		return failed
	}
	do(os.Chdir(at))
	do(unix.PivotRoot(".", "."))
	do(unix.Unmount(".", unix.MNT_DETACH))
	do(os.Chdir("/"))
	return failed
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err == nil {
		err = unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, lo)
	}
	if err != nil {
		return err
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

// serve runs one task. An error says that there are no more.
func (i *initProcess) serve() error {
	var t initTask
	out, err := i.receive(&t)
	if err != nil {
		return err
	}
	if t.Probe {
		return i.reply(initReply{Checks: selfChecks(t.Hidden)})
	}
	if t.Unpack {
		err := unpack(out, Workspace)
		out.Close()
		if err != nil {
			return i.reply(initReply{Error: err.Error()})
		}
		return i.reply(initReply{})
	}
	code := i.run(t, out)
	out.Close()
	return i.reply(initReply{Code: code})
}

// startAsVictim starts a task that the kernel kills before anything else of the
// machine when memory runs out; then this process can still say so.
func (i *initProcess) startAsVictim(cmd *exec.Cmd) error {
	if i.victim == nil {
		return cmd.Start()
	}
	if _, err := i.victim.WriteAt([]byte("1000"), 0); err != nil {
		return err
	}
	err := cmd.Start()
	_, back := i.victim.WriteAt([]byte("0"), 0)
	return errors.Join(err, back)
}

// boundWatches bounds what is counted for the user whose server has made the box.
func boundWatches() error {
	for name, limit := range map[string]string{"max_inotify_instances": "64", "max_inotify_watches": "100000"} {
		if err := os.WriteFile("/proc/sys/user/"+name, []byte(limit), 0o600); err != nil {
			return fmt.Errorf("cannot bound watches: %w", err)
		}
	}
	return nil
}

// run runs a task until it ends, and kills what it leaves behind.
func (i *initProcess) run(t initTask, out *os.File) (code int) {
	for _, entry := range t.Env {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			os.Setenv("PATH", value) // where the program is looked for
		}
	}
	cmd := exec.CommandContext(context.Background(), t.Argv[0], t.Argv[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = t.Env, t.Dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: i.user}
	if err := i.startAsVictim(cmd); err != nil {
		fmt.Fprintf(out, "%s: %v\n", filepath.Base(t.Argv[0]), err)
		if errors.Is(err, exec.ErrNotFound) {
			return 127 // as a shell says
		}
		return 126
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 126 // there must be a child: it was started
		}
		if pid == cmd.Process.Pid {
			code = status.ExitStatus()
			if status.Signaled() {
				code = 128 + int(status.Signal())
			}
			break
		}
	}
	// Everything in the box but this process.
	for !errors.Is(unix.Kill(-1, unix.SIGKILL), unix.ESRCH) {
		if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
			break
		}
	}
	return code
}

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// harden gives up what tasks must not be able to do. Limits and paths are the
// whole process's; capabilities and the filter are the calling thread's, which
// starts all tasks.
func harden(cfg initConfig) error {
	limits := map[int]int64{
		unix.RLIMIT_CORE: 0, unix.RLIMIT_MEMLOCK: 64 << 10, unix.RLIMIT_MSGQUEUE: 0, unix.RLIMIT_SIGPENDING: 1024,
		unix.RLIMIT_FSIZE: cfg.Limits.FileSize, unix.RLIMIT_NOFILE: cfg.Limits.OpenFiles,
	}
	for resource, limit := range limits {
		if err := lowerLimit(resource, uint64(limit)); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot hide this process: %w", err)
	}
	err := landlock.V6.BestEffort().RestrictPaths(
		landlock.RODirs("/usr", "/etc", "/proc"),
		landlock.RWDirs(Workspace, Home, TempDir, "/dev/shm").WithRefer(),
		landlock.PathAccess(ll.AccessFSReadDir, "/"), // names may be seen
		landlock.RWFiles("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"),
	)
	if err != nil {
		return fmt.Errorf("cannot restrict paths: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return fmt.Errorf("cannot drop capabilities: %w", err)
	}
	return boxCalls().filter(0)
}

func lowerLimit(resource int, limit uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return fmt.Errorf("cannot read limit: %w", err)
	}
	limit = min(limit, now.Max)
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return fmt.Errorf("cannot set limit: %w", err)
	}
	return nil
}

// dropCapabilities leaves the calling thread without any, for good.
func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := dropBounding(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

// dropBounding leaves the calling thread, and what it becomes, no capability to gain.
func dropBounding() error {
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // the kernel has no more
		}
		if err != nil {
			return err
		}
	}
}

// CheckFirst is a check of the process that starts tasks, unlike the others.
const CheckFirst = "first process"

// selfChecks tells whether the calling thread, and so every task, is confined.
func selfChecks(hidden string) []Check {
	var checks []Check
	check := func(name string, ok bool, got any) {
		checks = append(checks, Check{Name: name, OK: ok, Got: fmt.Sprint(got)})
	}
	status, err := os.ReadFile("/proc/thread-self/status")
	field := func(name string) string {
		for line := range strings.Lines(string(status)) {
			if value, ok := strings.CutPrefix(line, name+":"); ok {
				return strings.TrimSpace(value)
			}
		}
		return fmt.Sprint("absent: ", err)
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		check("no capability in "+set, strings.Trim(field(set), "0") == "", field(set))
	}
	check("no new privileges", field("NoNewPrivs") == "1", field("NoNewPrivs"))
	check("filtered system calls", field("Seccomp") == "2", field("Seccomp"))
	check("not root", os.Getuid() > 0 && os.Getgid() > 0, os.Getuid())
	check(CheckFirst, os.Getpid() == 1, os.Getpid())
	devices, err := os.ReadFile("/proc/net/dev")
	check("only the loopback device", strings.Count(string(devices), ":") == 1 && strings.Contains(string(devices), "lo:"), err)
	_, err = os.Stat(hidden)
	check("files of the host are hidden", errors.Is(err, os.ErrNotExist), err)
	err = os.WriteFile("/usr/previewd-probe", nil, 0o600)
	check("the root is read-only", err != nil, err)
	denied := func(name string, err error) { check(name, errors.Is(err, unix.EPERM), err) }
	for _, family := range []struct {
		name   string
		number int
	}{{"vsock", unix.AF_VSOCK}, {"alg", unix.AF_ALG}, {"packet", unix.AF_PACKET}} {
		_, err := unix.Socket(family.number, unix.SOCK_STREAM, 0)
		denied("no socket of the family "+family.name, err)
	}
	denied("no user namespace", unix.Unshare(unix.CLONE_NEWUSER))
	denied("no mount", unix.Mount("x", "/tmp", "tmpfs", 0, ""))
	check("no way to the network", dial() != nil, dial())
	return checks
}

// dial tries to leave the box: to the address at which clouds tell secrets.
func dial() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	err = unix.Connect(s, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{169, 254, 169, 254}})
	if errors.Is(err, unix.EINPROGRESS) {
		return nil // packets leave
	}
	return err
}

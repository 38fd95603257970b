package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

func processGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }

const (
	maxFileSize = 512 << 20
	maxFiles    = 4096
)

// Confine limits the calling process, all its threads, for ever, and returns the
// level reached. With LevelLandlock it can from then on start no program and no
// process, open no socket and signal nobody. A kernel without Landlock, or without
// filters on system calls, gives LevelProcess and what it has: the caller says so on
// what it makes. It returns an error when a limit that the kernel has cannot be set.
func Confine(p Policy) (level string, err error) {
	limits := map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: maxFileSize, unix.RLIMIT_NOFILE: maxFiles}
	for resource, limit := range limits {
		if err := lowerLimit(resource, limit); err != nil {
			return "", err
		}
	}
	// When memory runs out the kernel takes the child and leaves the server.
	// Without /proc there is nothing to write to, and no harm.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	level = LevelProcess
	if hasLandlock() {
		level = LevelLandlock
		err = landlock.V6.BestEffort().Restrict(landlock.RODirs(p.Read...), landlock.RWDirs(p.Write...))
		if err != nil {
			return "", fmt.Errorf("cannot restrict paths: %w", err)
		}
	}
	if !hasFilters() {
		return LevelProcess, nil
	}
	err = filterParser()
	if errors.Is(err, errors.ErrUnsupported) {
		return LevelProcess, nil
	}
	return level, err
}

// hasFilters reports whether the kernel filters system calls (Linux 4.14).
func hasFilters() bool {
	errno := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, failed := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&errno)))
	return failed == 0
}

// filterParser filters the system calls of all threads. It is for the thread that
// calls to give up new privileges first.
func filterParser() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot give up new privileges: %w", err)
	}
	return parserCalls().filter(unix.SECCOMP_FILTER_FLAG_TSYNC)
}

func hasLandlock() bool {
	abi, err := ll.LandlockGetABIVersion()
	return err == nil && abi >= 1
}

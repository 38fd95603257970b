package sandbox

import (
	"fmt"
	"os"
	"syscall"

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

// Confine limits the calling process, for ever, and returns the level reached.
// A kernel without Landlock gives LevelProcess: the caller says so on what it
// makes. It returns an error when a limit that the kernel has cannot be set.
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
	if !hasLandlock() {
		return LevelProcess, nil
	}
	err = landlock.V6.BestEffort().Restrict(landlock.RODirs(p.Read...), landlock.RWDirs(p.Write...))
	if err != nil {
		return "", fmt.Errorf("cannot restrict paths: %w", err)
	}
	return LevelLandlock, nil
}

func hasLandlock() bool {
	abi, err := ll.LandlockGetABIVersion()
	return err == nil && abi >= 1
}

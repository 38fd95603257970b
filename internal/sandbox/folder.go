package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// folderPrefixes begin the names of folders among the machine's temporary files.
var folderPrefixes = []string{"previewd-bare-", "previewd-box-", unlockedPrefix}

// unlockedPrefix begins those of folders that nobody has had the time to lock.
const unlockedPrefix = "previewd-new-"

// TempFolder makes a folder among the machine's temporary files, which Sweep lets be
// until release is called or this process ends. The prefix is one of Sweep's.
func TempFolder(prefix string) (dir string, release func(), err error) {
	unlocked, err := os.MkdirTemp("", unlockedPrefix)
	if err != nil {
		return "", nil, err
	}
	lock, err := lockFolder(unlocked)
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("cannot lock %s: %w", unlocked, err), os.Remove(unlocked))
	}
	dir = filepath.Join(filepath.Dir(unlocked), prefix+strings.TrimPrefix(filepath.Base(unlocked), unlockedPrefix))
	if err := os.Rename(unlocked, dir); err != nil {
		return "", nil, errors.Join(err, os.Remove(unlocked), lock.Close())
	}
	return dir, func() { lock.Close() }, nil
}

// lockFolder locks a folder until the file closes, as it does with the process.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Sweep removes the folders of processes of this user's that have died.
func Sweep() error {
	var failed error
	for _, prefix := range folderPrefixes {
		left, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
		failed = errors.Join(failed, err)
		for _, dir := range left {
			info, err := os.Lstat(dir)
			if err != nil || !info.IsDir() {
				continue
			}
			if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
				continue
			}
			if prefix == unlockedPrefix && time.Since(info.ModTime()) < time.Minute {
				continue // somebody is about to lock it
			}
			lock, err := lockFolder(dir)
			if err != nil {
				continue // somebody uses it
			}
			failed = errors.Join(failed, os.RemoveAll(dir))
			lock.Close()
		}
	}
	return failed
}

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// folderPrefixes begin the names of folders among the machine's temporary files.
var folderPrefixes = []string{"previewd-bare-", "previewd-box-"}

// TempFolder makes a folder among the machine's temporary files, which Sweep lets be
// until release is called or this process ends. The prefix is one of Sweep's.
func TempFolder(prefix string) (dir string, release func(), err error) {
	for range 10 {
		if dir, err = os.MkdirTemp("", prefix); err != nil {
			return "", nil, err
		}
		var lock *os.File
		if lock, err = lockFolder(dir); err == nil {
			if _, err = os.Lstat(dir); err == nil {
				return dir, func() { lock.Close() }, nil
			}
			lock.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = os.Remove(dir)
			break
		}
		// Another process's Sweep has come between the two, and takes it away.
	}
	return "", nil, fmt.Errorf("cannot lock %s: %w", dir, err)
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

//go:build linux || darwin

package app

import "syscall"

// freeOn returns how many bytes a folder's file system takes from this user.
func freeOn(folder string) (bytes int64, known bool) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(folder, &fs); err != nil {
		return 0, false
	}
	return int64(fs.Bavail) * int64(fs.Bsize), true //nolint:unconvert // its type is another on other systems
}

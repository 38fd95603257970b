package runner

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncFiles waits until what was written to the file system of a folder would
// outlast a power cut.
func syncFiles(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

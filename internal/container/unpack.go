package container

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/previewd/previewd/internal/sandbox"
)

// errHostile says that a container sends what its first process would not: it is
// not that any more.
var errHostile = errors.New("the container sends what it must not")

// errHostFull says that it is the host that has no room.
var errHostFull = errors.New("the server's disk is nearly full")

const (
	entrySize  = 4 << 10   // bytes that each entry counts for at least
	leaveFree  = 256 << 20 // bytes of the host's file system
	checkEvery = 4 << 20   // bytes
)

// unpacker lays out what a container sends, in a folder that is empty. Nobody there
// is trusted: names stay in the folder, and all is bounded.
type unpacker struct {
	dir    string
	limits sandbox.Limits
	free   func(dir string) (int64, error) // bytes of its file system

	written int64 // since that was asked last
}

func (u *unpacker) unpack(r io.Reader) error {
	root, err := os.OpenRoot(u.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	room := u.limits.Disk
	archive := tar.NewReader(r)
	if err := u.spend(checkEvery); err != nil {
		return err
	}
	for entries := int64(0); ; entries++ {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errHostile, err)
		}
		name := strings.TrimSuffix(header.Name, "/")
		room -= max(header.Size, entrySize)
		switch {
		case entries > u.limits.Inodes+1:
			return fmt.Errorf("%w: more than %d files", errHostile, u.limits.Inodes)
		case !filepath.IsLocal(name), len(name) > maxPath+maxName, strings.Count(name, "/") > maxDepth, len(header.Linkname) > maxPath:
			return fmt.Errorf("%w: an odd path", errHostile)
		case room < 0 || header.Size < 0:
			return fmt.Errorf("%w: more than %d bytes", errHostile, u.limits.Disk)
		}
		if err = u.spend(entrySize); err == nil {
			err = unpackEntry(root, name, header, &spending{archive, u})
		}
		if err != nil {
			return fmt.Errorf("cannot lay out what the build has made: %w", err)
		}
	}
}

// spend returns an error when the host has too little left to write on.
func (u *unpacker) spend(bytes int64) error {
	if u.written += bytes; u.written < checkEvery {
		return nil
	}
	u.written = 0
	free, err := u.free(u.dir)
	if err == nil && free < leaveFree {
		err = errHostFull
	}
	return err
}

// spending reads what is then written.
type spending struct {
	from io.Reader
	to   *unpacker
}

func (s *spending) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	if full := s.to.spend(int64(n)); full != nil {
		return 0, full
	}
	return n, err
}

func unpackEntry(root *os.Root, name string, header *tar.Header, content io.Reader) error {
	switch header.Typeflag {
	case tar.TypeDir:
		return root.Mkdir(name, 0o755)
	case tar.TypeSymlink:
		return root.Symlink(header.Linkname, name)
	case tar.TypeLink:
		if info, err := root.Lstat(header.Linkname); err != nil || !info.Mode().IsRegular() {
			return fmt.Errorf("%w: a link to no file", errHostile)
		}
		return root.Link(header.Linkname, name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644|os.FileMode(header.Mode)&0o111)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	}
	return fmt.Errorf("%w: something that is no file", errHostile)
}

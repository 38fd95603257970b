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

// unpack lays out what a container sends, in a folder that is empty. Nobody there
// is trusted: names stay in the folder, and all is bounded.
func unpack(r io.Reader, dir string, limits sandbox.Limits) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	room := limits.Disk
	archive := tar.NewReader(r)
	for entries := int64(0); ; entries++ {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errHostile, err)
		}
		name := strings.TrimSuffix(header.Name, "/")
		switch {
		case entries > limits.Inodes+1:
			return fmt.Errorf("%w: more than %d files", errHostile, limits.Inodes)
		case !filepath.IsLocal(name), len(name) > maxPath+maxName, strings.Count(name, "/") > maxDepth, len(header.Linkname) > maxPath:
			return fmt.Errorf("%w: an odd path", errHostile)
		}
		if header.Typeflag == tar.TypeReg {
			if room -= header.Size; room < 0 || header.Size < 0 {
				return fmt.Errorf("%w: more than %d bytes", errHostile, limits.Disk)
			}
		}
		if err := unpackEntry(root, name, header, archive); err != nil {
			return fmt.Errorf("cannot lay out what the build has made: %w", err)
		}
	}
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

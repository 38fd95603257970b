package sandbox

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path"
)

// unpack lays out a tar of regular files. It runs with the rights of what reads
// them: in the box, if there is one.
func unpack(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return unpackIn(root, r)
}

func unpackIn(root *os.Root, r io.Reader) error {
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if err := root.MkdirAll(path.Dir(header.Name), 0o755); err != nil {
			return err
		}
		f, err := root.OpenFile(header.Name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, archive); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
}

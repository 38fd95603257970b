package toolchain

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// packed is a package of a registry, some of whose files the root gets.
type packed struct {
	id    string // name, version and integrity
	open  func(context.Context) (io.ReadCloser, error)
	place func(name string) string // where in the root a file of it goes; "" for nowhere
	least string                   // a file of the root that must have come of it
}

// Bounds on what a package may bring: several times what Node.js and npm do.
const (
	maxUnpackedFiles = 50_000
	maxUnpackedBytes = 1 << 30
)

// fetch has the registry's packages be there when they are unpacked.
func (l *layout) fetch(ctx context.Context) error {
	for _, p := range l.packed {
		f, err := p.open(ctx)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (p packed) unpack(ctx context.Context, root *os.Root) error {
	packed, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer packed.Close()
	unzipped, err := gzip.NewReader(packed)
	if err != nil {
		return err
	}
	archive := tar.NewReader(io.LimitReader(unzipped, maxUnpackedBytes))
	for range maxUnpackedFiles {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		_, name, _ := strings.Cut(path.Clean(header.Name), "/") // npm passes by the folder that all is in
		to := p.place(name)
		if to == "" || header.Typeflag != tar.TypeReg {
			continue
		}
		if err := errors.Join(ctx.Err(), unpackFile(root, to, header, archive)); err != nil {
			return err
		}
	}
	if _, err := root.Stat(p.least); err != nil {
		return fmt.Errorf("it does not hold what it should: %w", err)
	}
	return nil
}

func unpackFile(root *os.Root, name string, header *tar.Header, content io.Reader) error {
	if err := writeFolders(root, path.Dir(name)); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if header.FileInfo().Mode()&0o111 != 0 {
		mode = 0o755
	}
	return writeFile(root, name, mode, content)
}

// writeFolders makes a folder and those above it.
func writeFolders(root *os.Root, name string) error {
	if _, err := root.Stat(name); err == nil {
		return nil
	}
	if err := writeFolders(root, path.Dir(name)); err != nil {
		return err
	}
	return writeFolder(root, name)
}

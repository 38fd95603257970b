package toolchain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// write makes the folder and fills it.
func (l *layout) write(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range l.allFolders() {
		if err := writeFolder(root, name); err != nil {
			return err
		}
	}
	for name, from := range l.files {
		if err := errors.Join(ctx.Err(), copyFile(root, name, from)); err != nil {
			return err
		}
	}
	for _, p := range l.packed {
		if err := p.unpack(ctx, root); err != nil {
			return fmt.Errorf("cannot lay out %s: %w", p.id, err)
		}
	}
	for name, text := range l.texts {
		if err := writeFile(root, name, 0o644, strings.NewReader(text)); err != nil {
			return err
		}
	}
	for name, link := range l.links {
		if err := root.Symlink(link, name); err != nil {
			return err
		}
	}
	return nil
}

// allFolders begins with the root, and has each folder before what is in it.
func (l *layout) allFolders() []string {
	all := maps.Clone(l.folders)
	above := func(name string) {
		for name != "." {
			name = path.Dir(name)
			all[name] = true
		}
	}
	for name := range l.folders {
		above(name)
	}
	for name := range l.files {
		above(name)
	}
	for name := range l.texts {
		above(name)
	}
	for name := range l.links {
		above(name)
	}
	return slices.Sorted(maps.Keys(all))
}

// writeFolder sets the mode apart from making: the umask takes bits away, and a
// setgid folder above adds one.
func writeFolder(root *os.Root, name string) error {
	if err := root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return root.Chmod(name, 0o755)
}

func copyFile(root *os.Root, name string, from source) error {
	f, err := os.Open(from.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writeFile(root, name, from.mode, f); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != from.size || !info.ModTime().Equal(from.modified) {
		return fmt.Errorf("%s changed while it was copied: try again", from.path)
	}
	return nil
}

func writeFile(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

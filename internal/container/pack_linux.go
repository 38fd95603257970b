package container

import (
	"archive/tar"
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/previewd/previewd/internal/sandbox"
)

// packer writes the workspace as a tar that the host's bounds let through. What is
// beyond them, or is no file, folder or link, goes as a link to nowhere: whoever
// publishes it refuses it by name.
type packer struct {
	limits  sandbox.Limits
	all     bool // packages too
	archive *tar.Writer
	bytes   int64 // as the host counts them
	entries int64
	full    bool
	names   map[uint64]string // of files that have several, and were sent
	sent    string            // the last file that was
}

// nowhere is what placeholders link to.
const nowhere = "/.previewd/not-a-file"

func (p *packer) pack(w io.Writer) error {
	root, err := os.OpenRoot(sandbox.Workspace)
	if err != nil {
		return err
	}
	defer root.Close()
	buffered := bufio.NewWriterSize(w, 256<<10)
	p.archive, p.names = tar.NewWriter(buffered), map[uint64]string{}
	if err := p.folder(root, "."); err != nil {
		return err
	}
	return errors.Join(p.archive.Close(), buffered.Flush())
}

// folder packs what is in a folder. A task's own access rights may keep it out.
func (p *packer) folder(root *os.Root, dir string) error {
	entries, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		p.entries, p.bytes = p.entries+1, p.bytes+entrySize
		return p.placeholder(path.Join(dir, "unreadable"))
	}
	isPackage := false
	for _, entry := range entries {
		isPackage = isPackage || entry.Name() == "package.json"
	}
	for _, entry := range entries {
		if entry.Name() == modulesName && isPackage && !p.all {
			continue // what a build installs is no part of what it makes
		}
		if err := p.entry(root, path.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) entry(root *os.Root, name string) error {
	if p.full {
		return nil // one placeholder has said it
	}
	info, err := root.Lstat(name)
	p.entries, p.bytes = p.entries+1, p.bytes+entrySize
	// There must be room for what stands for the rest.
	p.full = p.entries > p.limits.Inodes || p.bytes+2*entrySize > p.limits.Disk
	switch {
	case err != nil, p.full, len(name) > maxPath, strings.Count(name, "/") >= maxDepth:
		return p.placeholder(name)
	case info.IsDir():
		if err := p.archive.WriteHeader(&tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return err
		}
		return p.folder(root, name)
	case info.Mode().Type() == fs.ModeSymlink:
		link, err := root.Readlink(name)
		if err != nil || len(link) > maxPath {
			link = nowhere
		}
		return p.archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: link})
	case info.Mode().IsRegular():
		return p.file(root, name, info)
	}
	return p.placeholder(name)
}

func (p *packer) placeholder(name string) error {
	return p.archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: nowhere})
}

// file packs a file. One that the tree has under several names goes once.
func (p *packer) file(root *os.Root, name string, info fs.FileInfo) error {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink > 1 {
		if first, ok := p.names[stat.Ino]; ok {
			return p.archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: first})
		}
		defer func() {
			if p.sent == name {
				p.names[stat.Ino] = name
			}
		}()
	}
	f, err := root.Open(name)
	if err != nil {
		return p.placeholder(name)
	}
	defer f.Close()
	more := max(info.Size()-entrySize, 0) // beside what the entry counts for
	if p.bytes+more+2*entrySize > p.limits.Disk {
		return p.placeholder(name)
	}
	p.bytes += more
	if err := p.archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: int64(0o644 | info.Mode().Perm()&0o111), Size: info.Size()}); err != nil {
		return err
	}
	p.sent = name
	_, err = io.CopyN(p.archive, f, info.Size())
	return err
}

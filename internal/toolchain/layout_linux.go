package toolchain

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// format is raised when the same sources are laid out in another way.
const format = 1

// layout says what a root holds. Its paths are slash-separated, from the root.
type layout struct {
	files   map[string]source // what is copied there
	links   map[string]string // where they lead
	texts   map[string]string
	folders map[string]bool // those that would be empty
	packed  []packed
}

// source is a file of this machine as it was when the layout was made.
type source struct {
	path     string
	size     int64
	modified time.Time
	mode     fs.FileMode // in the root
}

func newLayout() *layout {
	return &layout{
		files: map[string]source{},
		links: map[string]string{"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"},
		texts: map[string]string{
			"etc/passwd": "root:x:0:0:root:/:/bin/sh\n" +
				"build:x:1000:1000:build:/home/build:/bin/sh\n" +
				"nobody:x:65534:65534:nobody:/:/bin/false\n",
			"etc/group":         "root:x:0:\nbuild:x:1000:\nnogroup:x:65534:\n",
			"etc/hosts":         "127.0.0.1 localhost\n",
			"etc/resolv.conf":   "# Builds have no DNS.\n",
			"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
		},
		folders: map[string]bool{
			"usr/bin": true, "usr/lib": true, "usr/lib64": true,
			"proc": true, "dev": true, "tmp": true, "workspace": true, "home/build": true,
		},
	}
}

// inRoot is where a path of this machine is in the root: /bin, /lib and /lib64
// are links there.
func inRoot(name string) string {
	name = path.Clean("/" + name)[1:]
	switch first, _, _ := strings.Cut(name, "/"); first {
	case "bin", "lib", "lib64":
		return "usr/" + name
	}
	return name
}

func (l *layout) has(name string) bool {
	_, isFile := l.files[name]
	_, isLink := l.links[name]
	return isFile || isLink
}

// file takes a regular file, wherever links to it lead.
func (l *layout) file(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", from)
	}
	mode := fs.FileMode(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	l.files[to] = source{from, info.Size(), info.ModTime(), mode}
	return nil
}

// tree takes the regular files of a folder, and the relative links that stay in
// one of the folders within. It leaves out the named folders at its top.
func (l *layout) tree(from, to string, within []string, except ...string) error {
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := path.Join(to, below)
		switch {
		case entry.IsDir() && slices.Contains(except, below):
			return fs.SkipDir
		case entry.IsDir():
			l.folders[target] = true
		case entry.Type().IsRegular():
			return l.file(name, target)
		case entry.Type() == fs.ModeSymlink:
			if link, err := os.Readlink(name); err == nil && staysWithin(within, name, link) {
				l.links[target] = link
			}
		}
		return nil
	})
}

// staysWithin looks at the link's text and at where it leads in the end: a link
// on its way may be one that goes up.
func staysWithin(folders []string, name, link string) bool {
	end, err := filepath.EvalSymlinks(name)
	if err != nil || filepath.IsAbs(link) {
		return false
	}
	next := filepath.Join(filepath.Dir(name), link)
	return slices.ContainsFunc(folders, func(folder string) bool { return isBelow(folder, end) }) &&
		slices.ContainsFunc(folders, func(folder string) bool { return isBelow(folder, next) })
}

func isBelow(folder, name string) bool {
	below, err := filepath.Rel(folder, name)
	return err == nil && filepath.IsLocal(below)
}

// digest names the layout by all that is in it. Sources are known by path, size
// and time of change, so that nothing has to be read when nothing has changed.
func (l *layout) digest() string {
	sum := sha256.New()
	fmt.Fprintln(sum, format)
	for _, name := range slices.Sorted(maps.Keys(l.files)) {
		from := l.files[name]
		fmt.Fprintf(sum, "file %q %q %d %d %o\n", name, from.path, from.size, from.modified.UnixNano(), from.mode)
	}
	for _, name := range slices.Sorted(maps.Keys(l.links)) {
		fmt.Fprintf(sum, "link %q %q\n", name, l.links[name])
	}
	for _, name := range slices.Sorted(maps.Keys(l.texts)) {
		fmt.Fprintf(sum, "text %q %q\n", name, l.texts[name])
	}
	for _, name := range slices.Sorted(maps.Keys(l.folders)) {
		fmt.Fprintf(sum, "folder %q\n", name)
	}
	for _, p := range l.packed {
		fmt.Fprintf(sum, "packed %q\n", p.id)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

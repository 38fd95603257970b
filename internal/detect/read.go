package detect

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// What detection reads of a tree. More is not needed to tell how it is built.
const (
	maxManifest = 1 << 20   // package.json, previewd.json
	maxConfig   = 256 << 10 // a framework's configuration
	maxHead     = 64 << 10  // the beginning of a lockfile
	maxOpened   = 400       // files and folders
	maxEntries  = 1000      // of one folder
)

var (
	errTooLarge = errors.New("is too large")
	errLink     = errors.New("is a link or no regular file; links are not followed")
	errTooMany  = errors.New("has too many files to look at")
)

// tree reads a stranger's files within limits. It follows no links, of files or
// of folders on the way to them.
type tree struct {
	fsys   fs.FS
	opened int
}

// lstat returns what name is, without following links on the way.
func (t *tree) lstat(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) {
		return nil, fs.ErrNotExist
	}
	for i, c := range name {
		if c != '/' {
			continue
		}
		info, err := fs.Lstat(t.fsys, name[:i])
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			return nil, errLink
		}
	}
	return fs.Lstat(t.fsys, name)
}

// isFile reports whether there is a regular file of this name.
func (t *tree) isFile(name string) bool {
	info, err := t.lstat(name)
	return err == nil && info.Mode().IsRegular()
}

// isDir reports whether there is a folder of this name.
func (t *tree) isDir(name string) bool {
	info, err := t.lstat(name)
	return err == nil && info.IsDir()
}

func (t *tree) open(name string, regular bool) (fs.File, error) {
	info, err := t.lstat(name)
	if err != nil {
		return nil, err
	}
	if regular != info.Mode().IsRegular() || regular == info.IsDir() {
		return nil, errLink
	}
	if t.opened++; t.opened > maxOpened {
		return nil, errTooMany
	}
	f, err := t.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	// It may have been replaced since.
	if info, err = f.Stat(); err != nil || regular != info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, errLink)
	}
	return f, nil
}

// read returns a whole file, or an error that is fs.ErrNotExist or reads on
// after the file's name.
func (t *tree) read(name string, limit int64) ([]byte, error) {
	raw, err := t.head(name, limit+1)
	if err == nil && int64(len(raw)) > limit {
		return nil, fmt.Errorf("%w: the limit is %d bytes", errTooLarge, limit)
	}
	return raw, err
}

// head returns up to limit bytes of a file.
func (t *tree) head(name string, limit int64) ([]byte, error) {
	f, err := t.open(name, true)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// folders returns the folders in a folder, sorted, but for hidden ones and
// node_modules.
func (t *tree) folders(dir string) []string {
	f, err := t.open(dir, false)
	if err != nil {
		return nil
	}
	defer f.Close()
	list, ok := f.(fs.ReadDirFile)
	if !ok {
		return nil
	}
	entries, _ := list.ReadDir(maxEntries) // what could be read is enough
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && entry.Name() != "node_modules" && !strings.HasPrefix(entry.Name(), ".") {
			names = append(names, path.Join(dir, entry.Name()))
		}
	}
	slices.Sort(names)
	return names
}

// inside returns the cleaned path of a folder in the tree that a configuration
// names, as seen from base; false when it leads elsewhere or would not be shown as
// it is.
func inside(base, name string) (string, bool) {
	if name == "" || path.IsAbs(name) || strings.ContainsAny(name, "\\:") || clean(name, 300) != name {
		return "", false
	}
	name = path.Join(base, name)
	return name, fs.ValidPath(name)
}

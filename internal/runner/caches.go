package runner

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Caches keeps what build tools remember from one build of a project to the next.
// The project's own code has written it, so it is never another project's: a file
// for each project, which only builds of that one are given.
type Caches struct {
	dir        string
	maxProject int64
	maxAll     int64
	mu         sync.Mutex // held while files get their names or lose them
}

// Bounds on the number of files of a cache, and on their names.
const (
	maxCacheFiles = 20_000
	cacheSuffix   = ".tar"
	cacheTemp     = "new-"
	cacheAge      = 30 * 24 * time.Hour // so those of projects go that nobody builds any more, or that are deleted
)

var errCacheTooLarge = errors.New("the cache is too large")

// NewCaches opens the folder, and drops what an earlier process has not finished and
// what is too old.
func NewCaches(dir string, maxProject, maxAll int64) (*Caches, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot create the folder of tools' caches: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, cacheTemp+"*"))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot clear the folder of tools' caches: %w", err)
	}
	c := &Caches{dir: dir, maxProject: maxProject, maxAll: maxAll}
	if err := c.sweep(0); err != nil {
		return nil, fmt.Errorf("cannot sweep the folder of tools' caches: %w", err)
	}
	return c, nil
}

// name is of a project's cache that was made with the same tools.
func (c *Caches) name(project, tools string) string {
	return filepath.Join(c.dir, project+"@"+tools+cacheSuffix)
}

// open returns a project's cache: a tar of the workspace's files.
func (c *Caches) open(project, tools string) (*os.File, error) {
	name := c.name(project, tools)
	f, err := os.Open(name)
	if err == nil {
		now := time.Now()
		_ = os.Chtimes(name, now, now) // when it was used last; who sweeps has removed it, else
	}
	return f, err
}

// drop removes what is kept of a project.
func (c *Caches) drop(project string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropBut(project, "")
}

func (c *Caches) dropBut(project, stays string) error {
	names, err := filepath.Glob(filepath.Join(c.dir, project+"@*"+cacheSuffix))
	for _, name := range names {
		if name != stays {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}

// save keeps folders of a workspace in which nothing is alive any more: regular files
// only, under the names that folders maps them to. It keeps nothing of one that
// is too large.
func (c *Caches) save(ctx context.Context, project, tools string, workspace fs.FS, folders map[string]string) (bytes int64, err error) {
	temporary, err := os.CreateTemp(c.dir, cacheTemp+"*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(temporary.Name()) // unless it has another name by then
	defer temporary.Close()
	p := &cachePack{workspace: workspace, tar: tar.NewWriter(temporary), max: c.maxProject}
	for from, to := range folders {
		if err := p.folder(ctx, from, to); err != nil {
			return 0, errors.Join(err, c.drop(project))
		}
	}
	if p.files == 0 {
		return 0, c.drop(project)
	}
	if err := errors.Join(p.tar.Close(), temporary.Sync()); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	name := c.name(project, tools)
	if err := os.Rename(temporary.Name(), name); err != nil {
		return 0, err
	}
	return p.bytes, errors.Join(c.dropBut(project, name), c.sweep(0))
}

// Shrink drops at least so many bytes of caches, those that were not used for longest.
func (c *Caches) Shrink(bytes int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sweep(bytes)
}

// sweep removes what is too old, and what was not used for longest until the rest
// is in bounds and less by so many bytes.
func (c *Caches) sweep(bytes int64) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var all []fs.FileInfo
	var total int64
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !strings.HasSuffix(entry.Name(), cacheSuffix) {
			continue // it is gone, or being written
		}
		all = append(all, info)
		total += info.Size()
	}
	slices.SortFunc(all, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	bound := min(c.maxAll, total-bytes)
	for _, info := range all {
		if total <= bound && time.Since(info.ModTime()) < cacheAge {
			break
		}
		if err := os.Remove(filepath.Join(c.dir, info.Name())); err != nil {
			return err
		}
		total -= info.Size()
	}
	return nil
}

// cachePack is one cache that is written.
type cachePack struct {
	workspace fs.FS
	tar       *tar.Writer
	max       int64
	bytes     int64
	files     int
	seen      int // files, folders and all else
}

func (p *cachePack) folder(ctx context.Context, from, to string) error {
	// A link on the way to it leads elsewhere.
	for at := from; at != "."; at = path.Dir(at) {
		if info, err := fs.Lstat(p.workspace, at); err != nil || !info.IsDir() {
			return nil //nolint:nilerr // there is nothing to keep
		}
	}
	return fs.WalkDir(p.workspace, from, func(name string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p.seen++
		below := strings.TrimPrefix(name, from)
		switch {
		case err != nil:
			return err
		case p.seen > 2*maxCacheFiles, strings.Count(below, "/") > maxSiteDepth, len(below) > maxSitePath:
			return errCacheTooLarge
		case !entry.Type().IsRegular() || !utf8.ValidString(below):
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		p.files++
		p.bytes += info.Size()
		if p.files > maxCacheFiles || p.bytes+int64(p.files)*1024 > p.max {
			return errCacheTooLarge
		}
		return p.file(name, to+below, info.Size())
	})
}

func (p *cachePack) file(name, to string, size int64) error {
	f, err := p.workspace.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.tar.WriteHeader(&tar.Header{Name: to, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err = io.CopyN(p.tar, f, size)
	return err
}

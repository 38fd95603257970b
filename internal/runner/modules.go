package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/previewd/previewd"
)

// Modules keeps installed packages: a folder for each lockfile and package.json
// that a build has installed from. They are installed where no code of a tree
// has run yet, and builds see them through an overlay, so that nothing of a
// build gets into what another one reads.
type Modules struct {
	dir      string
	maxBytes int64
	uid      int // of the files; -1 leaves them the server's own

	mu    sync.Mutex
	users map[string]int // of a folder, by key
}

// modulesInfo is stored beside a folder, and last: what has none is unfinished.
type modulesInfo struct {
	Bytes   int64         `json:"bytes"`
	Took    time.Duration `json:"took"`    // to install
	Scripts bool          `json:"scripts"` // a package may have one that runs when it is installed

	Packages []previewd.Package `json:"packages"` // as the mirror handed them out
}

const (
	modulesInfoFile = "info.json"
	modulesTemp     = "new-"
)

// NewModules opens the folder, and drops what an earlier process has not finished.
// The files belong to a user of this machine, builds', if the server is root.
func NewModules(dir string, maxBytes int64, uid int) (*Modules, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot create the folder of installed packages: %w", err)
	}
	dir, err := realPath(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the folder of installed packages: %w", err)
	}
	m := &Modules{dir: dir, maxBytes: maxBytes, uid: uid, users: map[string]int{}}
	if os.Geteuid() != 0 {
		m.uid = -1
	}
	for _, entry := range entries {
		if _, err := m.info(entry.Name()); err != nil || strings.HasPrefix(entry.Name(), modulesTemp) {
			err = os.RemoveAll(filepath.Join(dir, entry.Name()))
			if err != nil {
				return nil, fmt.Errorf("cannot drop unfinished packages: %w", err)
			}
		}
	}
	return m, nil
}

func (m *Modules) info(key string) (info modulesInfo, err error) {
	raw, err := os.ReadFile(filepath.Join(m.dir, key, modulesInfoFile))
	if err == nil {
		err = json.Unmarshal(raw, &info)
	}
	return info, err
}

func (m *Modules) folder(key string) string { return filepath.Join(m.dir, key, "node_modules") }

// take returns the folder of a key, which stays until release; ok is false when
// there is none.
func (m *Modules) take(key string) (dir string, info modulesInfo, release func(), ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	info, err := m.info(key)
	if err != nil {
		return "", info, nil, false
	}
	m.users[key]++
	now := time.Now()
	_ = os.Chtimes(filepath.Join(m.dir, key, modulesInfoFile), now, now) // when it was used last
	return m.folder(key), info, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.users[key]--; m.users[key] == 0 {
			delete(m.users, key)
		}
	}, true
}

// errOddModules says that packages hold what is not kept.
var errOddModules = errors.New("the packages hold something that is no file, folder or link among themselves")

// copy copies node_modules of a workspace in which no code of a tree has run, and
// returns what keeps the copy.
func (m *Modules) copy(ctx context.Context, workspace *os.Root, key string, about modulesInfo) (info modulesInfo, keep func() error, err error) {
	work, err := os.MkdirTemp(m.dir, modulesTemp)
	if err != nil {
		return info, nil, err
	}
	drop := func(err error) error { return errors.Join(err, os.RemoveAll(work)) }
	c := &modulesCopy{uid: m.uid}
	if err := c.run(ctx, workspace, work); err != nil {
		return info, nil, drop(err)
	}
	info = about
	info.Bytes, info.Scripts = c.bytes, c.scripts
	return info, func() error {
		raw, err := json.Marshal(info)
		if err == nil {
			err = syncFiles(work)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(work, modulesInfoFile), raw, 0o600)
		}
		if err == nil {
			err = m.name(work, key)
		}
		if err != nil {
			return drop(err)
		}
		return m.sweep(0)
	}, nil
}

// name gives a complete folder its name, or removes it when another build has kept the
// same. What is left there of one that was removed in part goes first.
func (m *Modules) name(work, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.info(key); err == nil {
		return os.RemoveAll(work)
	}
	to := filepath.Join(m.dir, key)
	err := os.Rename(work, to)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		err = os.RemoveAll(to)
		if err == nil {
			err = os.Rename(work, to)
		}
	}
	return err
}

// Shrink drops at least so many bytes of packages, those that were not used for
// longest; fewer when builds use the rest.
func (m *Modules) Shrink(bytes int64) error { return m.sweep(bytes) }

// sweep drops what was not used for longest until the rest is in bounds and less
// by so many bytes. What a build uses stays.
func (m *Modules) sweep(bytes int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return err
	}
	var total int64
	used := map[string]time.Time{}
	sizes := map[string]int64{}
	for _, entry := range entries {
		info, err := m.info(entry.Name())
		if err != nil || strings.HasPrefix(entry.Name(), modulesTemp) {
			continue // unfinished: a build is at it
		}
		stat, err := os.Stat(filepath.Join(m.dir, entry.Name(), modulesInfoFile))
		if err != nil {
			return err
		}
		total += info.Bytes
		used[entry.Name()], sizes[entry.Name()] = stat.ModTime(), info.Bytes
	}
	for bound := min(m.maxBytes, total-bytes); total > bound; {
		oldest := ""
		for key, at := range used {
			if m.users[key] == 0 && (oldest == "" || at.Before(used[oldest])) {
				oldest = key
			}
		}
		if oldest == "" {
			break
		}
		// What a crash leaves of a folder must not count as one.
		if err := os.Remove(filepath.Join(m.dir, oldest, modulesInfoFile)); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(m.dir, oldest)); err != nil {
			return err
		}
		total -= sizes[oldest]
		delete(used, oldest)
	}
	return nil
}

// blockSize is what each file, folder and link takes at least, in bytes.
const blockSize = 4096

// modulesCopy is one copy of a node_modules.
type modulesCopy struct {
	uid     int
	bytes   int64
	scripts bool // a package may have one that runs when it is installed
}

// In package.json; what has a binding.gyp is compiled without being told to.
var installScripts = regexp.MustCompile(`"(?:pre|post)?install"\s*:`)

func (c *modulesCopy) run(ctx context.Context, workspace *os.Root, to string) error {
	target, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer target.Close()
	return fs.WalkDir(workspace.FS(), "node_modules", func(name string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		c.bytes += blockSize
		switch entry.Type() {
		case fs.ModeDir:
			err = target.Mkdir(name, 0o755)
		case fs.ModeSymlink:
			err = copyLink(workspace, target, name)
		case 0:
			err = c.file(workspace, target, name)
		default:
			err = errOddModules
		}
		if err == nil && c.uid >= 0 {
			err = target.Lchown(name, c.uid, c.uid)
		}
		return err
	})
}

func copyLink(from, to *os.Root, name string) error {
	link, err := from.Readlink(name)
	if err != nil {
		return err
	}
	if path.IsAbs(link) || !strings.HasPrefix(path.Join(path.Dir(name), link), "node_modules/") {
		return errOddModules
	}
	return to.Symlink(link, name)
}

func (c *modulesCopy) file(from, to *os.Root, name string) error {
	in, err := from.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644|info.Mode().Perm()&0o111)
	if err != nil {
		return err
	}
	var content io.Reader = in
	switch base := path.Base(name); {
	case base == "binding.gyp":
		c.scripts = true
	case base == "package.json" && !c.scripts:
		raw, _ := io.ReadAll(io.LimitReader(in, maxJSONFile)) // an error comes again
		c.scripts, content = installScripts.Match(raw), io.MultiReader(bytes.NewReader(raw), in)
	}
	n, err := io.Copy(out, content)
	c.bytes += n
	return errors.Join(err, out.Close())
}

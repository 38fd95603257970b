package toolchain

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"
)

// maxKept is how many toolchains stay: one has about 200 MB.
const maxKept = 8

// used is the folder of a file for each toolchain: who uses one has a lock on its
// file, which ends with the process. The file's time is when it was last taken.
const used = "used"

// hold marks a toolchain as used. The caller has the folder's lock, as has who
// removes toolchains.
func hold(dir, name string) (*flock.Flock, error) {
	if err := os.MkdirAll(filepath.Join(dir, used), 0o755); err != nil {
		return nil, err
	}
	use := flock.New(filepath.Join(dir, used, name))
	ok, err := use.TryRLock()
	if err == nil && !ok {
		err = errors.New("somebody removes it")
	}
	if err == nil {
		now := time.Now()
		err = os.Chtimes(use.Path(), now, now)
	}
	if err != nil {
		return nil, errors.Join(err, use.Close())
	}
	return use, nil
}

// Shrink removes toolchains of a folder for as long as bytes are wanted. Those in use
// stay; so do all while somebody lays one out.
func Shrink(dir string, wanted func() int64) error {
	if _, err := os.Stat(dir); err != nil || wanted() <= 0 {
		return nil //nolint:nilerr // there are none
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	defer lock.Close()
	if ok, err := lock.TryLock(); err != nil || !ok {
		return err
	}
	return removeUntil(dir, func(int) bool { return wanted() <= 0 })
}

// sweep removes toolchains down to the bound. The caller has the folder's lock.
func sweep(dir string) error {
	return removeUntil(dir, func(left int) bool { return left <= maxKept })
}

// removeUntil removes the toolchains that were not taken for longest until it is
// enough. Those in use stay. The caller has the folder's lock.
func removeUntil(dir string, enough func(left int) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type kept struct {
		name  string
		taken time.Time
	}
	var all []kept
	for _, entry := range entries {
		if !entry.IsDir() || entry.Name() == used || entry.Name() == unfinished {
			continue
		}
		k := kept{name: entry.Name()}
		if info, err := os.Stat(filepath.Join(dir, used, k.name)); err == nil {
			k.taken = info.ModTime()
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b kept) int { return cmp.Or(a.taken.Compare(b.taken), cmp.Compare(a.name, b.name)) })
	left := len(all)
	for _, k := range all {
		if enough(left) {
			break
		}
		removed, err := remove(dir, k.name)
		if err != nil {
			return err
		}
		if removed {
			left--
		}
	}
	return nil
}

// remove reports false for a toolchain that is in use.
func remove(dir, name string) (bool, error) {
	if err := os.MkdirAll(filepath.Join(dir, used), 0o755); err != nil {
		return false, err
	}
	use := flock.New(filepath.Join(dir, used, name))
	defer use.Close()
	if ok, err := use.TryLock(); err != nil || !ok {
		return false, err
	}
	// What a crash leaves of it must not have its name.
	temporary := filepath.Join(dir, unfinished)
	if err := errors.Join(os.RemoveAll(temporary), os.Rename(filepath.Join(dir, name), temporary), os.RemoveAll(temporary)); err != nil {
		return false, err
	}
	if err := os.Remove(use.Path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, nil
}

package npm

import (
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// cache is a folder of files. Each has its body, what is known about it as JSON,
// and that JSON's length in four bytes: so what was cut off is noticed. A file's
// time is when it was last used; of a packument, when the registry last confirmed it.
type cache struct {
	dir  string
	max  int64
	mu   sync.Mutex // held while files get their names or lose them
	used int64      // never less than what the files take
}

// about is what a file says of its body.
type about struct {
	Type      string    `json:"type,omitempty"`      // of the content, as the registry named it
	ETag      string    `json:"etag,omitempty"`      // of a packument
	Shown     int       `json:"shown,omitempty"`     // versions of a packument
	Young     []string  `json:"young,omitempty"`     // versions that a packument does not show, and their tarballs
	Integrity string    `json:"integrity,omitempty"` // of a tarball
	Since     time.Time `json:"since"`               // a tarball is known to have been published by then
}

// entry is an open file of the cache. It can be read although it has been swept.
type entry struct {
	about
	used time.Time
	body *io.SectionReader
	file *os.File
}

const (
	tempPrefix = "tmp-"
	lengthSize = 4
)

func cacheKey(parts ...string) string {
	sum := sha512.Sum512([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:])
}

func openCache(dir string, limit int64) (*cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot create %s: %w", dir, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("cannot clear %s: %w", dir, err)
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil {
			return nil, fmt.Errorf("cannot clear %s: %w", dir, err)
		}
	}
	c := &cache{dir: dir, max: limit}
	return c, c.sweep(0, limit, limit/10*9)
}

func (c *cache) path(key string) string { return filepath.Join(c.dir, key) }

// open returns a file of the cache. The caller closes it.
func (c *cache) open(key string) (*entry, error) {
	file, err := os.Open(c.path(key))
	if err != nil {
		return nil, err
	}
	e := &entry{file: file}
	if err := e.read(); err != nil {
		e.close()
		return nil, fmt.Errorf("cannot read %s of the cache: %w", key, err)
	}
	return e, nil
}

// has reports whether a file is there that will do.
func (c *cache) has(key string, does func(*entry) bool) bool {
	e, err := c.open(key)
	if err != nil {
		return false
	}
	defer e.close()
	return does(e)
}

func (e *entry) read() error {
	info, err := e.file.Stat()
	if err != nil {
		return err
	}
	var length [lengthSize]byte
	end := info.Size() - lengthSize
	if _, err := e.file.ReadAt(length[:], max(end, 0)); err != nil {
		return err
	}
	size := end - int64(binary.BigEndian.Uint32(length[:]))
	if size < 0 {
		return io.ErrUnexpectedEOF
	}
	e.used, e.body = info.ModTime(), io.NewSectionReader(e.file, 0, size)
	return json.NewDecoder(io.NewSectionReader(e.file, size, end-size)).Decode(&e.about)
}

func (e *entry) close() {
	if e != nil {
		e.file.Close()
	}
}

// create returns a file that is not part of the cache until it is committed.
func (c *cache) create() (*os.File, error) { return os.CreateTemp(c.dir, tempPrefix+"*") }

// discard removes such a file. Of one that was committed nothing is left to remove.
func (c *cache) discard(file *os.File) {
	file.Close()
	os.Remove(file.Name())
}

// commit makes a whole body part of the cache.
func (c *cache) commit(key string, file *os.File, a about) error {
	known, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if _, err := file.Write(binary.BigEndian.AppendUint32(known, uint32(len(known)))); err != nil {
		return err
	}
	// Tarballs are kept for ever: after a power cut none may have lost its bytes.
	if err := file.Sync(); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used += info.Size()
	if c.used > c.max {
		// Before the file has its name, so that it is not what is swept.
		if err := c.sweep(info.Size(), c.max, c.max/10*9); err != nil {
			return err
		}
	}
	return os.Rename(file.Name(), c.path(key))
}

// shrink removes at least so many bytes of files, those that were not used for
// longest.
func (c *cache) shrink(bytes int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.sweep(0, math.MaxInt64, 0); err != nil { // measures
		return err
	}
	left := max(c.used-bytes, 0)
	return c.sweep(0, left, left)
}

// sweep measures the cache, with a file of a size that is about to come. When that
// is more than a bound it removes what was not used for longest, down to a target.
func (c *cache) sweep(coming, bound, target int64) error {
	list, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("cannot sweep %s: %w", c.dir, err)
	}
	var files []fs.FileInfo
	c.used = coming
	for _, item := range list {
		info, err := item.Info()
		if err != nil || strings.HasPrefix(item.Name(), tempPrefix) {
			continue // it is gone, or being written
		}
		files = append(files, info)
		c.used += info.Size()
	}
	if c.used <= bound {
		return nil
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, info := range files {
		if c.used <= target {
			break
		}
		if err := os.Remove(c.path(info.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot sweep %s: %w", c.dir, err)
		}
		c.used -= info.Size()
	}
	return nil
}

// touch notes that a file is used. One that was just swept needs no note.
func (c *cache) touch(key string) {
	now := time.Now()
	_ = os.Chtimes(c.path(key), now, now)
}

// remove takes a file out. What counts it still is set right by the next sweep.
func (c *cache) remove(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	os.Remove(c.path(key))
}

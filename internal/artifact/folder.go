package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/previewd/previewd"
)

// Folder is a Store in a local folder, which several processes can share:
//
//	blobs/ab/abcdef…   a blob, mode 0444
//	tmp/               what is being written; a crash leaves it, NewFolder removes it once it is old
type Folder struct {
	root string
	now  func() time.Time
	// Put refreshes the age of a blob that exists while Sweep may be about to
	// remove it: both hold mu, Sweep for writing.
	mu sync.RWMutex
}

var _ Store = (*Folder)(nil)

// staleWrite is how long nothing was written to what a crash has left. What is
// younger may be another process's that shares the folder.
const staleWrite = time.Hour

// NewFolder opens or creates the folder. It removes what a crash left half
// written an hour ago or more.
func NewFolder(root string) (*Folder, error) {
	f := &Folder{root: root, now: time.Now}
	for _, dir := range []string{f.tmp(), filepath.Join(root, "blobs")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("cannot create %s: %w", dir, err)
		}
	}
	return f, f.clear()
}

func (f *Folder) clear() error {
	list, err := os.ReadDir(f.tmp())
	if err != nil {
		return fmt.Errorf("cannot clear %s: %w", f.tmp(), err)
	}
	for _, entry := range list {
		info, err := entry.Info()
		if err != nil || f.now().Sub(info.ModTime()) < staleWrite {
			continue // it is being written, or is there no more
		}
		if err := os.Remove(filepath.Join(f.tmp(), entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot clear %s: %w", f.tmp(), err)
		}
	}
	return nil
}

// OpenFolder opens a folder that another process may be using, for reading. It
// makes and removes nothing.
func OpenFolder(root string) *Folder { return &Folder{root: root, now: time.Now} }

func (f *Folder) tmp() string { return filepath.Join(f.root, "tmp") }

func (f *Folder) path(d previewd.Digest) string {
	return filepath.Join(f.root, "blobs", string(d[:2]), string(d))
}

// Put implements Store: temp file, fsync, link under its name, fsync the folder.
func (f *Folder) Put(ctx context.Context, r io.Reader) (previewd.Blob, error) {
	if err := ctx.Err(); err != nil {
		return previewd.Blob{}, err
	}
	temp, err := os.CreateTemp(f.tmp(), "put-*")
	if err != nil {
		return previewd.Blob{}, cannotStore(err)
	}
	defer os.Remove(temp.Name())
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(temp, hash), r)
	blob := previewd.Blob{Digest: previewd.Digest(hex.EncodeToString(hash.Sum(nil))), Size: size}
	if err == nil && !f.refresh(blob.Digest) {
		err = errors.Join(temp.Chmod(0o444), temp.Sync())
		if err == nil {
			err = f.publish(temp.Name(), blob.Digest)
		}
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return previewd.Blob{}, cannotStore(err)
	}
	return blob, nil
}

// cannotStore tells a disk that takes no more, which passes, from other faults.
func cannotStore(err error) error {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		if errors.Is(err, full) {
			return &previewd.Error{
				Code: previewd.CodeDiskFull, Message: "The disk of the server takes no more files: try again later.", RetryAfter: 10 * time.Second, Err: err,
			}
		}
	}
	return fmt.Errorf("cannot store blob: %w", err)
}

// PutBytes implements Store.
func (f *Folder) PutBytes(ctx context.Context, content []byte) (previewd.Blob, error) {
	if digest := previewd.DigestOf(content); f.refresh(digest) {
		return previewd.Blob{Digest: digest, Size: int64(len(content))}, nil
	}
	return f.Put(ctx, bytes.NewReader(content))
}

// refresh makes a blob that exists count as new and reports whether it does.
func (f *Folder) refresh(digest previewd.Digest) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	now := f.now()
	return os.Chtimes(f.path(digest), now, now) == nil
}

// publish gives the temp file its name. A link, unlike a rename, never
// replaces what is there.
func (f *Folder) publish(temp string, digest previewd.Digest) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	name := f.path(digest)
	err := os.Link(temp, name)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(name), 0o700); err == nil {
			err = errors.Join(syncDir(filepath.Join(f.root, "blobs")), os.Link(temp, name))
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil // somebody has just stored the same
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open implements Store.
func (f *Folder) Open(_ context.Context, digest previewd.Digest) (io.ReadSeekCloser, error) {
	if !digest.Valid() {
		return nil, previewd.NotFound("blob", string(digest))
	}
	file, err := os.Open(f.path(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, previewd.NotFound("blob", string(digest))
	}
	if err != nil {
		return nil, err
	}
	return file, nil
}

// Has implements Store.
func (f *Folder) Has(_ context.Context, blob previewd.Blob) (bool, error) {
	if !blob.Digest.Valid() {
		return false, nil
	}
	info, err := os.Stat(f.path(blob.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Size() == blob.Size, err
}

// Sweep implements Store.
func (f *Folder) Sweep(ctx context.Context, rule SweepRule) (SweepResult, error) {
	var result SweepResult
	err := filepath.WalkDir(filepath.Join(f.root, "blobs"), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if rule.Keep(previewd.Digest(entry.Name())) {
			return nil
		}
		size, err := f.removeIfOld(name, rule.Before)
		if err == nil && size >= 0 {
			result.Blobs++
			result.Bytes += size
		}
		return err
	})
	if err != nil {
		return result, fmt.Errorf("cannot sweep %s: %w", f.root, err)
	}
	return result, nil
}

// removeIfOld returns the size of what it removed, or -1.
func (f *Folder) removeIfOld(name string, before time.Time) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(name)
	if err != nil || !info.ModTime().Before(before) {
		return -1, err
	}
	return info.Size(), os.Remove(name)
}

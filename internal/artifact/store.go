// Package artifact stores files by their content: a blob is named by its
// sha256, is written once and never changes. A manifest is a blob too, written
// after everything that it lists.
package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/previewd/previewd"
)

// Store keeps blobs. Every implementation passes the one conformance test.
type Store interface {
	// Put stores what r gives and returns its name and size. When it returns,
	// the bytes survive a power cut. What is stored already is kept as it is,
	// and counts as new for Sweep.
	Put(ctx context.Context, r io.Reader) (previewd.Blob, error)
	// PutBytes is Put of bytes at hand: what is stored already costs no writing.
	PutBytes(ctx context.Context, content []byte) (previewd.Blob, error)
	// Open returns CodeNotFound when there is no such blob.
	Open(ctx context.Context, digest previewd.Digest) (io.ReadSeekCloser, error)
	// Has reports whether the blob is there in the right size.
	Has(ctx context.Context, blob previewd.Blob) (bool, error)
	// Sweep removes what no one keeps and what is older than a moment.
	Sweep(ctx context.Context, rule SweepRule) (SweepResult, error)
}

// SweepRule says what a sweep may remove.
type SweepRule struct {
	Keep   func(previewd.Digest) bool
	Before time.Time // newer blobs may belong to a transaction that has not committed yet
}

// SweepResult says what a sweep removed.
type SweepResult struct {
	Blobs int
	Bytes int64
}

// maxManifest bounds what ReadManifest takes into memory: about 100,000 files.
const maxManifest = 64 << 20

// PutManifest stores a manifest and returns its digest. Call it after all the
// blobs that it lists are stored.
func PutManifest(ctx context.Context, s Store, m previewd.Manifest) (previewd.Digest, error) {
	m.Format = 1
	raw, err := m.Encode()
	if err != nil {
		return "", fmt.Errorf("cannot encode manifest: %w", err)
	}
	blob, err := s.PutBytes(ctx, raw)
	return blob.Digest, err
}

// ReadManifest reads a manifest and checks it against its digest.
func ReadManifest(ctx context.Context, s Store, digest previewd.Digest) (previewd.Manifest, error) {
	var m previewd.Manifest
	raw, err := ReadBlob(ctx, s, digest, maxManifest)
	if err != nil {
		return m, fmt.Errorf("cannot read manifest: %w", err)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("cannot read manifest %s: %w", digest, err)
	}
	if m.Format != 1 {
		return m, fmt.Errorf("cannot read manifest %s: format %d is not known", digest, m.Format)
	}
	return m, nil
}

// Verify reads a whole blob and checks its digest.
func Verify(ctx context.Context, s Store, digest previewd.Digest) error {
	f, err := s.Open(ctx, digest)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return fmt.Errorf("cannot read blob %s: %w", digest, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != string(digest) {
		return fmt.Errorf("cannot use blob %s: its bytes have digest %s", digest, got)
	}
	return nil
}

// ReadBlob reads a whole blob of at most limit bytes and checks its digest:
// wrong bytes are an error, never an answer.
func ReadBlob(ctx context.Context, s Store, digest previewd.Digest, limit int64) ([]byte, error) {
	f, err := s.Open(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("cannot read blob %s: %w", digest, err)
	}
	if size > limit {
		return nil, fmt.Errorf("cannot read blob %s: %d bytes are more than %d", digest, size, limit)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("cannot read blob %s: %w", digest, err)
	}
	raw := make([]byte, size)
	if _, err := io.ReadFull(f, raw); err != nil {
		return nil, fmt.Errorf("cannot read blob %s: %w", digest, err)
	}
	if got := previewd.DigestOf(raw); got != digest {
		return nil, fmt.Errorf("cannot read blob %s: its bytes have digest %s", digest, got)
	}
	return raw, nil
}

package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/store"
)

// integrity lets one check run at a time: each reads whole tables.
type integrity struct {
	mu   sync.Mutex
	last *previewd.Integrity
}

// CheckIntegrity implements previewd.Inspector: all promises about rows, and a
// sample of the files. Who waits for another's check to end takes the next one's
// result with all the others that wait.
func (s *Service) CheckIntegrity(ctx context.Context) (*previewd.Integrity, error) {
	asked := time.Now()
	s.integrity.mu.Lock()
	defer s.integrity.mu.Unlock()
	if last := s.integrity.last; last != nil && last.CheckedAt.After(asked) {
		return last, nil
	}
	found, err := s.CheckAll(ctx, Sample)
	if err == nil {
		s.integrity.last = found
	}
	return found, err
}

// Depth says how many files a check reads.
type Depth int

// The depths.
const (
	Rows   Depth = iota // none
	Sample              // those of the newest versions and of some others
	Full                // every one, with all its bytes
)

// CheckAll looks whether every promise holds.
func (s *Service) CheckAll(ctx context.Context, depth Depth) (*previewd.Integrity, error) {
	began := time.Now()
	checks, err := s.Store.CheckIntegrity(ctx)
	if err != nil {
		return nil, err
	}
	secrets, err := s.checkSecrets(ctx)
	if err != nil {
		return nil, err
	}
	checks = append(checks, secrets...)
	if depth != Rows {
		files, err := s.checkFiles(ctx, depth)
		if err != nil {
			return nil, err
		}
		checks = append(checks, files...)
	}
	return previewd.NewIntegrity(began, checks), nil
}

const (
	sampleEach  = 50 // the newest versions, and as many others
	filePage    = 500
	maxExamples = 10
)

// fileCheck looks at files. It remembers what it has seen: equal files are one.
type fileCheck struct {
	artifacts artifact.Store
	depth     Depth
	seen      map[previewd.Blob]blobState
	manifest  previewd.Check
	missing   previewd.Check
	altered   previewd.Check
	source    previewd.Check
}

// blobState is what a check has found of a blob.
type blobState int

const (
	blobGood blobState = iota
	blobMissing
	blobAltered
)

// checkFiles looks whether what versions show is there, and what builds that
// wait are made from.
func (s *Service) checkFiles(ctx context.Context, depth Depth) ([]previewd.Check, error) {
	c := &fileCheck{
		artifacts: s.Artifacts, depth: depth, seen: map[previewd.Blob]blobState{},
		manifest: previewd.Check{Name: "artifact_manifest_unreadable", Description: "Every version has its list of files."},
		missing:  previewd.Check{Name: "artifact_file_missing", Description: "Every file of a version is there, in its size."},
		altered:  previewd.Check{Name: "artifact_bytes_altered", Description: "A file's bytes have the digest that names it."},
		source:   previewd.Check{Name: "build_source_missing", Description: "What a build that waits is made from is there."},
	}
	if err := c.versions(ctx, s.Store); err != nil {
		return nil, err
	}
	err := eachPage(ctx, s.Store.ListNeededSources, func(ref store.ArtifactRef) error { return c.checkSource(ctx, ref) })
	return []previewd.Check{c.manifest, c.missing, c.altered, c.source}, err
}

func (c *fileCheck) versions(ctx context.Context, db *store.DB) error {
	look := func(ref store.ArtifactRef) error { return c.checkVersion(ctx, ref) }
	if c.depth == Full {
		return eachPage(ctx, db.ListManifests, look)
	}
	refs, err := db.SampleManifests(ctx, sampleEach)
	for _, ref := range refs {
		err = errors.Join(err, look(ref))
	}
	return err
}

type listRefs func(ctx context.Context, after string, limit int) ([]store.ArtifactRef, error)

func eachPage(ctx context.Context, list listRefs, look func(store.ArtifactRef) error) error {
	for after := ""; ; {
		page, err := list(ctx, after, filePage)
		if err != nil {
			return err
		}
		for _, ref := range page {
			if err := look(ref); err != nil {
				return err
			}
			after = ref.BuildID
		}
		if len(page) < filePage {
			return nil
		}
	}
}

func broken(c *previewd.Check, example string) {
	c.Count++
	if len(c.Examples) < maxExamples {
		c.Examples = append(c.Examples, example)
	}
}

// checkVersion looks at the files of a build's version.
func (c *fileCheck) checkVersion(ctx context.Context, ref store.ArtifactRef) error {
	m, err := artifact.ReadManifest(ctx, c.artifacts, ref.Digest)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		broken(&c.manifest, ref.BuildID)
		return nil //nolint:nilerr // this is where it is told
	}
	for i, blob := range m.Blobs() {
		// Of a sampled version the first file is read, of others its size is asked.
		state, err := c.look(ctx, blob, c.depth == Full || i == 0)
		if err != nil {
			return err
		}
		switch state {
		case blobMissing:
			broken(&c.missing, ref.BuildID+" "+string(blob.Digest))
		case blobAltered:
			broken(&c.altered, ref.BuildID+" "+string(blob.Digest))
		case blobGood:
		}
	}
	return nil
}

// look tells of a blob, by its bytes or by its size alone.
func (c *fileCheck) look(ctx context.Context, blob previewd.Blob, bytes bool) (blobState, error) {
	if state, ok := c.seen[blob]; ok {
		return state, nil
	}
	there, err := c.artifacts.Has(ctx, blob)
	if err != nil {
		return blobMissing, err
	}
	state := blobGood
	switch {
	case !there:
		state = blobMissing
	case bytes && artifact.Verify(ctx, c.artifacts, blob.Digest) != nil:
		state = blobAltered
	}
	if bytes || state != blobGood {
		c.seen[blob] = state
	}
	return state, ctx.Err()
}

// checkSource looks for what a build is made from.
func (c *fileCheck) checkSource(ctx context.Context, ref store.ArtifactRef) error {
	f, err := c.artifacts.Open(ctx, ref.Digest)
	switch {
	case err == nil && c.depth != Full:
		return f.Close()
	case err == nil:
		_ = f.Close()
		if artifact.Verify(ctx, c.artifacts, ref.Digest) != nil {
			broken(&c.altered, ref.BuildID+" "+string(ref.Digest))
		}
		return ctx.Err()
	case previewd.ErrorCode(err) == previewd.CodeNotFound:
		broken(&c.source, ref.BuildID)
		return nil
	}
	return err
}

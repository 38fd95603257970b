package worker

import (
	"context"
	"errors"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// sweepGrace is how long a blob that no row refers to is kept: longer than any
// request or build takes from storing it to committing the row.
const sweepGrace = time.Hour

// RunSweeper removes files and keys that nothing needs, at once and then each hour,
// until ctx ends.
func (s *Service) RunSweeper(ctx context.Context) error {
	for {
		err := errors.Join(s.Sweep(ctx, time.Now().Add(-sweepGrace)), s.Prune(ctx))
		if err != nil && ctx.Err() == nil {
			s.Log.ErrorContext(ctx, "sweeping failed", telemetry.Error, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Hour):
		}
	}
}

const pruneBatch = 500

// Prune drops stored answers, keys and references that are older than they are
// kept. What a key has created is remembered for ever by the project itself.
func (s *Service) Prune(ctx context.Context) error {
	for {
		var keys, references int64
		err := s.Store.Tx(ctx, "prune", func(tx *store.DB) (err error) {
			if keys, err = tx.PruneKeys(ctx, s.Retention, pruneBatch); err != nil {
				return err
			}
			references, err = tx.PruneReferences(ctx, pruneBatch)
			return err
		})
		if err != nil || keys < pruneBatch && references < pruneBatch {
			return err
		}
	}
}

// Sweep removes blobs older than a moment that no build and no version refers
// to: what crashes, failed builds and projects deleted before it have left.
func (s *Service) Sweep(ctx context.Context, before time.Time) error {
	keep := map[previewd.Digest]bool{}
	roots, err := s.Store.ListReferencedBlobs(ctx, before)
	if err != nil {
		return err
	}
	for _, ref := range roots {
		keep[ref.Digest] = true
		if !ref.Manifest {
			continue
		}
		m, err := artifact.ReadManifest(ctx, s.Artifacts, ref.Digest)
		if err != nil {
			return err // nothing is removed while it is not known what is needed
		}
		for _, blob := range m.Blobs() {
			keep[blob.Digest] = true
		}
	}
	rule := artifact.SweepRule{Keep: func(d previewd.Digest) bool { return keep[d] }, Before: before}
	result, err := s.Artifacts.Sweep(ctx, rule)
	if result.Blobs > 0 {
		s.Log.InfoContext(ctx, "artifacts swept", "blobs", result.Blobs, "bytes", result.Bytes)
	}
	return err
}

package gateway

import (
	"context"
	"time"

	"github.com/previewd/previewd/internal/store"
)

const (
	sweepEvery = time.Hour
	sweepBatch = 500
	sweepTopic = "gateway/sweep"
)

// retention is how long stored answers, and requests that came to nothing, are
// kept: longer than any client goes on repeating one.
var retention = store.KeyRetention{Body: 7 * 24 * time.Hour, Row: 30 * 24 * time.Hour}

// RunSweeper drops what is older than it is kept, until ctx ends.
func (s *Service) RunSweeper(ctx context.Context) error {
	return s.every(ctx, sweepEvery, sweepTopic, func(ctx context.Context) {
		if err := s.Sweep(ctx); err != nil {
			s.failed(ctx, "sweeping failed", err)
		}
	})
}

// Sweep drops answers, requests, windows and references that are older than they
// are kept.
func (s *Service) Sweep(ctx context.Context) error {
	for {
		var touched, references int64
		err := s.Store.Tx(ctx, "intent.prune", func(tx *store.DB) (err error) {
			if touched, err = tx.PruneIntents(ctx, retention, sweepBatch); err != nil {
				return err
			}
			references, err = tx.PruneReferences(ctx, sweepBatch)
			return err
		})
		if err != nil || touched < sweepBatch && references < sweepBatch {
			return err
		}
	}
}

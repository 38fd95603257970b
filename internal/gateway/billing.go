package gateway

import (
	"context"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// ListBilling returns a page of the user's sessions, newest first, each with
// what was used.
func (s *Service) ListBilling(ctx context.Context, userID string, p previewd.Page) (*previewd.BillingPage, error) {
	limit, below, err := pageOf(p)
	if err != nil {
		return nil, err
	}
	list, err := s.Store.ListBilling(ctx, userID, below, limit+1)
	if err != nil {
		return nil, err
	}
	page := &previewd.BillingPage{Sessions: []previewd.BillingSession{}}
	list, page.Next = paged(list, limit, func(s previewd.BillingSession) string { return s.ID })
	page.Sessions = append(page.Sessions, list...)
	page.BalanceMicros, err = s.Store.FindBalance(ctx, "user:"+userID)
	return page, err
}

const (
	tellEvery = 5 * time.Second
	tellBatch = 50
	tellTopic = "gateway/biller"
)

// RunBiller tells the sink of closed sessions, each at least once, until ctx ends.
func (s *Service) RunBiller(ctx context.Context) error {
	if s.Sink == nil {
		<-ctx.Done()
		return nil
	}
	return s.every(ctx, tellEvery, tellTopic, func(ctx context.Context) {
		for ctx.Err() == nil {
			n, err := s.TellBiller(ctx)
			if err != nil {
				s.failed(ctx, "telling the biller failed", err)
			}
			if n < tellBatch {
				return
			}
		}
	})
}

// TellBiller tells the sink of the sessions that are due, and returns how many
// there were. What it is not told of now it is told of later.
func (s *Service) TellBiller(ctx context.Context) (int, error) {
	var due []previewd.BillingSession
	err := s.Store.Tx(ctx, "biller.claim", func(tx *store.DB) (err error) {
		due, err = tx.ClaimUntold(ctx, func(attempts int) time.Duration { return time.Minute << min(attempts, 10) }, tellBatch)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, session := range due {
		if err := s.Sink.TellSession(ctx, session); err != nil {
			s.Log.WarnContext(ctx, "the biller was not told", telemetry.BuildID, session.BuildID, telemetry.Error, err)
			continue
		}
		if err := s.Store.Tx(ctx, "biller.told", func(tx *store.DB) error { return tx.MarkTold(ctx, session.ID) }); err != nil {
			return len(due), err
		}
	}
	return len(due), nil
}

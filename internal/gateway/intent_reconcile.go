package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

const (
	reconcileEvery = time.Second
	reconcileBatch = 16
	// workerTime is how long a background call of the worker may take.
	workerTime = 10 * time.Second
)

// RunReconciler asks the worker again for every intent that is due, until ctx
// ends: what a crash, a timeout or a worker that was away has left open.
func (s *Service) RunReconciler(ctx context.Context) error {
	if fault.Off(fault.Reconciler) {
		<-ctx.Done()
		return nil
	}
	return s.every(ctx, reconcileEvery, intentsTopic, func(ctx context.Context) {
		for s.Reconcile(ctx) && ctx.Err() == nil {
		}
	})
}

// Recover gives back what this process has claimed in its last life: it is called
// before anything else, and only one process has its name.
func (s *Service) Recover(ctx context.Context) error {
	if fault.Off(fault.ClaimsBack) {
		return nil
	}
	return s.Store.Tx(ctx, "intent.recover", func(tx *store.DB) error { return tx.ReleaseClaims(ctx, s.Holder) })
}

// workerIsBack has asked again at once for what was put off while the worker was
// away: full jitter would take a minute longer.
func (s *Service) workerIsBack(ctx context.Context) {
	var n int64
	err := s.Store.Tx(ctx, "intent.hasten_all", func(tx *store.DB) (err error) {
		n, err = tx.HastenPostponed(ctx)
		return err
	})
	if err != nil {
		s.failed(ctx, "hastening intents failed", err)
	}
	if n > 0 {
		s.Changes.Notify(intentsTopic)
	}
}

// Reconcile works on the intents that are due, several at a time. It reports
// whether there may be more.
func (s *Service) Reconcile(ctx context.Context) (more bool) {
	var due []*store.Intent
	err := s.Store.Tx(ctx, "intent.claim", func(tx *store.DB) (err error) {
		due, err = tx.ClaimIntents(ctx, s.claim(), reconcileBatch)
		return err
	})
	if err != nil {
		s.failed(ctx, "claiming intents failed", err)
		return false
	}
	var wg sync.WaitGroup
	for _, in := range due {
		wg.Go(func() {
			s.safely(ctx, "intent "+in.ID, func() {
				_, err := s.work(ctx, in, 0)
				if code := previewd.ErrorCode(err); err != nil && !isStateless(code) {
					s.failed(ctx, "reconciling an intent failed", err, telemetry.IntentID, in.ID)
				}
			})
		})
	}
	wg.Wait()
	return len(due) == reconcileBatch
}

// failed logs what went wrong in the background, unless it was told to stop.
func (s *Service) failed(ctx context.Context, what string, err error, attrs ...any) {
	if ctx.Err() == nil {
		s.Log.ErrorContext(ctx, what, append(attrs, telemetry.Error, err)...)
	}
}

// FindIntent returns an intent of the user's. It returns CodeNotFound.
func (s *Service) FindIntent(ctx context.Context, userID, id string) (*previewd.Intent, error) {
	in, err := s.Store.FindIntent(ctx, userID, id)
	if err != nil {
		return nil, err
	}
	return &in.Intent, nil
}

// CancelIntent takes an intent back. What the worker makes of it, or has made, is
// deleted: its id is found out first. It returns CodeConflict for one that has
// ended in a project, which is then to be deleted, and CodeNotFound.
func (s *Service) CancelIntent(ctx context.Context, req Request, id string) (*previewd.Intent, error) {
	var in *store.Intent
	err := s.Store.Tx(ctx, "intent.request_cancel", func(tx *store.DB) (err error) {
		if in, err = tx.FindIntent(ctx, req.User.ID, id); err != nil {
			return err
		}
		if in, err = tx.LockIntent(ctx, id); err != nil || in.CancelRequested || in.State == previewd.IntentCanceled {
			return err
		}
		if in.State.Final() || in.Operation == previewd.IntentCreateBuild {
			return &previewd.Error{
				Code: previewd.CodeConflict, Message: "Only the pending creation of a project can be taken back: delete the project, or cancel the build.",
				Details: "intent " + id + " " + string(in.State),
			}
		}
		if err := tx.RequestCancel(ctx, id); err != nil {
			return err
		}
		in.CancelRequested = true
		return audit(ctx, tx, userActor(req.User.ID), store.AuditEntry{
			Action: "intent.request_cancel", Subject: "intent/" + id, Data: map[string]any{"requestId": req.RequestID},
		})
	})
	if err != nil {
		return nil, err
	}
	s.Changes.Notify(intentsTopic)
	return &in.Intent, nil
}

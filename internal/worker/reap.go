package worker

import (
	"context"
	"errors"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

const (
	reapEvery = 5 * time.Second
	reapBatch = 100
)

// RunReaper returns or fails builds whose runner has fallen silent, and fails
// those that nobody has taken in time, until ctx ends. It waits one lease
// before its first sweep: after a restart healthy runners need that long to be
// heard again.
func (s *Service) RunReaper(ctx context.Context) error {
	wait := s.Lease
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = reapEvery
		if err := s.Reap(ctx); err != nil && ctx.Err() == nil {
			s.Log.ErrorContext(ctx, "reaping failed", telemetry.Error, err)
		}
	}
}

// Reap does one sweep.
func (s *Service) Reap(ctx context.Context) error {
	if fault.Off(fault.Reaper) {
		return nil
	}
	lost := func(ctx context.Context, tx *store.DB) ([]*store.Build, error) {
		return tx.ListExpiredBuilds(ctx, reapBatch)
	}
	stale := func(ctx context.Context, tx *store.DB) ([]*store.Build, error) {
		return tx.ListStaleBuilds(ctx, tx.Now().Add(-s.Timeouts.Queue), reapBatch)
	}
	return errors.Join(
		s.reap(ctx, lost, previewd.Trigger{Kind: previewd.TriggerLeaseExpired}, lostFailure),
		s.reap(ctx, stale, previewd.Trigger{Kind: previewd.TriggerQueueTimeout}, queueFailure))
}

// maxClaims bounds how often a build is taken up again without a count after the
// whole server has died, in case the build is what it dies of.
const maxClaims = 25

// Recover takes back the builds of a runner that is known to be gone: the one
// that ran in this data folder's process before it was killed. That says nothing
// of the builds, so it costs them no attempt. The reaper would do it too, a
// lease later, and count it.
func (s *Service) Recover(ctx context.Context, runnerID string) error {
	held := func(ctx context.Context, tx *store.DB) ([]*store.Build, error) {
		return tx.ListRunnerBuilds(ctx, runnerID)
	}
	return s.reap(ctx, held, previewd.Trigger{Kind: previewd.TriggerRelease}, lostFailure)
}

var (
	lostFailure = previewd.Failure{
		Class: previewd.FailureWorkerLost, Code: previewd.FailWorkerLost,
		Message: "The runner of this build has gone away.", Hint: "Start the build again.",
	}
	queueFailure = previewd.Failure{
		Class: previewd.FailureQueueTimeout, Code: previewd.FailQueueTimeout,
		Message: "No runner took this build in time.", Hint: "Check that a runner is running, then start the build again.",
	}
)

type findBuilds func(ctx context.Context, tx *store.DB) ([]*store.Build, error)

// reap applies a trigger to the builds that find returns, each in a transaction
// of its own: it locks the build first and leaves alone what is no longer due.
func (s *Service) reap(ctx context.Context, find findBuilds, t previewd.Trigger, why previewd.Failure) error {
	var due []*store.Build
	err := s.Store.Tx(ctx, "reap.find", func(tx *store.DB) (err error) {
		due, err = find(ctx, tx)
		return err
	})
	for _, b := range due {
		err = errors.Join(err, s.reapOne(ctx, b.ID, t, why))
	}
	return err
}

// loss says what becomes of a build whose runner is gone, and why.
type loss struct {
	previewd.Trigger
	why   previewd.Failure
	actor string
}

// lose takes a build back that the transaction has locked.
func (s *Service) lose(ctx context.Context, tx *store.DB, b *store.Build, l loss) error {
	t, why := l.Trigger, l.why
	t.Epoch, t.Delay = b.Epoch, s.Retry(b.Attempt)
	if t.Kind == previewd.TriggerRelease && b.Epoch >= maxClaims {
		t.Kind, t.Class = previewd.TriggerFail, previewd.FailureWorkerLost
	}
	why.Step = b.Step
	b.Failure = &why
	return s.transition(ctx, tx, b, t, l.actor)
}

func (s *Service) reapOne(ctx context.Context, id string, t previewd.Trigger, why previewd.Failure) error {
	var b *store.Build
	err := s.Store.Tx(ctx, "reap", func(tx *store.DB) (err error) {
		if b, err = tx.LockBuild(ctx, id); err != nil {
			return err
		}
		return s.lose(ctx, tx, b, loss{t, why, "system/reaper"})
	})
	switch previewd.ErrorCode(err) {
	case "":
	case previewd.CodeConflict, previewd.CodeBuildFinished, previewd.CodeLeaseLost, previewd.CodeNotFound:
		return nil // its runner was heard of, or somebody else has reaped it
	default:
		return err
	}
	s.Log.WarnContext(ctx, "build reaped", telemetry.ProjectID, b.ProjectID, telemetry.BuildID, b.ID,
		telemetry.Status, b.Status, telemetry.Epoch, b.Epoch, telemetry.ReferenceID, b.ReferenceID)
	s.changed(b.ProjectID)
	return nil
}

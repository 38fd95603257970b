package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// Repair restores a promise in the one way that is right.
type Repair struct {
	store.Repair
	apply func(ctx context.Context, tx *store.DB) (done bool, err error)
}

const (
	doctorActor  = "operator/doctor"
	doctorAction = "doctor.fix"
)

// ListRepairs returns what can be repaired, at most a thousand of a kind, and
// changes nothing. What is broken and not among them has no one right repair.
func (s *Service) ListRepairs(ctx context.Context) ([]Repair, error) {
	// Counters first: no event can be stored behind one that lags.
	rows, err := s.Store.ListRepairs(ctx, s.Retention.Row)
	if err != nil {
		return nil, err
	}
	list := make([]Repair, 0, len(rows))
	for _, r := range rows {
		list = append(list, Repair{r, func(ctx context.Context, tx *store.DB) (bool, error) { return tx.Repair(ctx, r) }})
	}
	lost, err := s.listLost(ctx)
	if err != nil {
		return nil, err
	}
	unfed, err := s.listUnfed(ctx)
	if err != nil {
		return nil, err
	}
	list = append(append(list, lost...), unfed...)
	outdated, err := s.Store.ListOutdated(ctx)
	for _, o := range outdated {
		list = append(list, s.advance(o))
	}
	return list, err
}

// Repair does a repair and writes it to the audit log, in one transaction. It
// returns false when there was nothing to repair any more.
func (s *Service) Repair(ctx context.Context, r Repair) (done bool, err error) {
	err = s.Store.Tx(ctx, "doctor", func(tx *store.DB) error {
		if done, err = r.apply(ctx, tx); err != nil || !done {
			return err
		}
		data := map[string]any{"check": r.Check}
		for k, v := range r.Data {
			data[k] = v
		}
		return tx.AppendAudit(ctx, store.AuditEntry{Actor: doctorActor, Action: doctorAction, Subject: r.Subject, Data: data})
	})
	switch previewd.ErrorCode(err) {
	case previewd.CodeConflict, previewd.CodeBuildFinished, previewd.CodeLeaseLost, previewd.CodeNotFound:
		return false, nil // somebody else was faster, or something else is broken too
	}
	return done && err == nil, err
}

// listLost finds builds whose lease is long over; the reaper's transition takes
// them back.
func (s *Service) listLost(ctx context.Context) (list []Repair, err error) {
	var due []*store.Build
	err = s.Store.Tx(ctx, "doctor.find", func(tx *store.DB) error {
		due, err = tx.ListExpiredBuilds(ctx, 1000)
		for i, b := range due {
			if tx.Now().Sub(b.State.LeaseUntil) < store.DeadLease {
				due = due[:i] // the longest over come first
				break
			}
		}
		return err
	})
	for _, b := range due {
		list = append(list, Repair{store.Repair{
			Check: "build_lease_expired", Subject: "build/" + b.ID,
			Text: fmt.Sprintf("build %s: take it back from runner %s, whose lease was over at %s",
				b.ID, b.RunnerID, b.State.LeaseUntil.Format(time.RFC3339)),
			Data: map[string]any{"runner": b.RunnerID, "epoch": b.Epoch, "leaseUntil": b.State.LeaseUntil},
		}, func(ctx context.Context, tx *store.DB) (bool, error) {
			locked, err := tx.LockBuild(ctx, b.ID)
			if err != nil {
				return false, err
			}
			expired := loss{previewd.Trigger{Kind: previewd.TriggerLeaseExpired}, lostFailure, doctorActor}
			return true, s.lose(ctx, tx, locked, expired)
		}})
	}
	return list, err
}

// listUnfed gives forgotten events their places in the feed, unless somebody
// leads the feed who will.
func (s *Service) listUnfed(ctx context.Context) (list []Repair, err error) {
	var n int
	err = s.Store.Tx(ctx, "doctor.find", func(tx *store.DB) error {
		n, err = tx.CountUnfed(ctx, tx.Now().Add(-store.UnfedAge))
		return err
	})
	for ; n > 0; n -= feedBatch {
		list = append(list, Repair{store.Repair{
			Check: "event_without_feed_position", Subject: "feed/worker",
			Text: fmt.Sprintf("feed: give %d forgotten events their places", min(n, feedBatch)),
			Data: map[string]any{"events": min(n, feedBatch)},
		}, func(ctx context.Context, tx *store.DB) (bool, error) {
			given, _, err := tx.AssignFeedHere(ctx, "doctor", 0, feedBatch)
			return given > 0, err
		}})
	}
	return list, err
}

const feedBatch = 5000

// advance shows a project's newest version.
func (s *Service) advance(o store.Outdated) Repair {
	return Repair{store.Repair{
		Check: "current_version_outdated", Subject: "project/" + o.ProjectID,
		Text: fmt.Sprintf("project %s: show version %d, of build %d, instead of that of build %d", o.ProjectID, o.Number, o.BuildSeq, o.Shown),
		Data: map[string]any{"version": o.Number, "fromBuild": o.Shown, "toBuild": o.BuildSeq},
	}, func(ctx context.Context, tx *store.DB) (bool, error) {
		if _, err := tx.LockProject(ctx, o.ProjectID); err != nil {
			return false, err
		}
		moved, err := tx.AdvanceVersion(ctx, o.ProjectID, o.VersionID, o.BuildSeq)
		if err != nil || !moved {
			return false, err
		}
		b, err := tx.FindBuild(ctx, o.BuildID)
		if err != nil {
			return false, err
		}
		return true, tx.AppendEvents(ctx, o.ProjectID, activatedEvent(b, o.Number, false))
	}}
}

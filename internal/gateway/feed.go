package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

const (
	followTopic = "gateway/follow" // a project was stored whose events may have come before
	feedPage    = 100
	feedWait    = 20 * time.Second
	feedRest    = time.Second // after the worker could not be asked
	poisonAfter = 5           // times that an event may fail to be applied
	parkedBatch = 50
)

var errPanicked = errors.New("it has panicked")

// RunFollower applies the worker's events until ctx ends, page by page, each
// with its cursor in one transaction: what was applied is never applied again.
func (s *Service) RunFollower(ctx context.Context) error {
	away := false
	for ctx.Err() == nil {
		wait := feedWait
		if away {
			wait = 0 // its answer is the sign that it is back
		}
		err := errPanicked
		s.safely(ctx, "following", func() { err = s.FollowOnce(ctx, wait) })
		if err == nil && away {
			s.workerIsBack(ctx)
		}
		if away = err != nil; away {
			s.failed(ctx, "following the worker failed", err)
			select {
			case <-ctx.Done():
			case <-time.After(feedRest):
			}
		}
	}
	return nil
}

// FollowOnce applies the next page of events; it waits when there is none.
func (s *Service) FollowOnce(ctx context.Context, wait time.Duration) error {
	feed, err := s.Store.FindAppFeed(ctx)
	if err != nil {
		return err
	}
	page, err := s.Worker.ListEvents(ctx, previewd.EventFilter{After: feed.Cursor, Limit: feedPage, Wait: wait})
	if err != nil {
		return err
	}
	if page.Reset {
		s.Log.WarnContext(ctx, "the worker's log is another one: following it from its beginning", "cursor", feed.Cursor)
	}
	if page.Next == feed.Cursor {
		return nil
	}
	if err := s.applyPage(ctx, feed.Cursor, page); !errors.Is(err, errMoved) {
		return err
	}
	return nil // another process has applied it
}

// applyPage applies a page. When one of its events cannot be applied, those
// before it are, and it is tried again; in the end it is moved aside.
func (s *Service) applyPage(ctx context.Context, cursor string, page *previewd.EventPage) error {
	failures := 0
	for begun := false; !begun || len(page.Events) > 0; begun = true {
		err := s.apply(ctx, cursor, page.Events, page.Next)
		var bad *badEventError
		var parked *badParkedError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &parked):
			if err := s.poisonParked(ctx, parked); err != nil {
				return err
			}
			continue
		case !errors.As(err, &bad):
			return err
		}
		if bad.index > 0 {
			// Those before it, by themselves.
			next := page.Events[bad.index-1].Cursor
			if err := s.apply(ctx, cursor, page.Events[:bad.index], next); err != nil {
				return err
			}
			cursor, page.Events, failures = next, page.Events[bad.index:], 0
			continue
		}
		if failures++; failures < poisonAfter {
			continue
		}
		if err := s.poison(ctx, cursor, page.Events[0], bad); err != nil {
			return err
		}
		cursor, page.Events, failures = page.Events[0].Cursor, page.Events[1:], 0
	}
	return nil
}

// blameless reports whether an error says nothing of the event that was being
// applied.
func blameless(ctx context.Context, err error) bool {
	return ctx.Err() != nil || previewd.ErrorCode(err) == previewd.CodeUnavailable
}

// badEventError says which event of a page cannot be applied.
type badEventError struct {
	index int
	event previewd.Event
	err   error
}

func (e *badEventError) Error() string {
	return fmt.Sprintf("cannot apply event %d of project %s: %v", e.event.Seq, e.event.ProjectID, e.err)
}

func (e *badEventError) Unwrap() error { return e.err }

// badParkedError says that a parked event cannot be applied.
type badParkedError struct {
	event previewd.Event
	err   error
}

func (e *badParkedError) Error() string {
	return fmt.Sprintf("cannot apply parked event %d of project %s: %v", e.event.Seq, e.event.ProjectID, e.err)
}

func (e *badParkedError) Unwrap() error { return e.err }

// poisonParked moves a parked event aside that cannot be applied.
func (s *Service) poisonParked(ctx context.Context, bad *badParkedError) error {
	err := s.Store.Tx(ctx, "feed.poison", func(tx *store.DB) error {
		if err := tx.PoisonEvent(ctx, bad.event, bad.err.Error(), 1); err != nil {
			return err
		}
		return s.showPoison(ctx, tx, bad.event)
	})
	if err == nil {
		s.tellPoison(ctx, bad.event, bad.err)
	}
	return err
}

// showPoison has an operator look at the project of an event that was moved aside.
func (s *Service) showPoison(ctx context.Context, tx *store.DB, e previewd.Event) error {
	err := tx.UpdateAppProject(ctx, e.ProjectID, store.AppProjectChange{Attention: new(fmt.Sprintf("event %d cannot be applied", e.Seq))})
	if previewd.ErrorCode(err) == previewd.CodeConflict {
		return nil // it is not stored
	}
	return err
}

func (s *Service) tellPoison(ctx context.Context, e previewd.Event, why error) {
	s.counts.Poison.Add(1)
	s.Log.ErrorContext(ctx, "event moved aside", telemetry.ProjectID, e.ProjectID, telemetry.BuildID, e.BuildID, "seq", e.Seq,
		"type", e.Type, telemetry.Error, why)
}

// errMoved says that another process has moved the cursor.
var errMoved = errors.New("the feed was applied by another process")

// apply applies events and moves the cursor from where it was to next, in one
// transaction.
func (s *Service) apply(ctx context.Context, cursor string, events []previewd.Event, next string) error {
	var topics map[string]bool
	err := s.Store.Tx(ctx, "feed.apply", func(tx *store.DB) (err error) {
		topics, err = s.withApplier(ctx, tx, func(a *applier) error {
			if a.feed.Cursor != cursor {
				return errMoved
			}
			for i, e := range events {
				err := a.event(ctx, e)
				parked := (*badParkedError)(nil)
				switch {
				case err == nil:
				case blameless(ctx, err), errors.As(err, &parked):
					return err
				default:
					return &badEventError{i, e, err}
				}
			}
			a.feed.Cursor = next
			return nil
		})
		return err
	})
	if err == nil {
		s.tell(topics)
	}
	return err
}

func (s *Service) tell(topics map[string]bool) {
	for topic := range topics {
		s.Changes.Notify(topic)
	}
}

// poison moves an event aside and the cursor past it: one event must not stop all.
func (s *Service) poison(ctx context.Context, cursor string, e previewd.Event, why error) error {
	err := s.Store.Tx(ctx, "feed.poison", func(tx *store.DB) error {
		feed, err := tx.LockAppFeed(ctx)
		if err != nil {
			return err
		}
		if feed.Cursor != cursor {
			return errMoved
		}
		if err := tx.PoisonEvent(ctx, e, why.Error(), poisonAfter); err != nil {
			return err
		}
		if err := s.showPoison(ctx, tx, e); err != nil {
			return err
		}
		feed.Cursor = e.Cursor
		return tx.MoveAppFeed(ctx, feed)
	})
	if err == nil {
		s.tellPoison(ctx, e, why)
	}
	return err
}

// RunParked applies events that came before their project was stored, as soon as
// it is, until ctx ends.
func (s *Service) RunParked(ctx context.Context) error {
	return s.every(ctx, s.Parked/2, followTopic, func(ctx context.Context) {
		if err := s.ApplyParked(ctx); err != nil {
			s.failed(ctx, "applying parked events failed", err)
		}
	})
}

// ApplyParked applies parked events whose project is stored now, and finds out
// about projects that are not stored although their events came long ago.
func (s *Service) ApplyParked(ctx context.Context) error {
	var last []string
	for {
		var ids []string
		err := s.Store.Tx(ctx, "feed.parked", func(tx *store.DB) (err error) {
			ids, err = tx.ListParkedProjects(ctx, tx.Now().Add(-s.Parked), parkedBatch)
			return err
		})
		if err == nil {
			err = s.applyParked(ctx, ids)
		}
		// More may wait behind a whole batch, unless it is one that cannot move.
		if err != nil || len(ids) < parkedBatch || slices.Equal(ids, last) {
			return err
		}
		last = ids
	}
}

func (s *Service) applyParked(ctx context.Context, ids []string) error {
	var errs []error
	for _, id := range ids {
		err := s.release(ctx, id)
		for bad := (*badParkedError)(nil); errors.As(err, &bad); err = s.release(ctx, id) {
			if err := s.poisonParked(ctx, bad); err != nil {
				return err
			}
		}
		errs = append(errs, err, s.findParked(ctx, id))
	}
	return errors.Join(errs...)
}

// release applies a project's parked events, if it is stored.
func (s *Service) release(ctx context.Context, projectID string) error {
	var topics map[string]bool
	err := s.Store.Tx(ctx, "feed.release", func(tx *store.DB) (err error) {
		topics, err = s.withApplier(ctx, tx, func(a *applier) error { return a.release(ctx, projectID) })
		return err
	})
	if err == nil {
		s.tell(topics)
	}
	return err
}

// findParked asks the worker about a project that is not stored although its
// first events came: its intent is hastened, or the project is adopted when the
// intent is gone.
func (s *Service) findParked(ctx context.Context, projectID string) error {
	switch _, err := s.Store.FindAnyAppProject(ctx, projectID); previewd.ErrorCode(err) {
	case "":
		return nil
	case previewd.CodeNotFound:
	default:
		return err
	}
	call, cancel := context.WithTimeout(ctx, workerTime)
	defer cancel()
	p, err := s.Worker.FindProject(call, projectID)
	if previewd.ErrorCode(err) == previewd.CodeNotFound {
		return s.forgetDeleted(ctx, projectID)
	}
	if err != nil {
		return err
	}
	if p.CreateKey == "" && !fault.Off(fault.AdoptOwn) {
		// Another's: the worker shows a key to the principal that sent it only.
		return s.forgetParked(ctx, projectID)
	}
	in, err := s.Store.FindIntentByWorkerKey(ctx, p.CreateKey)
	switch {
	case err != nil:
		return err
	case in == nil:
		return s.adopt(ctx, p)
	case in.State == previewd.IntentRejected || in.State == previewd.IntentCanceled:
		return s.deleteOrphan(ctx, in, projectID)
	}
	return s.Store.Tx(ctx, "intent.hasten", func(tx *store.DB) error { return tx.HastenIntent(ctx, in.ID) })
}

// forgetDeleted forgets the events of a project that the worker has deleted,
// unless its intent is still to be confirmed: then they tell that it is gone.
func (s *Service) forgetDeleted(ctx context.Context, projectID string) error {
	parked, err := s.Store.ListParked(ctx, projectID)
	if err != nil || len(parked) == 0 {
		return err
	}
	key, _ := parked[0].Data["idempotencyKey"].(string)
	in, err := s.Store.FindIntentByWorkerKey(ctx, key)
	if err != nil || in != nil && !in.State.Final() {
		return err
	}
	return s.forgetParked(ctx, projectID)
}

func (s *Service) forgetParked(ctx context.Context, projectID string) error {
	return s.Store.Tx(ctx, "feed.forget", func(tx *store.DB) error { return tx.ForgetParked(ctx, projectID) })
}

// deleteOrphan deletes a project that the worker has made for an intent that had
// ended otherwise.
func (s *Service) deleteOrphan(ctx context.Context, in *store.Intent, projectID string) error {
	if _, err := s.deleteTheirs(ctx, projectID, in.RequestID); err != nil {
		return err
	}
	return s.Store.Tx(ctx, "feed.orphan", func(tx *store.DB) error {
		if err := tx.ForgetParked(ctx, projectID); err != nil {
			return err
		}
		return audit(ctx, tx, reconciler, store.AuditEntry{
			Action: "project.delete_orphan", Subject: "project/" + projectID, Data: map[string]any{"intentId": in.ID, "state": in.State},
		})
	})
}

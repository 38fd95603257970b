package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

func entryKey(buildID string, epoch int64, meter string) string {
	key := fmt.Sprintf("build:%s:epoch:%d:meter:%s", buildID, epoch, meter)
	if fault.Off(fault.BillingOnce) {
		key += ":" + previewd.NewRequestID()
	}
	return key
}

const compareBatch = 100

// RunComparer compares builds that are not over with the worker's, until ctx ends.
func (s *Service) RunComparer(ctx context.Context) error {
	return s.every(ctx, s.Compare/2, compareTopic, func(ctx context.Context) {
		if err := s.CompareOnce(ctx); err != nil {
			s.failed(ctx, "comparing builds failed", err)
		}
	})
}

const compareTopic = "gateway/compare"

// CompareOnce compares the builds whose turn it is, and completes deletions that
// were left open. A build that differs although every event was applied has lost
// one: then the worker's word is taken, and counted.
func (s *Service) CompareOnce(ctx context.Context) error {
	errs := []error{s.finishDeletions(ctx)}
	for ctx.Err() == nil {
		var list []*store.AppBuild
		err := s.Store.Tx(ctx, "compare", func(tx *store.DB) (err error) {
			list, err = tx.ClaimComparisons(ctx, tx.Now().Add(-s.Compare), compareBatch)
			return err
		})
		errs = append(errs, err)
		for _, b := range list {
			errs = append(errs, s.compare(ctx, b))
		}
		if err != nil || len(list) < compareBatch {
			break
		}
	}
	return errors.Join(errs...)
}

func (s *Service) compare(ctx context.Context, b *store.AppBuild) error {
	call, cancel := context.WithTimeout(ctx, workerTime)
	defer cancel()
	theirs, err := s.Worker.FindBuild(call, b.ID, 0)
	if previewd.ErrorCode(err) == previewd.CodeNotFound {
		// Its project may have been deleted: then an event says so.
		if caught, err := s.caughtUp(call); err != nil || !caught {
			return err
		}
		return s.lost(ctx, b)
	}
	if err != nil || theirs.Status == b.WorkerStatus {
		return err
	}
	if _, err := theirs.Status.ProjectStatus(); err != nil {
		s.unknown(ctx, b.ProjectID, b.ID, theirs.Status)
		return nil
	}
	if !theirs.Status.Terminal() {
		return nil // on its way: an event will tell, and where it stands is told live
	}
	if theirs.FinishedAt == nil {
		s.counts.BadAnswers.Add(1)
		return fmt.Errorf("cannot believe the worker: build %s is %s and has no end", b.ID, theirs.Status)
	}
	// Its last event was in the feed before this look at the feed's end.
	if caught, err := s.caughtUp(call); err != nil || !caught || time.Since(*theirs.FinishedAt) < feedDelay {
		return err
	}
	return s.correct(ctx, theirs)
}

// feedDelay is how long an event may take to its place in the feed.
const feedDelay = time.Minute

// caughtUp reports whether every event that has its place in the feed was applied.
func (s *Service) caughtUp(ctx context.Context) (bool, error) {
	feed, err := s.Store.FindAppFeed(ctx)
	if err != nil {
		return false, err
	}
	page, err := s.Worker.ListEvents(ctx, previewd.EventFilter{After: feed.Cursor, Limit: 1})
	if err != nil {
		return false, err
	}
	return len(page.Events) == 0, nil
}

// correct takes the worker's word for how a build ended.
func (s *Service) correct(ctx context.Context, theirs *previewd.Build) error {
	corrected := false
	err := s.Store.Tx(ctx, "compare.correct", func(tx *store.DB) error {
		corrected = false
		if _, err := tx.LockAppFeed(ctx); err != nil { // nobody applies its event meanwhile
			return err
		}
		b, err := tx.FindAnyAppBuild(ctx, theirs.ID)
		if err != nil || b == nil || b.FinishedAt != nil {
			return err
		}
		b.WorkerStatus, b.Canceling, b.Epoch, b.Version = theirs.Status, false, theirs.Epoch, theirs.Version
		if b.Status, err = theirs.Status.ProjectStatus(); err != nil {
			return err
		}
		b.Failure, b.SupersededBy, b.FinishedAt = theirs.Failure, theirs.SupersededBy, theirs.FinishedAt
		if b.StartedAt == nil && theirs.StartedAt != nil {
			b.StartedAt = theirs.FinishedAt // when its last attempt began is not known: it costs nothing
		}
		if err := tx.UpdateAppBuild(ctx, b); err != nil {
			return err
		}
		if err := s.closeBilling(ctx, tx, b, 0); err != nil {
			return err
		}
		corrected = true
		return audit(ctx, tx, reconciler, store.AuditEntry{
			Action: "build.correct", Subject: "build/" + b.ID, Data: map[string]any{"to": theirs.Status},
		})
	})
	if err == nil && corrected {
		s.counts.Corrections.Add(1)
		s.Log.ErrorContext(ctx, "build corrected: an event of it was lost", telemetry.ProjectID, theirs.ProjectID, telemetry.BuildID, theirs.ID,
			telemetry.Status, theirs.Status)
		s.Changes.Notify(ProjectTopic(theirs.ProjectID))
	}
	return err
}

// lost is for a build that the worker does not know although no event has told
// that it is gone, as after a backup of the worker was restored. An operator is
// told; if it is so at the next comparison too, the build is over.
func (s *Service) lost(ctx context.Context, b *store.AppBuild) error {
	defer s.Changes.Notify(ProjectTopic(b.ProjectID))
	return s.Store.Tx(ctx, "compare.lost", func(tx *store.DB) error {
		if _, err := tx.LockAppFeed(ctx); err != nil {
			return err
		}
		p, err := tx.LockAppProject(ctx, b.ProjectID)
		if err != nil || p.State != "active" {
			return err
		}
		why := "the worker does not know build " + b.ID
		if p.Attention == why {
			now, err := tx.FindAnyAppBuild(ctx, b.ID)
			if err != nil || now == nil || now.FinishedAt != nil {
				return err
			}
			return s.endLost(ctx, tx, now)
		}
		s.Log.ErrorContext(ctx, "build lost", telemetry.ProjectID, b.ProjectID, telemetry.BuildID, b.ID)
		if err := tx.UpdateAppProject(ctx, b.ProjectID, store.AppProjectChange{Attention: &why}); err != nil {
			return err
		}
		return audit(ctx, tx, reconciler, store.AuditEntry{Action: "project.attention", Subject: "project/" + b.ProjectID, Data: map[string]any{"why": why}})
	})
}

// endLost ends a build that the worker does not know any more: nobody pays for
// it, and it is in nobody's way. The caller has locked the feed.
func (s *Service) endLost(ctx context.Context, tx *store.DB, b *store.AppBuild) error {
	at := tx.Now()
	b.Status, b.WorkerStatus, b.Canceling, b.FinishedAt = previewd.ProjectFailed, previewd.BuildFailed, false, &at
	b.Failure = &previewd.Failure{
		Class: previewd.FailureInfra, Code: previewd.FailWorkerLost, Message: "The worker does not know this build any more.", Hint: "Start the build again.",
	}
	if err := tx.UpdateAppBuild(ctx, b); err != nil {
		return err
	}
	if err := s.closeBilling(ctx, tx, b, 0); err != nil {
		return err
	}
	return audit(ctx, tx, reconciler, store.AuditEntry{
		Action: "build.correct", Subject: "build/" + b.ID, Data: map[string]any{"to": b.WorkerStatus, "why": "lost"},
	})
}

// adopt stores a project that the worker has made for this gateway, and whose
// intent is gone, as after a backup of the gateway was restored.
func (s *Service) adopt(ctx context.Context, p *previewd.Project) error {
	m := madeOfProject(p)
	a := ask{Prompt: p.LatestBuild.Prompt, Template: p.LatestBuild.Template}
	in := s.newIntent(Request{User: previewd.User{ID: p.UserID}, RequestID: "adopt-" + p.ID}, previewd.IntentCreateProject, "", a)
	in.WorkerKey = p.CreateKey
	if id, ok := strings.CutPrefix(p.CreateKey, projectKey); ok && previewd.IsID(id) {
		in.ID, in.ClientKey = id, "none:"+id
	}
	m.ask = &a
	suggested, adopted := in.Name, false
	err := s.Store.Tx(ctx, "intent.adopt", func(tx *store.DB) error {
		in.Name, in.State, in.Body, in.ProjectID, in.BuildID = suggested, previewd.IntentPending, nil, "", ""
		in.DeadlineAt, adopted = tx.Now().Add(s.Deadline), false
		taken, err := tx.InsertIntent(ctx, in)
		if err != nil || taken != nil {
			return err
		}
		if err := reserveSuggested(ctx, tx, in); err != nil {
			return err
		}
		adopted = true
		return s.store(ctx, tx, in, m)
	})
	if err != nil || !adopted {
		return err // another process has it
	}
	s.counts.Adopted.Add(1)
	s.Log.WarnContext(ctx, "project adopted", telemetry.ProjectID, p.ID, telemetry.UserID, p.UserID, telemetry.IntentID, in.ID)
	s.Changes.Notify(followTopic)
	return nil
}

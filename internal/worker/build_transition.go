package worker

import (
	"context"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// transition applies a trigger to a build and writes the row, the event and
// the audit entry in the caller's transaction. There is no other way to change
// a build's state. The guard on the state that b was read with makes a write
// that lost a race fail.
func (s *Service) transition(ctx context.Context, tx *store.DB, b *store.Build, t previewd.Trigger, actor string) error {
	read := b.State
	t.Now = tx.Now()
	newer, err := s.newerWaits(ctx, tx, b, &t)
	if err != nil {
		return err
	}
	next, err := read.Apply(t)
	if err != nil {
		return err
	}
	if next.Status == previewd.BuildSuperseded && b.SupersededBy == "" {
		b.SupersededBy = newer
	}
	if next == read {
		return nil
	}
	b.State = next
	b.Status, b.Epoch, b.Attempt, b.CancelReason = next.Status, next.Epoch, next.Attempt, next.CancelReason
	if next.Status != previewd.BuildBuilding {
		b.Step = ""
	}
	if next.LeaseUntil.IsZero() {
		b.RunnerID = ""
	}
	if next.Status == previewd.BuildBuilding && b.StartedAt == nil {
		b.StartedAt = new(tx.Now())
	}
	if next.Status.Terminal() {
		b.FinishedAt = new(tx.Now())
	}
	if err := tx.UpdateBuild(ctx, read, b); err != nil {
		return err
	}
	if next.Status == read.Status {
		return nil // a heartbeat tells nobody anything new
	}
	event := transitionEvent(read.Status, b)
	if err := tx.AppendEvents(ctx, b.ProjectID, event); err != nil {
		return err
	}
	return tx.AppendAudit(ctx, store.AuditEntry{
		Actor: actor, Action: string(event.Type), Subject: "build/" + b.ID,
		Data: map[string]any{"from": read.Status, "to": next.Status, "epoch": next.Epoch},
	})
}

// newerWaits tells the trigger whether a newer build of the project waits, which
// a build that would go back into the queue gives way to.
func (s *Service) newerWaits(ctx context.Context, tx *store.DB, b *store.Build, t *previewd.Trigger) (id string, err error) {
	switch t.Kind {
	case previewd.TriggerFail, previewd.TriggerRelease, previewd.TriggerLeaseExpired:
		id, err = tx.FindWaiting(ctx, b.ProjectID)
		t.Newer = id != ""
	}
	return id, err
}

// transitionEvent tells of a build that has come from a status to its present one.
func transitionEvent(from previewd.BuildStatus, b *store.Build) previewd.Event {
	e := previewd.Event{
		Type: previewd.EventType("build." + string(b.Status)), BuildID: b.ID,
		Epoch: b.Epoch, RequestID: b.RequestID,
		Data: map[string]any{"seq": b.Seq, "attempt": b.Attempt},
	}
	if b.Status == previewd.BuildQueued && from != previewd.BuildQueued {
		e.Type = previewd.EventBuildRetrying
		e.Data["runnableAt"] = b.State.RunnableAt
	}
	if b.Failure != nil && (b.Status == previewd.BuildFailed || e.Type == previewd.EventBuildRetrying) {
		e.Data["failure"] = b.Failure
		e.Data["referenceId"] = b.ReferenceID
	}
	if b.SupersededBy != "" {
		e.Data["supersededBy"] = b.SupersededBy
	}
	if b.Status == previewd.BuildCompleted {
		e.Data["runner"], e.Data["isolation"] = b.Runner, b.Isolation
	}
	return e
}

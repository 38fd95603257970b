package worker

import (
	"context"
	"maps"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// transition applies a trigger to a build and writes the row, the event and
// the audit entry in the caller's transaction. There is no other way to change
// a build's state. The guard on the state that b was read with makes a write
// that lost a race fail.
func (s *Service) transition(ctx context.Context, tx *store.DB, b *store.Build, t previewd.Trigger, actor string) error {
	from, err := s.move(ctx, tx, b, t)
	if err != nil {
		return err
	}
	return s.tell(ctx, tx, b, change{from: from, actor: actor})
}

// move is a transition without a word of it, and returns where the build was.
// The caller tells.
func (s *Service) move(ctx context.Context, tx *store.DB, b *store.Build, t previewd.Trigger) (from previewd.BuildStatus, err error) {
	read := b.State
	t.Now = tx.Now()
	newer, err := s.newerWaits(ctx, tx, b, &t)
	if err != nil {
		return read.Status, err
	}
	next, err := read.Apply(t)
	if err != nil {
		return read.Status, err
	}
	if next.Status == previewd.BuildSuperseded && b.SupersededBy == "" {
		b.SupersededBy = newer
	}
	if next == read {
		return read.Status, nil
	}
	b.State = next
	b.Status, b.Epoch, b.Attempt, b.CancelReason = next.Status, next.Epoch, next.Attempt, next.CancelReason
	if next.Status != previewd.BuildBuilding {
		b.Step = ""
	}
	if next.LeaseUntil.IsZero() {
		b.RunnerID = ""
	}
	if t.Kind == previewd.TriggerClaim {
		b.ClaimedAt = tx.Now()
	}
	if next.Status == previewd.BuildBuilding && b.StartedAt == nil {
		b.StartedAt = new(tx.Now())
	}
	if next.Status.Terminal() {
		b.FinishedAt = new(tx.Now())
	}
	return read.Status, tx.UpdateBuild(ctx, read, b)
}

// change is what there is to tell of a transition.
type change struct {
	from  previewd.BuildStatus
	actor string
	data  map[string]any   // of its event, beside what all such events have
	then  []previewd.Event // that follow it
}

// tell writes the event and the audit entry of a build that was moved. A
// heartbeat tells nobody anything new.
func (s *Service) tell(ctx context.Context, tx *store.DB, b *store.Build, c change) error {
	if b.Status == c.from {
		return nil
	}
	event := transitionEvent(c.from, b)
	maps.Copy(event.Data, c.data)
	if err := tx.AppendEvents(ctx, b.ProjectID, append([]previewd.Event{event}, c.then...)...); err != nil {
		return err
	}
	return tx.AppendAudit(ctx, store.AuditEntry{
		Actor: c.actor, Action: string(event.Type), Subject: "build/" + b.ID,
		Data: map[string]any{"from": c.from, "to": b.Status, "epoch": b.Epoch},
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
	addTimes(e.Data, from, b)
	return e
}

// addTimes says when a build has begun and ended, as its row does: enough to
// meter from events alone.
func addTimes(data map[string]any, from previewd.BuildStatus, b *store.Build) {
	if b.StartedAt != nil && (b.Status == previewd.BuildBuilding || b.Status.Terminal()) {
		data["startedAt"] = b.StartedAt
	}
	if b.Status.Terminal() {
		data["finishedAt"] = b.FinishedAt
		if from != previewd.BuildQueued && !b.ClaimedAt.IsZero() {
			data["durationMs"] = b.FinishedAt.Sub(b.ClaimedAt).Milliseconds()
		}
	}
}

package worker

import (
	"context"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// DeleteProject implements previewd.Worker. The rows stay, so that no id and no
// key is ever used again; the sweeper removes the files. A build that runs is
// canceling until its runner has killed it, as after any other cancel.
func (s *Service) DeleteProject(ctx context.Context, req previewd.DeleteProjectRequest) error {
	if !previewd.IsID(req.ProjectID) {
		return previewd.NotFound("project", req.ProjectID)
	}
	var before store.LockedProject
	err := s.Store.Tx(ctx, "project.delete", func(tx *store.DB) (err error) {
		if before, err = tx.LockAnyProject(ctx, req.ProjectID); err != nil || before.Deleted {
			return err
		}
		return s.deleteLocked(ctx, tx, req, before)
	})
	if err != nil || before.Deleted {
		return err
	}
	s.Deleted(req.ProjectID) // before anybody hears of it
	s.changed(req.ProjectID)
	s.Log.InfoContext(ctx, "project deleted", telemetry.ProjectID, req.ProjectID,
		telemetry.CreatedByService, req.Caller.Service, telemetry.RequestID, req.Caller.RequestID)
	return nil
}

func (s *Service) deleteLocked(ctx context.Context, tx *store.DB, req previewd.DeleteProjectRequest, locked store.LockedProject) error {
	actor := "service/" + req.Caller.Service
	active, err := tx.ListActiveBuilds(ctx, req.ProjectID)
	if err != nil {
		return err
	}
	ended := []string{}
	for _, b := range active {
		ended = append(ended, b.ID)
		t := previewd.Trigger{Kind: previewd.TriggerCancel, Reason: previewd.CancelDeleted, Grace: s.Timeouts.Cancel}
		if err := s.transition(ctx, tx, b, t, actor); err != nil {
			return err
		}
	}
	if err := tx.DeleteProject(ctx, req.ProjectID, locked); err != nil {
		return err
	}
	err = tx.AppendEvents(ctx, req.ProjectID, previewd.Event{
		Type: previewd.EventProjectDeleted, RequestID: req.Caller.RequestID,
		Data: map[string]any{"deletedByService": req.Caller.Service},
	})
	if err != nil {
		return err
	}
	return tx.AppendAudit(ctx, store.AuditEntry{
		Actor: actor, Action: "project.delete", Subject: "project/" + req.ProjectID,
		Data: map[string]any{"ownerId": locked.OwnerID, "builds": ended, "requestId": req.Caller.RequestID},
	})
}

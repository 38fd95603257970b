package worker

import (
	"context"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// ActivateVersion implements previewd.Worker. Activating the version that is
// shown already changes nothing and says so by the same answer.
func (s *Service) ActivateVersion(ctx context.Context, req previewd.ActivateVersionRequest) (*previewd.Version, error) {
	if !previewd.IsID(req.ProjectID) {
		return nil, previewd.NotFound("project", req.ProjectID)
	}
	var v *previewd.Version
	err := s.Store.Tx(ctx, "activate", func(tx *store.DB) (err error) {
		if _, err := tx.LockProject(ctx, req.ProjectID); err != nil {
			return err
		}
		if v, err = tx.FindVersion(ctx, req.ProjectID, req.Number); err != nil || v.Current {
			return err
		}
		pinned, err := tx.PinVersion(ctx, v)
		if err != nil {
			return err
		}
		v.Current = true
		b, err := tx.FindBuild(ctx, v.BuildID)
		if err != nil {
			return err
		}
		b.RequestID = req.Caller.RequestID
		if err := tx.AppendEvents(ctx, v.ProjectID, activatedEvent(b, v.Number, pinned)); err != nil {
			return err
		}
		return tx.AppendAudit(ctx, store.AuditEntry{
			Actor: "service/" + req.Caller.Service, Action: "version.activate", Subject: "project/" + v.ProjectID,
			Data: map[string]any{"version": v.Number, "requestId": req.Caller.RequestID},
		})
	})
	if err != nil {
		return nil, err
	}
	s.Switched(v.ProjectID)
	s.changed(v.ProjectID)
	return s.dressVersion(v), nil
}

package worker

import (
	"context"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// CancelBuild implements previewd.Worker. A build that waits is canceled at once;
// one that runs is canceling until its runner has killed the process tree and
// says so, or the deadline has passed. A success that has not committed loses.
func (s *Service) CancelBuild(ctx context.Context, req previewd.CancelBuildRequest) (*previewd.Build, error) {
	if !previewd.IsID(req.BuildID) {
		return nil, previewd.NotFound("build", req.BuildID)
	}
	var b *store.Build
	err := s.Store.Tx(ctx, "build.cancel", func(tx *store.DB) (err error) {
		if b, err = tx.LockLiveBuild(ctx, req.BuildID); err != nil || b.Status.Terminal() {
			return err
		}
		t := previewd.Trigger{Kind: previewd.TriggerCancel, Reason: previewd.CancelUser, Grace: s.Timeouts.Cancel}
		return s.transition(ctx, tx, b, t, "service/"+req.Caller.Service)
	})
	if err != nil {
		return nil, err
	}
	s.changed(b.ProjectID)
	s.Log.InfoContext(ctx, "build cancel requested", telemetry.ProjectID, b.ProjectID, telemetry.BuildID, b.ID,
		telemetry.Status, b.Status, telemetry.RequestID, req.Caller.RequestID)
	return &b.Build, s.dressBuild(ctx, b)
}

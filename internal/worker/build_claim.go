package worker

import (
	"context"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// ClaimBuild implements previewd.Dispatcher.
func (s *Service) ClaimBuild(ctx context.Context, runnerID string, wait time.Duration) (*previewd.Claim, error) {
	var claim *previewd.Claim
	err := s.Changes.Wait(ctx, QueueTopic, wait, func() (bool, error) {
		var err error
		claim, err = s.tryClaim(ctx, runnerID)
		return claim != nil, err
	})
	return claim, err
}

func (s *Service) tryClaim(ctx context.Context, runnerID string) (*previewd.Claim, error) {
	var b *store.Build
	var env []*store.EnvVar
	err := s.Store.Tx(ctx, "claim", func(tx *store.DB) (err error) {
		if b, err = tx.FindRunnableBuild(ctx); err != nil || b == nil {
			return err
		}
		if env, err = tx.ListEnv(ctx, b.ProjectID); err != nil {
			return err
		}
		b.RunnerID = runnerID
		t := previewd.Trigger{Kind: previewd.TriggerClaim, Lease: s.Lease}
		return s.transition(ctx, tx, b, t, "runner/"+runnerID)
	})
	if previewd.ErrorCode(err) == previewd.CodeConflict {
		s.Changes.Notify(QueueTopic) // somebody else was faster: look again
		return nil, nil
	}
	if err != nil || b == nil {
		return nil, err
	}
	s.changed(b.ProjectID)
	meta, err := decodeMetadata(b.Metadata)
	vars, refused := s.claimEnv(b.ProjectID, env)
	return &previewd.Claim{
		Lease:     previewd.Lease{BuildID: b.ID, Epoch: b.Epoch},
		ProjectID: b.ProjectID, Source: b.Source.Digest, Env: meta.env, Overrides: meta.Build, ReferenceID: b.ReferenceID,
		Vars: vars, Refused: refused,
		LogOffset: b.LogBytes, LeaseFor: s.Lease, Timeout: s.Timeouts.Build,
	}, err
}

// HeartbeatBuild implements previewd.Dispatcher.
func (s *Service) HeartbeatBuild(ctx context.Context, lease previewd.Lease) (canceling bool, err error) {
	err = s.Store.Tx(ctx, "heartbeat", func(tx *store.DB) error {
		b, err := tx.LockBuild(ctx, lease.BuildID)
		if err != nil {
			return err
		}
		t := previewd.Trigger{Kind: previewd.TriggerHeartbeat, Epoch: lease.Epoch, Lease: s.Lease}
		canceling = b.Status == previewd.BuildCanceling
		return s.transition(ctx, tx, b, t, "")
	})
	return canceling, err
}

// AwaitCancel implements previewd.Dispatcher.
func (s *Service) AwaitCancel(ctx context.Context, lease previewd.Lease, wait time.Duration) (canceling bool, err error) {
	b, err := s.Store.FindAnyBuild(ctx, lease.BuildID) // a deletion cancels too
	if err != nil {
		return false, err
	}
	err = s.Changes.Wait(ctx, b.ProjectID, wait, func() (bool, error) {
		b, err := s.Store.FindAnyBuild(ctx, lease.BuildID)
		if err != nil {
			return false, err
		}
		if b.Epoch != lease.Epoch {
			return false, &previewd.Error{Code: previewd.CodeLeaseLost, Message: "The build has been claimed again; this runner must drop it."}
		}
		canceling = b.Status == previewd.BuildCanceling
		return b.Status != previewd.BuildBuilding, nil
	})
	return canceling, err
}

// StartStep implements previewd.Dispatcher.
func (s *Service) StartStep(ctx context.Context, lease previewd.Lease, step string) error {
	var projectID string
	err := s.Store.Tx(ctx, "step", func(tx *store.DB) error {
		b, err := s.findLeased(ctx, tx, lease)
		if err != nil || b.Step == step {
			return err
		}
		b.Step, projectID = step, b.ProjectID
		if err := tx.UpdateBuild(ctx, b.State, b); err != nil {
			return err
		}
		return tx.AppendEvents(ctx, b.ProjectID, previewd.Event{
			Type: previewd.EventBuildStep, BuildID: b.ID, Epoch: b.Epoch, RequestID: b.RequestID,
			Data: map[string]any{"step": step},
		})
	})
	if err == nil && projectID != "" {
		s.Changes.Notify(projectID)
		s.Changes.Notify(EventTopic)
	}
	return err
}

// AppendLog implements previewd.Dispatcher.
func (s *Service) AppendLog(ctx context.Context, lease previewd.Lease, offset int64, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	var projectID string
	err := s.Store.Tx(ctx, "log", func(tx *store.DB) error {
		b, err := s.findLeased(ctx, tx, lease)
		if err != nil {
			return err
		}
		projectID = b.ProjectID
		appended, err := tx.AppendLog(ctx, lease, offset, data)
		if err == nil && !appended {
			err = &previewd.Error{Code: previewd.CodeOffsetMismatch, Message: "The log does not end at this offset."}
		}
		return err
	})
	if err == nil {
		s.Changes.Notify(projectID)
	}
	return err
}

// findLeased returns the build if the lease still holds it: the state that a
// heartbeat would accept.
func (s *Service) findLeased(ctx context.Context, tx *store.DB, lease previewd.Lease) (*store.Build, error) {
	b, err := tx.LockBuild(ctx, lease.BuildID)
	if err != nil {
		return nil, err
	}
	_, err = b.State.Apply(previewd.Trigger{Kind: previewd.TriggerHeartbeat, Epoch: lease.Epoch, Now: tx.Now()})
	return b, err
}

package gateway

import (
	"context"
	"encoding/json"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// confirm stores what the worker has made, and everything that follows from it,
// in one transaction: intent, project or build, billing session, audit. Nobody
// is told of the id before. There is no other way into these tables but adopt,
// which ends here too.
func (s *Service) confirm(ctx context.Context, in *store.Intent, m made) (*store.Intent, error) {
	if takenBack(in) {
		return s.cancelMade(ctx, in, m)
	}
	var now *store.Intent
	err := s.Store.Tx(ctx, "intent.confirm", func(tx *store.DB) (err error) {
		if now, err = tx.LockIntent(ctx, in.ID); err != nil || now.State.Final() || takenBack(now) {
			return err
		}
		return s.store(ctx, tx, now, m)
	})
	switch {
	case previewd.ErrorCode(err) == previewd.CodeConflict:
		// The id is another intent's: the worker's answer cannot be right.
		in.DeadlineAt = in.CreatedAt
		return s.postpone(ctx, in, s.badAnswer(in, "another intent has its id"))
	case err != nil:
		return nil, err
	case takenBack(now) && !now.State.Final():
		return s.cancelMade(ctx, now, m)
	}
	s.Changes.Notify(intentTopic(in.ID))
	s.Changes.Notify(followTopic) // its events may wait for it
	s.Log.InfoContext(ctx, "intent confirmed", telemetry.IntentID, in.ID, telemetry.ProjectID, now.ProjectID, telemetry.BuildID, now.BuildID,
		telemetry.UserID, in.UserID, telemetry.IDGenerationSource, previewd.IDSourceServer, telemetry.RequestID, in.RequestID)
	return now, nil
}

func takenBack(in *store.Intent) bool { return in.CancelRequested && !fault.Off(fault.CancelKept) }

// store writes what confirm stores.
func (s *Service) store(ctx context.Context, tx *store.DB, in *store.Intent, m made) error {
	build := newBuild(in, m, tx)
	in.ProjectID, in.BuildID = m.projectID, m.buildID
	in.State, in.LastError, in.UpdatedAt = previewd.IntentConfirmed, "", tx.Now()
	var project *store.AppProject
	var err error
	if in.Operation == previewd.IntentCreateProject {
		project, err = s.storeProject(ctx, tx, in, m, build)
	} else {
		project, err = s.storeBuild(ctx, tx, in, build)
	}
	if err != nil {
		return err
	}
	answer := previewd.AppCreation{Project: &project.AppProject, Build: &build.AppBuild}
	if in.Body, err = json.Marshal(answer); err != nil {
		return err
	}
	if err := tx.EndIntent(ctx, in); err != nil {
		return err
	}
	if err := s.openBilling(ctx, tx, build); err != nil {
		return err
	}
	action := "project.create"
	if in.Operation == previewd.IntentCreateBuild {
		action = "build.create"
	}
	return audit(ctx, tx, userActor(in.UserID), store.AuditEntry{
		Action: action, Subject: "project/" + in.ProjectID,
		Data: map[string]any{"intentId": in.ID, "buildId": in.BuildID, "requestId": in.RequestID, "idGenerationSource": previewd.IDSourceServer},
	})
}

// newBuild is the build as the worker's answer tells of it. Its events tell the
// rest: they may have come before.
func newBuild(in *store.Intent, m made, tx *store.DB) *store.AppBuild {
	return &store.AppBuild{
		AppBuild: previewd.AppBuild{
			ID: m.buildID, ProjectID: m.projectID, Seq: m.seq, Status: previewd.ProjectQueued, PreviewURL: m.buildURL,
			ReferenceID: m.referenceID, QueuePosition: m.position, EstimatedCompletionTime: m.eta, QueuedAt: tx.Now(),
		},
		OwnerID: in.UserID, WorkerStatus: previewd.BuildQueued,
	}
}

func (s *Service) storeProject(ctx context.Context, tx *store.DB, in *store.Intent, m made, build *store.AppBuild) (*store.AppProject, error) {
	a := m.ask
	if a == nil { // the worker was not asked, but looked at
		body, err := tx.FindIntentRequest(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		a = &ask{}
		if body != nil {
			err = json.Unmarshal(body, a)
		}
		if err != nil {
			return nil, err
		}
	}
	p := &store.AppProject{
		AppProject: previewd.AppProject{
			ID: m.projectID, Name: in.Name, Status: build.Status, Prompt: a.Prompt, Template: a.Template, PreviewURL: m.previewURL,
			Build: build.AppBuild, CreatedAt: tx.Now(), UpdatedAt: tx.Now(),
		},
		IntentID: in.ID, OwnerID: in.UserID, Newest: build,
	}
	return p, tx.InsertAppProject(ctx, p)
}

func (s *Service) storeBuild(ctx context.Context, tx *store.DB, in *store.Intent, build *store.AppBuild) (*store.AppProject, error) {
	if err := tx.InsertAppBuild(ctx, build); err != nil {
		return nil, err
	}
	// Its events may have stored it before, and told more.
	stored, err := tx.FindAnyAppBuild(ctx, build.ID)
	if err != nil {
		return nil, err
	}
	if stored != nil && stored.EventSeq > 0 {
		*build = *stored
	}
	p, err := tx.FindAnyAppProject(ctx, in.ProjectID)
	if err != nil {
		return nil, err
	}
	p.Build = build.AppBuild
	return p, nil
}

// openBilling opens the session of a build, which is paid for or not by how it ends.
func (s *Service) openBilling(ctx context.Context, tx *store.DB, b *store.AppBuild) error {
	if fault.Off(fault.BillingInTx) {
		return nil
	}
	if b.FinishedAt != nil {
		return nil // its events have opened and closed it
	}
	return tx.OpenBilling(ctx, previewd.BillingSession{
		ID: previewd.NewRowID(), ProjectID: b.ProjectID, BuildID: b.ID, UserID: b.OwnerID, ReservedMicros: s.reserved(),
	})
}

// cancelMade deletes what the worker has made for an intent that its user has
// taken back. Done again it does the same.
func (s *Service) cancelMade(ctx context.Context, in *store.Intent, m made) (*store.Intent, error) {
	if _, err := s.deleteTheirs(ctx, m.projectID, in.RequestID); err != nil {
		return s.postpone(ctx, in, err)
	}
	var now *store.Intent
	err := s.Store.Tx(ctx, "intent.cancel", func(tx *store.DB) (err error) {
		if now, err = tx.LockIntent(ctx, in.ID); err != nil || now.State.Final() {
			return err
		}
		now.State, now.ProjectID, now.BuildID, now.UpdatedAt = previewd.IntentCanceled, m.projectID, m.buildID, tx.Now()
		if err := tx.EndIntent(ctx, now); err != nil {
			return err
		}
		if err := tx.ReleaseName(ctx, in.ID); err != nil {
			return err
		}
		if err := tx.ForgetParked(ctx, m.projectID); err != nil {
			return err
		}
		return audit(ctx, tx, userActor(in.UserID), store.AuditEntry{
			Action: "intent.cancel", Subject: "intent/" + in.ID, Data: map[string]any{"projectId": m.projectID, "requestId": in.RequestID},
		})
	})
	if err != nil {
		return nil, err
	}
	s.Changes.Notify(intentTopic(in.ID))
	return now, nil
}

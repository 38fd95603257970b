package worker

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// maxAttempts is how often a build is tried when the infrastructure fails it.
const maxAttempts = 3

func (s *Service) newBuild(projectID string, in input, caller previewd.Caller) *store.Build {
	return &store.Build{
		Build: previewd.Build{
			ID: s.NewID(), ProjectID: projectID, Status: previewd.BuildQueued,
			Prompt: in.prompt, Template: in.template, Source: in.source, ReferenceID: previewd.NewReferenceID(),
		},
		State:    previewd.BuildState{Status: previewd.BuildQueued, MaxAttempts: maxAttempts},
		Metadata: in.metadata, CreatedBy: caller.Service, RequestID: caller.RequestID,
	}
}

// CreateBuild implements previewd.Worker. What waits or runs of the project is
// superseded in the same transaction, and names this build as its successor.
func (s *Service) CreateBuild(ctx context.Context, req previewd.CreateBuildRequest) (*previewd.Build, error) {
	if !previewd.IsID(req.ProjectID) {
		return nil, previewd.NotFound("project", req.ProjectID)
	}
	in, err := s.prepareInput(ctx, req.Prompt, req.TemplateFiles, req.Metadata)
	if err != nil {
		return nil, err
	}
	build := s.newBuild(req.ProjectID, in, req.Caller)
	key := store.Key{
		Principal: req.Caller.Principal, Key: req.IdempotencyKey, Operation: operationCreateBuild,
		Fingerprint: fingerprint(operationCreateBuild, req.ProjectID, in),
		Status:      http.StatusCreated, ResourceID: build.ID, RequestID: req.Caller.RequestID,
	}
	id := build.ID
	if key.Body, err = json.Marshal(id); err != nil {
		return nil, err
	}
	err = s.Store.Tx(ctx, func(tx *store.DB) error {
		stored, err := claimKey(ctx, tx, key)
		if err != nil {
			return err
		}
		if stored != nil {
			return json.Unmarshal(stored.Body, &id)
		}
		return s.insertBuild(ctx, tx, build)
	})
	if err != nil {
		return nil, err
	}
	s.changed(req.ProjectID)
	s.Log.InfoContext(ctx, "build created", telemetry.ProjectID, req.ProjectID, telemetry.BuildID, id,
		telemetry.RequestID, req.Caller.RequestID)
	return s.FindBuild(ctx, id, 0)
}

func (s *Service) insertBuild(ctx context.Context, tx *store.DB, build *store.Build) (err error) {
	if build.Seq, err = tx.AllocateBuildSeq(ctx, build.ProjectID); err != nil {
		return err
	}
	if err := s.supersede(ctx, tx, build); err != nil {
		return err
	}
	build.QueuedAt, build.State.RunnableAt = tx.Now(), tx.Now()
	if err := tx.InsertBuild(ctx, build); err != nil {
		return err
	}
	if err := tx.AppendEvents(ctx, build.ProjectID, queuedEvent(build)); err != nil {
		return err
	}
	return tx.AppendAudit(ctx, store.AuditEntry{
		Actor: "service/" + build.CreatedBy, Action: "build.create", Subject: "build/" + build.ID,
		Data: map[string]any{"projectId": build.ProjectID, "seq": build.Seq, "requestId": build.RequestID},
	})
}

// supersede ends what waits or runs of the project in favour of the build.
func (s *Service) supersede(ctx context.Context, tx *store.DB, build *store.Build) error {
	older, err := tx.ListActiveBuilds(ctx, build.ProjectID)
	if err != nil {
		return err
	}
	for _, b := range older {
		if b.Status == previewd.BuildCanceling {
			continue // its end is decided; only its runner is still to stop
		}
		b.SupersededBy = build.ID
		t := previewd.Trigger{Kind: previewd.TriggerCancel, Reason: previewd.CancelSuperseded, Grace: s.Timeouts.Cancel}
		if err := s.transition(ctx, tx, b, t, "service/"+build.CreatedBy); err != nil {
			return err
		}
	}
	return nil
}

func queuedEvent(b *store.Build) previewd.Event {
	return previewd.Event{
		Type: previewd.EventBuildQueued, BuildID: b.ID, RequestID: b.RequestID,
		Data: map[string]any{"seq": b.Seq, "template": b.Template, "files": b.Source.Files, "bytes": b.Source.Bytes},
	}
}

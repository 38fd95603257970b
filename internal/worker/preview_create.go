package worker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/http"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// Operations that idempotency keys are good for.
const (
	operationCreatePreview = "POST /v1/create-preview-for-new-project"
	operationCreateBuild   = "POST /v1/projects/{projectId}/builds"
)

// CreatePreview implements previewd.Worker: key, project, build, events, audit
// and stored answer in one transaction, the key first.
func (s *Service) CreatePreview(ctx context.Context, req previewd.CreatePreviewRequest) (*previewd.Preview, error) {
	if req.ProjectID != "" {
		return nil, &previewd.Error{
			Code:    previewd.CodeClientIDNotAllowed,
			Message: "Project ids are made by the server: leave projectId out and read it from the answer.",
			Details: "projectId",
		}
	}
	if err := checkUserID(req.UserID); err != nil {
		return nil, err
	}
	in, err := s.prepareInput(ctx, req.Prompt, req.TemplateFiles, req.Metadata)
	if err != nil {
		return nil, err
	}
	c, err := s.newCreation(req, in)
	if err != nil {
		return nil, err
	}
	preview := &c.preview
	err = s.Store.Tx(ctx, func(tx *store.DB) error {
		preview = &c.preview
		stored, err := claimKey(ctx, tx, c.key)
		if err != nil {
			return err
		}
		if stored != nil {
			preview = &previewd.Preview{Replayed: true}
			return json.Unmarshal(stored.Body, preview)
		}
		return c.insert(ctx, tx)
	})
	if err != nil {
		return nil, err
	}
	if preview.Replayed {
		return preview, s.refreshPreview(ctx, preview)
	}
	s.changed(preview.ProjectID)
	s.Log.InfoContext(ctx, "project created",
		telemetry.ProjectID, preview.ProjectID, telemetry.BuildID, preview.BuildID,
		telemetry.IDGenerationSource, preview.IDGenerationSource,
		telemetry.CreatedByService, preview.CreatedByService, telemetry.RequestID, req.Caller.RequestID)
	// What is created stays created: a position that cannot be told is left out.
	if before, err := s.Store.CountQueuedBefore(ctx, c.build); err == nil {
		preview.QueuePosition = before + 1
	}
	return preview, nil
}

// creation is everything that one create transaction stores.
type creation struct {
	preview previewd.Preview
	key     store.Key
	project store.NewProject
	build   *store.Build
}

func (s *Service) newCreation(req previewd.CreatePreviewRequest, in input) (*creation, error) {
	projectID, key := s.NewID(), req.IdempotencyKey
	build := s.newBuild(projectID, in, req.Caller)
	if key == "" {
		key = "none:" + projectID
	}
	c := &creation{
		preview: previewd.Preview{
			BuildID: build.ID, ProjectID: projectID, Status: previewd.BuildQueued,
			PreviewURL:         s.PreviewURL(projectID),
			IDGenerationSource: previewd.IDSourceServer, CreatedByService: req.Caller.Service,
			ReferenceID: build.ReferenceID,
		},
		key: store.Key{
			Principal: req.Caller.Principal, Key: req.IdempotencyKey, Operation: operationCreatePreview,
			Fingerprint: fingerprint(operationCreatePreview, req.UserID, in),
			Status:      http.StatusCreated, ResourceID: projectID, RequestID: req.Caller.RequestID,
		},
		project: store.NewProject{
			ID: projectID, OwnerID: req.UserID,
			CreatePrincipal: req.Caller.Principal, CreateKey: key,
			CreatedByService: req.Caller.Service, IDSource: previewd.IDSourceServer, Events: 2,
		},
		build: build,
	}
	var err error
	c.key.Body, err = json.Marshal(c.preview)
	return c, err
}

func (c *creation) insert(ctx context.Context, tx *store.DB) error {
	c.build.Seq = 1
	c.build.QueuedAt, c.build.State.RunnableAt = tx.Now(), tx.Now()
	if err := tx.InsertProject(ctx, c.project); err != nil {
		return err
	}
	if err := tx.InsertBuild(ctx, c.build); err != nil {
		return err
	}
	created := previewd.Event{
		Type: previewd.EventProjectCreated, BuildID: c.build.ID, RequestID: c.build.RequestID,
		Data: map[string]any{
			"serverGenerated":    c.project.IDSource == previewd.IDSourceServer,
			"idGenerationSource": c.project.IDSource, "createdByService": c.project.CreatedByService,
		},
	}
	if err := tx.InsertFirstEvents(ctx, c.project.ID, created, queuedEvent(c.build)); err != nil {
		return err
	}
	return tx.AppendAudit(ctx, store.AuditEntry{
		Actor: "service/" + c.project.CreatedByService, Action: "project.create", Subject: "project/" + c.project.ID,
		Data: map[string]any{
			"buildId": c.build.ID, "ownerId": c.project.OwnerID,
			"idGenerationSource": c.project.IDSource, "requestId": c.build.RequestID,
		},
	})
}

// claimKey returns the answer stored under the key, nil when the key is free,
// and CodeKeyReused when it answered another request. Without a key it does nothing.
func claimKey(ctx context.Context, tx *store.DB, key store.Key) (*store.Key, error) {
	if key.Key == "" {
		return nil, nil
	}
	stored, err := tx.InsertKey(ctx, key)
	if err != nil || stored == nil {
		return nil, err
	}
	if stored.Operation != key.Operation || stored.Fingerprint != key.Fingerprint {
		return nil, &previewd.Error{
			Code:    previewd.CodeKeyReused,
			Message: "This Idempotency-Key has answered another request: use a new key for a new request.",
		}
	}
	return stored, nil
}

// fingerprint covers everything that makes a request what it is, each part
// with its length before it.
func fingerprint(operation, subject string, in input) string {
	h := sha256.New()
	for _, part := range []string{"v1", operation, subject, in.prompt, string(in.source.Digest), in.metadata} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil))
}

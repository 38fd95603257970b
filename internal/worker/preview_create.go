package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// Operations that idempotency keys are good for.
const (
	operationCreatePreview = "POST /v1/create-preview-for-new-project"
	operationCreateBuild   = "POST /v1/projects/{projectId}/builds"
	operationRepairBuild   = "POST /v1/builds/{buildId}/repair"
)

// CreatePreview implements previewd.Worker: key, project, build, events, audit
// and stored answer in one transaction, the key first.
func (s *Service) CreatePreview(ctx context.Context, req previewd.CreatePreviewRequest) (*previewd.Preview, error) {
	if err := checkProjectID(req); err != nil {
		return nil, err
	}
	if err := checkUserID(req.UserID); err != nil {
		return nil, err
	}
	in, err := s.prepareInput(ctx, req.Prompt, req.TemplateFiles, req.Metadata)
	if err != nil {
		return nil, err
	}
	c, preview, err := s.newCreation(ctx, req, in)
	if err != nil {
		return nil, err
	}
	left, done, err := s.flights.take(ctx, c.Key.Principal+" "+c.Key.Key+" "+c.Key.Fingerprint)
	if err != nil {
		return nil, err
	}
	c.Wait = left
	created, err := s.create(ctx, c)
	done()
	if err != nil {
		return nil, err
	}
	if created.Outcome != store.OutcomeCreated {
		return s.previewOf(ctx, c, created)
	}
	placePreview(preview, created.Place.Ahead, created.Place.ETA)
	s.changed(preview.ProjectID)
	if preview.IDGenerationSource == previewd.IDSourceClient {
		s.counts.LegacyIDs.Add(1)
	}
	s.Log.InfoContext(ctx, "project created",
		telemetry.ProjectID, preview.ProjectID, telemetry.BuildID, preview.BuildID,
		telemetry.IDGenerationSource, preview.IDGenerationSource,
		telemetry.CreatedByService, preview.CreatedByService, telemetry.RequestID, req.Caller.RequestID)
	return preview, nil
}

func (s *Service) create(ctx context.Context, c *store.Creation) (*store.Created, error) {
	if !fault.Off(fault.KeyFirst) {
		return s.Store.CreatePreview(ctx, c)
	}
	key := c.Key
	stored, err := s.Store.FindKey(ctx, key.Principal, key.Key)
	if err != nil {
		return nil, err
	}
	if stored != nil {
		return &store.Created{Outcome: store.OutcomeKnown, Stored: *stored}, nil
	}
	c.Key.Key, c.Window = "", 0
	c.Project.CreateKey = store.NoKey + c.Project.ID
	created, err := s.Store.CreatePreview(ctx, c)
	if err == nil && key.Key != "" {
		err = s.Store.Tx(ctx, "key", func(tx *store.DB) error { _, err := tx.InsertKey(ctx, key); return err })
	}
	return created, err
}

// checkProjectID refuses a client's own id, unless its token allows it.
func checkProjectID(req previewd.CreatePreviewRequest) error {
	switch {
	case req.ProjectID == "":
		return nil
	case !req.Caller.LegacyIDs:
		return &previewd.Error{
			Code:    previewd.CodeClientIDNotAllowed,
			Message: "Project ids are made by the server: leave projectId out and read it from the answer.",
			Details: "projectId",
		}
	case !previewd.IsID(req.ProjectID):
		return invalid("projectId must be a UUID in lower case.", "projectId")
	}
	return nil
}

// previewOf answers a request that made nothing: by what an equal one has got,
// or by why it is refused.
func (s *Service) previewOf(ctx context.Context, c *store.Creation, created *store.Created) (*previewd.Preview, error) {
	stored := created.Stored
	preview := &previewd.Preview{Replay: previewd.Replay{Replayed: previewd.ReplayedKey, OriginalRequestID: stored.RequestID}}
	switch created.Outcome {
	case store.OutcomeKnown:
		switch decision := decide(&stored, c.Key); decision {
		case previewd.KeyReused:
			return nil, previewd.ReusedKey()
		case previewd.KeyReplay:
		default:
			return s.presentPreview(ctx, stored.ResourceID)
		}
	case store.OutcomeWindow:
		preview.Replayed = previewd.ReplayedWindow
	case store.OutcomePruned:
		return s.presentPreview(ctx, stored.ResourceID)
	case store.OutcomeIDTaken:
		return nil, &previewd.Error{
			Code: previewd.CodeIDTaken, Message: "There is a project of this id: leave projectId out.", Details: c.Project.ID,
		}
	default:
		return nil, s.queue(ctx).full(created.Outcome)
	}
	s.counts.Replays.Add(1)
	if err := json.Unmarshal(stored.Body, preview); err != nil {
		return nil, fmt.Errorf("cannot read the stored answer: %w", err)
	}
	placePreview(preview, stored.Ahead, stored.ETA)
	return preview, nil
}

// presentPreview tells of a project whose answer is no longer kept.
func (s *Service) presentPreview(ctx context.Context, projectID string) (*previewd.Preview, error) {
	p, err := s.FindProject(ctx, projectID)
	if err != nil {
		return nil, err
	}
	b := p.LatestBuild
	return &previewd.Preview{
		BuildID: b.ID, ProjectID: p.ID, UserID: p.UserID, Status: b.Status, PreviewURL: p.PreviewURL, BuildURL: b.PreviewURL,
		QueuePosition: b.QueuePosition, EstimatedCompletionTime: b.EstimatedCompletionTime,
		IDGenerationSource: p.IDGenerationSource, CreatedByService: p.CreatedByService, ReferenceID: b.ReferenceID,
		Replay: previewd.Replay{Replayed: previewd.ReplayedResource},
	}, nil
}

func placePreview(p *previewd.Preview, ahead int, eta time.Time) {
	p.QueuePosition = ahead + 1
	if !eta.IsZero() {
		p.EstimatedCompletionTime = &eta
	}
}

// newCreation is everything that one create stores, and its answer.
func (s *Service) newCreation(ctx context.Context, req previewd.CreatePreviewRequest, in input) (*store.Creation, *previewd.Preview, error) {
	projectID, source := req.ProjectID, previewd.IDSourceClient
	if projectID == "" {
		projectID, source = s.NewID(), previewd.IDSourceServer
	}
	caller := req.Caller
	build := s.newBuild(projectID, in, caller)
	build.OwnerID = req.UserID
	createKey := req.IdempotencyKey
	if createKey == "" {
		createKey = store.NoKey + projectID
	}
	preview := &previewd.Preview{
		BuildID: build.ID, ProjectID: projectID, UserID: req.UserID, Status: previewd.BuildQueued,
		PreviewURL: s.PreviewURL(projectID), BuildURL: s.PreviewURL(build.ID + ".b"),
		IDGenerationSource: source, CreatedByService: caller.Service, ReferenceID: build.ReferenceID,
	}
	body, err := json.Marshal(preview)
	if err != nil {
		return nil, nil, err
	}
	view := s.queue(ctx)
	c := &store.Creation{
		Key: store.Key{
			Principal: caller.Principal, Key: req.IdempotencyKey, Operation: operationCreatePreview,
			Fingerprint: fingerprint(operationCreatePreview, []string{caller.Principal, req.UserID, req.ProjectID}, in),
			Status:      http.StatusCreated, Body: body, ResourceID: projectID, RequestID: caller.RequestID,
		},
		Window: s.Window,
		Project: store.NewProject{
			ID: projectID, OwnerID: req.UserID, CreatePrincipal: caller.Principal, CreateKey: createKey,
			CreatedByService: caller.Service, IDSource: source, Events: 2,
		},
		Build: build,
		Created: previewd.Event{
			Type: previewd.EventProjectCreated, BuildID: build.ID, RequestID: caller.RequestID,
			Data: map[string]any{
				"serverGenerated":    source == previewd.IDSourceServer,
				"idGenerationSource": source, "createdByService": caller.Service,
			},
		},
		Queued: queuedEvent(build, 1),
		Audit: store.AuditEntry{
			Actor: "service/" + caller.Service, Action: "project.create", Subject: "project/" + projectID,
			Data: map[string]any{
				"buildId": build.ID, "ownerId": req.UserID, "idGenerationSource": source, "requestId": caller.RequestID,
			},
		},
		Limits: view.limits(*s.Queue), Fair: !fault.Off(fault.Fairness),
		Far: view.ahead(req.UserID), Pace: view.pace(build),
	}
	if req.IdempotencyKey != "" {
		c.Created.Data["idempotencyKey"] = req.IdempotencyKey // says to who asked which request it was
	}
	if fault.Off(fault.Window) {
		c.Window = 0
	}
	return c, preview, nil
}

// decide decides on a request by what is stored under its key.
func decide(stored *store.Key, key store.Key) previewd.KeyDecision {
	if stored == nil {
		return previewd.DecideKey(nil, key.Operation, key.Fingerprint)
	}
	known := &previewd.StoredKey{Operation: stored.Operation, Fingerprint: stored.Fingerprint, Answered: stored.Body != nil}
	return previewd.DecideKey(known, key.Operation, key.Fingerprint)
}

// fingerprint covers everything that makes a request what it is: operation, whom
// and what it is about, and the content.
func fingerprint(operation string, subjects []string, in input) string {
	return previewd.Fingerprint(append([]string{operation, in.prompt, in.files, in.metadata}, subjects...)...)
}

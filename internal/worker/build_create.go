package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
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

// buildCreation is one call of CreateBuild.
type buildCreation struct {
	*Service
	policy  previewd.BuildPolicy
	build   *store.Build
	key     store.Key
	repairs *store.Build // that this one repairs, as it was found; nil for none
	view    *queueState  // taken before the transaction, which must not wait for another connection
}

// CreateBuild implements previewd.Worker. Key, build, what it does to older
// ones, and the stored answer are one transaction. A refusal that depends on
// what is stored is an answer too, so that a late copy of the request gets it.
func (s *Service) CreateBuild(ctx context.Context, req previewd.CreateBuildRequest) (*previewd.Build, error) {
	switch req.Policy {
	case "":
		req.Policy = previewd.PolicySupersede
	case previewd.PolicySupersede, previewd.PolicyQueue, previewd.PolicyReject:
	default:
		return nil, invalid("policy must be supersede, queue or reject.", string(req.Policy))
	}
	if !previewd.IsID(req.ProjectID) {
		return nil, previewd.NotFound("project", req.ProjectID)
	}
	in, err := s.prepareInput(ctx, req.Prompt, req.TemplateFiles, req.Metadata)
	if err != nil {
		return nil, err
	}
	c := &buildCreation{Service: s, policy: req.Policy, build: s.newBuild(req.ProjectID, in, req.Caller), view: s.queue(ctx)}
	c.key = store.Key{
		Principal: req.Caller.Principal, Key: req.IdempotencyKey, Operation: operationCreateBuild,
		Fingerprint: fingerprint(operationCreateBuild, []string{req.ProjectID, string(req.Policy)}, in),
		Status:      http.StatusCreated, ResourceID: c.build.ID, RequestID: req.Caller.RequestID,
	}
	return c.create(ctx)
}

// create makes the build, or repeats what an equal request got.
func (c *buildCreation) create(ctx context.Context) (*previewd.Build, error) {
	if c.key.Key != "" {
		_, done, err := c.flights.take(ctx, c.key.Principal+" "+c.key.Key)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	build, err := c.run(ctx)
	if err != nil || build.Replayed != "" {
		return build, err
	}
	c.changed(build.ProjectID)
	c.Log.InfoContext(ctx, "build created", telemetry.ProjectID, build.ProjectID, telemetry.BuildID, build.ID,
		telemetry.RequestID, c.build.RequestID)
	return build, nil
}

// run does the transaction.
func (c *buildCreation) run(ctx context.Context) (*previewd.Build, error) {
	var stored *store.Key
	var refused *previewd.Error
	err := c.Store.Tx(ctx, "build.create", func(tx *store.DB) (err error) {
		stored, refused = nil, nil
		if c.key.Key != "" {
			if stored, err = tx.InsertKey(ctx, c.key); err != nil || stored != nil {
				return err
			}
		}
		err = c.insert(ctx, tx)
		if errors.As(err, &refused) && isDefinitive(refused.Code) {
			// Nothing was written but the key.
			refused.ReferenceID, refused.At = previewd.NewReferenceID(), tx.Now()
			return c.answer(ctx, tx, statusOfRefusal[refused.Code], refused)
		}
		refused = nil
		if err != nil {
			return err
		}
		return c.answer(ctx, tx, http.StatusCreated, &c.build.Build)
	})
	switch {
	case err != nil:
		return nil, err
	case refused != nil:
		return nil, refused
	case stored != nil:
		return c.replay(ctx, stored)
	}
	return &c.build.Build, nil
}

// statusOfRefusal is what a stored refusal is answered with.
var statusOfRefusal = map[previewd.Code]int{
	previewd.CodeNotFound:      http.StatusNotFound,
	previewd.CodeBuildActive:   http.StatusConflict,
	previewd.CodeBuildOutdated: http.StatusConflict,
	previewd.CodeNotFailed:     http.StatusConflict,
}

func isDefinitive(code previewd.Code) bool { return statusOfRefusal[code] != 0 }

// answer stores the answer with its key.
func (c *buildCreation) answer(ctx context.Context, tx *store.DB, status int, body any) (err error) {
	if c.key.Key == "" {
		return nil
	}
	k := c.key
	k.Status = status
	if status != http.StatusCreated {
		k.ResourceID = ""
	}
	if k.Body, err = json.Marshal(body); err != nil {
		return err
	}
	return tx.AnswerKey(ctx, k)
}

// replay gives the stored answer again.
func (c *buildCreation) replay(ctx context.Context, stored *store.Key) (*previewd.Build, error) {
	replay := previewd.Replay{Replayed: previewd.ReplayedKey, OriginalRequestID: stored.RequestID}
	decision := decide(stored, c.key)
	switch {
	case decision == previewd.KeyReused:
		return nil, previewd.ReusedKey()
	case decision == previewd.KeyResource && stored.ResourceID == "":
		return nil, prunedRefusal(stored)
	case decision == previewd.KeyResource:
		b, err := c.FindBuild(ctx, stored.ResourceID, 0)
		if err == nil {
			b.Replayed = previewd.ReplayedResource
		}
		return b, err
	case stored.Status != http.StatusCreated:
		refused := new(previewd.Error)
		if err := json.Unmarshal(stored.Body, refused); err != nil {
			return nil, fmt.Errorf("cannot read the stored refusal: %w", err)
		}
		refused.Replay = replay
		return nil, refused
	}
	c.counts.Replays.Add(1)
	b := new(previewd.Build)
	if err := json.Unmarshal(stored.Body, b); err != nil {
		return nil, fmt.Errorf("cannot read the stored answer: %w", err)
	}
	b.Replay = replay
	return b, nil
}

// prunedRefusal repeats a refusal of which only the status is kept.
func prunedRefusal(stored *store.Key) error {
	code := previewd.CodeConflict
	switch {
	case stored.Status == http.StatusNotFound:
		code = previewd.CodeNotFound
	case stored.Status != http.StatusConflict:
		return fmt.Errorf("cannot repeat a refusal with status %d", stored.Status)
	case stored.Operation == operationCreateBuild:
		code = previewd.CodeBuildActive // a repair has two that look alike
	}
	return &previewd.Error{
		Code: code, Message: "The request was refused, and the words are no longer kept: use a new key to try again.",
		Replay: previewd.Replay{Replayed: previewd.ReplayedResource, OriginalRequestID: stored.RequestID},
	}
}

// insert makes the build and does to older ones what the policy says. It fails
// with what refuses the build before it has written anything.
func (c *buildCreation) insert(ctx context.Context, tx *store.DB) (err error) {
	b := c.build
	if b.OwnerID, err = tx.LockProject(ctx, b.ProjectID); err != nil {
		return err
	}
	older, err := tx.ListActiveBuilds(ctx, b.ProjectID)
	if err != nil {
		return err
	}
	if err := c.checkRepairs(ctx, tx); err != nil {
		return err
	}
	if len(older) > 0 && c.policy == previewd.PolicyReject {
		return &previewd.Error{
			Code: previewd.CodeBuildActive, Message: "A build of this project is not over yet, and the policy is reject.",
			Details: "build " + older[0].ID,
		}
	}
	if !slices.ContainsFunc(older, func(b *store.Build) bool { return b.Status == previewd.BuildQueued }) { // else it takes that one's place
		full, err := tx.QueueFull(ctx, b.OwnerID, c.view.limits(*c.Queue))
		if err != nil {
			return err
		}
		if full != "" {
			return c.view.full(full)
		}
	}
	if b.Seq, err = tx.AllocateBuildSeq(ctx, b.ProjectID); err != nil {
		return err
	}
	ended, err := c.supersede(ctx, tx, older)
	if err != nil {
		return err
	}
	if err := c.enqueue(ctx, tx); err != nil {
		return err
	}
	queued := queuedEvent(b, b.Seq)
	if queued.Data["policy"] = c.policy; len(ended) > 0 {
		queued.Data["supersedes"] = ended
	}
	if b.Repairs != "" {
		queued.Data["repairs"] = b.Repairs
	}
	if err := tx.AppendEvents(ctx, b.ProjectID, queued); err != nil {
		return err
	}
	return tx.AppendAudit(ctx, store.AuditEntry{
		Actor: "service/" + b.CreatedBy, Action: "build.create", Subject: "build/" + b.ID,
		Data: map[string]any{"projectId": b.ProjectID, "seq": b.Seq, "policy": c.policy, "requestId": b.RequestID},
	})
}

// supersede ends what waits of the project, and what runs unless the policy lets
// it go on, in favour of the new build. It returns the ids of those.
func (c *buildCreation) supersede(ctx context.Context, tx *store.DB, older []*store.Build) (ended []string, err error) {
	for _, b := range older {
		if b.Status == previewd.BuildCanceling || b.Status == previewd.BuildBuilding && c.policy == previewd.PolicyQueue {
			continue // its end is decided, or it goes on
		}
		b.SupersededBy = c.build.ID
		t := previewd.Trigger{Kind: previewd.TriggerCancel, Reason: previewd.CancelSuperseded, Grace: c.Timeouts.Cancel}
		if err := c.transition(ctx, tx, b, t, "service/"+c.build.CreatedBy); err != nil {
			return nil, err
		}
		ended = append(ended, b.ID)
	}
	return ended, nil
}

// enqueue stores the build at its place and foretells its end.
func (c *buildCreation) enqueue(ctx context.Context, tx *store.DB) (err error) {
	b := c.build
	if b.FairRank, err = tx.NextRank(ctx, b.OwnerID, !fault.Off(fault.Fairness)); err != nil {
		return err
	}
	b.QueuedAt, b.State.RunnableAt = tx.Now(), tx.Now()
	if err := tx.InsertBuild(ctx, b); err != nil {
		return err
	}
	ahead, err := tx.CountAhead(ctx, b.FairRank, b.ID, store.MaxAhead)
	if ahead == store.MaxAhead {
		ahead = max(ahead, c.view.before(b.FairRank, b.ID))
	}
	b.QueuePosition, b.PreviewURL = ahead+1, c.PreviewURL(b.ID+".b")
	b.EstimatedCompletionTime, b.EstimatedCompletionTimeP90 = c.view.estimate(b)
	return err
}

func queuedEvent(b *store.Build, seq int64) previewd.Event {
	return previewd.Event{
		Type: previewd.EventBuildQueued, BuildID: b.ID, RequestID: b.RequestID,
		Data: map[string]any{
			"seq": seq, "template": b.Template, "files": b.Source.Files, "bytes": b.Source.Bytes, "referenceId": b.ReferenceID,
		},
	}
}

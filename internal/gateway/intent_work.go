package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// attentionEvery is how often the worker is asked what became of an intent that
// is too old to be asked for again.
const attentionEvery = 5 * time.Minute

// made is what the worker made of an intent, checked.
type made struct {
	projectID, buildID, referenceID string
	previewURL, buildURL            string
	seq                             int64
	position                        int
	ask                             *ask // what was asked for, without its files; nil when it is not known
	eta                             *time.Time
}

// work asks the worker for a claimed intent, for as long as patience and ctx,
// and returns the intent as it stands then: at its end, or postponed. A patience
// of 0 says that nobody waits. It returns what refuses the request when that is
// no answer to keep.
func (s *Service) work(ctx context.Context, in *store.Intent, patience time.Duration) (*store.Intent, error) {
	done := s.keepClaim(ctx, in)
	defer done()
	m, err := s.askWorker(ctx, in, patience)
	ctx = context.WithoutCancel(ctx) // what has been learned is stored
	var refused *previewd.Error
	switch {
	case err == nil:
		return s.confirm(ctx, in, m)
	case errors.As(err, &refused) && isStateless(refused.Code) && in.Attempts == 1,
		isDefinitive(previewd.ErrorCode(err)) && fault.Off(fault.RefusalKept):
		// Nobody has been told of the intent.
		if failed := s.discard(ctx, in, refused); failed != nil {
			return nil, failed
		}
		return nil, refused
	case errors.As(err, &refused) && (isDefinitive(refused.Code) && aboutParent(in, refused) || isStateless(refused.Code)):
		return s.reject(ctx, in, refused)
	}
	return s.postpone(ctx, in, err)
}

// aboutParent reports whether a 404 says that the project is gone, and not that
// whoever answered is no worker, as behind a load balancer that is set up wrong.
func aboutParent(in *store.Intent, refused *previewd.Error) bool {
	return refused.Code != previewd.CodeNotFound ||
		in.Operation == previewd.IntentCreateBuild && refused.Details == previewd.NotFound("project", in.ProjectID).Details
}

// keepClaim renews the claim until done is called: others take over what is not
// renewed. A claim that is lost harms nothing, for the worker has the same key.
func (s *Service) keepClaim(ctx context.Context, in *store.Intent) (done func()) {
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(s.Claim/3, func() { s.renew(ctx, in.ID) })
	return func() {
		timer.Stop()
		cancel()
	}
}

func (s *Service) renew(ctx context.Context, id string) {
	for {
		err := s.Store.Tx(ctx, "intent.renew", func(tx *store.DB) error { return tx.RenewClaim(ctx, s.claim(), id) })
		if err != nil && ctx.Err() == nil {
			s.Log.WarnContext(ctx, "renewing a claim failed", telemetry.IntentID, id, telemetry.Error, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.Claim / 3):
		}
	}
}

// errOver says that an intent has ended while it was to be worked on.
var errOver = errors.New("the intent is over")

// askWorker asks for what the intent is to make. Asked again it gets the same.
func (s *Service) askWorker(ctx context.Context, in *store.Intent, patience time.Duration) (m made, err error) {
	if in.State == previewd.IntentAttention {
		call, cancel := context.WithTimeout(ctx, workerTime)
		defer cancel()
		return s.lookUp(call, in)
	}
	body := in.Request
	if body == nil {
		if body, err = s.Store.FindIntentRequest(ctx, in.ID); err != nil {
			return m, err
		}
	}
	if body == nil {
		return m, errOver
	}
	var a ask
	if err := json.Unmarshal(body, &a); err != nil {
		return m, fmt.Errorf("cannot read what intent %s is to ask for: %w", in.ID, err)
	}
	if err := fault.Point("gateway.before_worker"); err != nil {
		return m, err
	}
	if patience == 0 { // a large tree has the time that a slow line needs
		patience = workerTime + time.Duration(len(body)>>20)*time.Second
	}
	call, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	key := in.WorkerKey
	if fault.Off(fault.StableKey) {
		key = previewd.NewRequestID()
	}
	if in.Operation == previewd.IntentCreateBuild {
		m, err = s.askBuild(call, in, a, key)
	} else {
		m, err = s.askProject(call, in, a, key)
	}
	m.ask = &ask{Prompt: a.Prompt, Template: a.Template}
	if err == nil {
		err = fault.Point("gateway.after_worker")
	}
	return m, err
}

func (s *Service) askProject(ctx context.Context, in *store.Intent, a ask, key string) (m made, err error) {
	p, err := s.Worker.CreatePreview(ctx, previewd.CreatePreviewRequest{
		UserID: in.UserID, Prompt: a.Prompt, TemplateFiles: a.Files, Metadata: a.Metadata, IdempotencyKey: key, Caller: s.caller(in.RequestID),
	})
	if err != nil {
		return m, err
	}
	owner := p.UserID
	if owner == "" { // an answer that an older worker has stored
		project, err := s.Worker.FindProject(ctx, p.ProjectID)
		if err != nil {
			return m, err
		}
		owner = project.UserID
	}
	m = made{
		projectID: p.ProjectID, buildID: p.BuildID, referenceID: p.ReferenceID, previewURL: p.PreviewURL, buildURL: p.BuildURL, seq: 1,
		position: p.QueuePosition, eta: p.EstimatedCompletionTime,
	}
	if owner != in.UserID {
		return m, s.badAnswer(in, "it names another owner")
	}
	return m, s.checkMade(in, m)
}

func (s *Service) askBuild(ctx context.Context, in *store.Intent, a ask, key string) (m made, err error) {
	var b *previewd.Build
	if a.Repairs != "" {
		b, err = s.askRepair(ctx, in, a, key)
	} else {
		b, err = s.Worker.CreateBuild(ctx, previewd.CreateBuildRequest{
			ProjectID: in.ProjectID, Prompt: a.Prompt, TemplateFiles: a.Files, Metadata: a.Metadata, Policy: a.Policy,
			IdempotencyKey: key, Caller: s.caller(in.RequestID),
		})
	}
	if err != nil {
		return m, err
	}
	m = madeOf(b)
	if m.projectID != in.ProjectID {
		return m, s.badAnswer(in, "it names another project")
	}
	return m, s.checkMade(in, m)
}

func (s *Service) askRepair(ctx context.Context, in *store.Intent, a ask, key string) (*previewd.Build, error) {
	b, err := s.Worker.RepairBuild(ctx, previewd.RepairBuildRequest{
		BuildID: a.Repairs, Prompt: a.Prompt, TemplateFiles: a.Files, Remove: a.Remove, IdempotencyKey: key, Caller: s.caller(in.RequestID),
	})
	var refused *previewd.Error
	if errors.As(err, &refused) && refused.Code == previewd.CodeNotFound && refused.Details == previewd.NotFound("build", a.Repairs).Details {
		return nil, previewd.NotFound("project", in.ProjectID) // builds go with their project
	}
	return b, err
}

func madeOf(b *previewd.Build) made {
	return made{
		projectID: b.ProjectID, buildID: b.ID, referenceID: b.ReferenceID, buildURL: b.PreviewURL, seq: b.Seq,
		position: b.QueuePosition, eta: b.EstimatedCompletionTime,
	}
}

func madeOfProject(p *previewd.Project) made {
	m := madeOf(&p.LatestBuild)
	m.previewURL = p.PreviewURL
	return m
}

// lookUp asks what became of an intent, and makes nothing.
func (s *Service) lookUp(ctx context.Context, in *store.Intent) (m made, err error) {
	op, err := s.Worker.FindOperation(ctx, s.caller(in.RequestID), in.WorkerKey)
	if err == nil && op.Status >= 400 && op.Status < 500 && in.Operation == previewd.IntentCreateBuild {
		return m, refusedBefore(in, op)
	}
	if previewd.ErrorCode(err) == previewd.CodeNotFound || err == nil && op.BuildID == "" && op.ProjectID == "" {
		return m, &previewd.Error{Code: previewd.CodeUnavailable, Message: "The worker knows nothing of this intent.", RetryAfter: attentionEvery}
	}
	if err != nil {
		return m, err
	}
	if in.Operation == previewd.IntentCreateBuild {
		b, err := s.Worker.FindBuild(ctx, op.BuildID, 0)
		if previewd.ErrorCode(err) == previewd.CodeNotFound {
			err = previewd.NotFound("project", in.ProjectID) // builds go with their project
		}
		if err != nil {
			return m, err
		}
		return madeOf(b), s.checkMade(in, madeOf(b))
	}
	p, err := s.Worker.FindProject(ctx, op.ProjectID)
	if err != nil {
		return m, err
	}
	m = madeOfProject(p)
	if p.UserID != in.UserID {
		return m, s.badAnswer(in, "it names another owner")
	}
	return m, s.checkMade(in, m)
}

// refusedBefore is what an intent ends with whose build the worker has refused in an
// answer that was lost: of that only the status is told.
func refusedBefore(in *store.Intent, op *previewd.Operation) error {
	if op.Status == http.StatusNotFound {
		return previewd.NotFound("project", in.ProjectID)
	}
	return &previewd.Error{Code: previewd.CodeBuildActive, Message: "The worker has refused this build: send a new request."}
}

// checkMade refuses to believe an answer that cannot be right.
func (s *Service) checkMade(in *store.Intent, m made) error {
	switch {
	case !previewd.IsID(m.projectID), !previewd.IsID(m.buildID), m.seq < 1:
		return s.badAnswer(in, "it has no ids")
	case m.referenceID == "":
		return s.badAnswer(in, "it has no reference")
	}
	return nil
}

func (s *Service) badAnswer(in *store.Intent, why string) error {
	s.counts.BadAnswers.Add(1)
	return fmt.Errorf("cannot believe the worker's answer to intent %s: %s", in.ID, why)
}

// postpone gives the claim back, and says when the worker is asked again. What
// became of the request is unknown, so nothing has failed.
func (s *Service) postpone(ctx context.Context, in *store.Intent, why error) (*store.Intent, error) {
	if errors.Is(why, errOver) {
		return s.Store.FindIntent(ctx, in.UserID, in.ID)
	}
	wait := s.Backoff(in.Attempts)
	if e := (*previewd.Error)(nil); errors.As(why, &e) {
		wait = max(wait, min(e.RetryAfter, attentionEvery))
	}
	in.LastError = previewd.ErrorCode(why)
	if errors.Is(why, context.DeadlineExceeded) || errors.Is(why, context.Canceled) {
		in.LastError = previewd.CodeUnavailable
	}
	err := s.Store.Tx(ctx, "intent.postpone", func(tx *store.DB) error {
		if in.State == previewd.IntentPending && !tx.Now().Before(in.DeadlineAt) || in.LastError == previewd.CodeKeyReused {
			in.State = previewd.IntentAttention
			wait = attentionEvery
		}
		next := tx.Now().Add(wait)
		in.NextAttemptAt, in.UpdatedAt = &next, tx.Now()
		return tx.PostponeIntent(ctx, in, next)
	})
	if err != nil {
		return nil, err
	}
	s.Changes.Notify(intentTopic(in.ID))
	level := s.Log.WarnContext
	if in.State == previewd.IntentAttention {
		level = s.Log.ErrorContext
	}
	level(ctx, "intent postponed", telemetry.IntentID, in.ID, telemetry.Status, in.State, telemetry.RequestID, in.RequestID,
		telemetry.ReferenceID, in.ReferenceID, "attempts", in.Attempts, telemetry.Error, why)
	return in, nil
}

// discard forgets an intent whose request can only ever be refused.
func (s *Service) discard(ctx context.Context, in *store.Intent, why *previewd.Error) error {
	err := s.Store.Tx(ctx, "intent.discard", func(tx *store.DB) error { return tx.DeleteIntent(ctx, in.ID) })
	s.Changes.Notify(intentTopic(in.ID))
	s.Log.InfoContext(ctx, "intent discarded", telemetry.IntentID, in.ID, telemetry.Code, why.Code, telemetry.RequestID, in.RequestID)
	return err
}

// reject ends an intent by the worker's refusal.
func (s *Service) reject(ctx context.Context, in *store.Intent, refused *previewd.Error) (*store.Intent, error) {
	refused = &previewd.Error{Code: refused.Code, Message: refused.Message, Details: refused.Details, ReferenceID: in.ReferenceID}
	err := s.Store.Tx(ctx, "intent.reject", func(tx *store.DB) error {
		refused.At = tx.Now()
		return s.refuse(ctx, tx, in, refused)
	})
	if previewd.ErrorCode(err) == previewd.CodeConflict {
		return s.Store.FindIntent(ctx, in.UserID, in.ID) // another has ended it
	}
	if err != nil {
		return nil, err
	}
	s.Changes.Notify(intentTopic(in.ID))
	return in, nil
}

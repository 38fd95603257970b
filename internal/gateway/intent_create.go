package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/store"
)

// CreateProject is a request for a project.
type CreateProject struct {
	Name          string // "" has one suggested from the prompt
	Prompt        string
	Template      string
	TemplateFiles previewd.Files
	Metadata      map[string]any
}

// CreateBuild is a request for the next build of a project.
type CreateBuild struct {
	ProjectID     string
	Prompt        string
	Template      string
	TemplateFiles previewd.Files
	Metadata      map[string]any
	Policy        previewd.BuildPolicy
}

// Request is who asks, and how often the same may be asked.
type Request struct {
	User           previewd.User
	IdempotencyKey string // "" is guarded by the window
	RequestID      string
}

// ask is what is kept of a request until the worker's answer is known.
type ask struct {
	Name     string               `json:"name,omitempty"` // as the user gave it
	Prompt   string               `json:"prompt"`
	Template string               `json:"template,omitempty"`
	Files    previewd.Files       `json:"files,omitempty"`
	Metadata map[string]any       `json:"metadata,omitempty"`
	Policy   previewd.BuildPolicy `json:"policy,omitempty"`
	Repairs  string               `json:"repairs,omitempty"` // the build whose tree is changed
	Remove   []string             `json:"remove,omitempty"`
}

// CreateProject makes a project, or tells what became of an equal request. It
// returns an answer with a Project and a Build, or with an Intent while the
// worker's answer is not known; it never forgets the request. It returns
// CodeNameTaken, CodeQuotaExceeded, CodeSpendCapReached, CodeKeyReused,
// CodeKeyInFlight, and what the worker refuses the request for.
func (s *Service) CreateProject(ctx context.Context, req Request, want CreateProject) (*previewd.AppCreation, error) {
	a := ask{Prompt: want.Prompt, Template: want.Template, Files: want.TemplateFiles, Metadata: want.Metadata}
	if want.Name != "" {
		name, err := checkName(want.Name)
		if err != nil {
			return nil, err
		}
		a.Name = name
	}
	return s.create(ctx, req, previewd.IntentCreateProject, "", a)
}

// CreateBuild makes the next build of a project of the user's. Beside what
// CreateProject returns it returns CodeNotFound and CodeBuildActive.
func (s *Service) CreateBuild(ctx context.Context, req Request, want CreateBuild) (*previewd.AppCreation, error) {
	if _, err := s.Store.FindAppProject(ctx, req.User.ID, want.ProjectID); err != nil {
		return nil, err
	}
	a := ask{Prompt: want.Prompt, Template: want.Template, Files: want.TemplateFiles, Metadata: want.Metadata, Policy: want.Policy}
	return s.create(ctx, req, previewd.IntentCreateBuild, want.ProjectID, a)
}

// creation is one call of create.
type creation struct {
	*Service
	req    Request
	ask    ask
	body   []byte
	intent *store.Intent
}

func (s *Service) create(ctx context.Context, req Request, operation, projectID string, a ask) (*previewd.AppCreation, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	body, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	c := &creation{Service: s, req: req, ask: a, body: body}
	for {
		c.intent = s.newIntent(req, operation, projectID, a)
		other, replayed, err := c.begin(ctx)
		if err != nil {
			return nil, err
		}
		if other == nil {
			return s.answerNew(ctx, c.intent)
		}
		answer, err := s.coalesce(ctx, c.intent, other, replayed)
		if !errors.Is(err, errDiscarded) {
			return answer, err
		}
		// The equal request came to nothing: it is this one's turn.
	}
}

// check refuses what the worker would refuse for its size, so that it is not
// kept, and settles where the template is named.
func (a *ask) check() error {
	switch {
	case len(a.Prompt) > previewd.MaxPromptBytes:
		return tooLarge("prompt", previewd.MaxPromptBytes)
	case len(a.Files) > previewd.MaxFiles:
		return tooLarge("templateFiles", previewd.MaxFiles)
	case a.Files.Size() > previewd.MaxTreeBytes:
		return tooLarge("templateFiles", previewd.MaxTreeBytes)
	}
	if err := checkTemplate(a.Template); err != nil {
		return err
	}
	named, isText := a.Metadata["template"].(string)
	switch {
	case a.Template == "":
		if isText {
			a.Template = named
			return checkTemplate(named)
		}
	case a.Metadata["template"] != nil && named != a.Template:
		return invalid("template and metadata.template name two templates: leave one out.", "template")
	default:
		a.Metadata = maps.Clone(a.Metadata)
		if a.Metadata == nil {
			a.Metadata = map[string]any{}
		}
		a.Metadata["template"] = a.Template
	}
	return nil
}

// checkTemplate refuses what cannot be a template's name, before it is stored.
func checkTemplate(name string) error {
	if len(name) > 100 || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return invalid("template must be the name of a built-in template.", "template")
	}
	return nil
}

func tooLarge(field string, limit int64) error {
	return &previewd.Error{Code: previewd.CodeTooLarge, Message: fmt.Sprintf("%s is larger than %d.", field, limit), Details: field}
}

// fingerprint covers everything that makes the request what it is.
func (a *ask) fingerprint(operation, projectID string) (string, error) {
	metadata, err := json.Marshal(a.Metadata)
	if err != nil {
		return "", err
	}
	parts := []string{operation, projectID, a.Name, a.Prompt, a.Template, string(a.Policy), string(metadata)}
	for _, path := range slices.Sorted(maps.Keys(a.Files)) {
		content := sha256.Sum256(a.Files[path])
		parts = append(parts, path, string(content[:]))
	}
	if a.Repairs != "" {
		parts = append(append(parts, "repairs", a.Repairs), a.Remove...)
	}
	return previewd.Fingerprint(parts...), nil
}

// What the worker's keys begin with.
const (
	projectKey = "int_"
	buildKey   = "bld_"
)

func (s *Service) newIntent(req Request, operation, projectID string, a ask) *store.Intent {
	id := previewd.NewRowID()
	in := &store.Intent{
		Intent: previewd.Intent{
			ID: id, Operation: operation, State: previewd.IntentPending, ProjectID: projectID, Name: a.Name, Attempts: 1,
			ReferenceID: previewd.NewReferenceID(),
		},
		UserID: req.User.ID, ClientKey: req.IdempotencyKey, WorkerKey: projectKey + id, ClaimedBy: s.Holder, RequestID: req.RequestID,
	}
	switch {
	case operation == previewd.IntentCreateBuild:
		in.WorkerKey = buildKey + id
	case in.Name == "":
		in.Name = suggestName(a.Prompt, a.Template)
	}
	if in.ClientKey == "" {
		in.ClientKey = "none:" + id
	}
	return in
}

// begin stores the intent, claimed by this process. It returns the intent of an
// equal request when there is one, and stores nothing.
func (c *creation) begin(ctx context.Context) (other *store.Intent, replayed previewd.Replayed, err error) {
	in := c.intent
	if in.Fingerprint, err = c.ask.fingerprint(in.Operation, in.ProjectID); err != nil {
		return nil, "", err
	}
	suggested := in.Name
	var refused *previewd.Error
	err = c.Store.Tx(ctx, "intent", func(tx *store.DB) (err error) {
		other, replayed, refused = nil, previewd.ReplayedKey, nil
		in.State, in.Body, in.LastError = previewd.IntentPending, nil, ""
		in.Name = suggested
		in.ClaimUntil, in.DeadlineAt = tx.Now().Add(c.Claim), tx.Now().Add(c.Deadline)
		in.CreatedAt, in.UpdatedAt = tx.Now(), tx.Now()
		if c.req.IdempotencyKey == "" && !fault.Off(fault.Window) {
			id, err := tx.OpenIntentWindow(ctx, in, c.Window)
			if err != nil {
				return err
			}
			if id != "" {
				replayed = previewd.ReplayedWindow
				other, err = tx.FindIntent(ctx, in.UserID, id)
				return err
			}
		}
		if other, err = tx.InsertIntent(ctx, in); err != nil || other != nil {
			return err
		}
		err = c.admit(ctx, tx)
		if errors.As(err, &refused) && c.req.IdempotencyKey != "" && isDefinitive(refused.Code) {
			// A refusal that depends on what is stored is the key's answer.
			refused.ReferenceID, refused.At = in.ReferenceID, tx.Now()
			return c.refuse(ctx, tx, in, refused)
		}
		refused = nil
		if err != nil {
			return err
		}
		in.Request = c.body
		return tx.InsertIntentRequest(ctx, in.ID, c.body)
	})
	if err == nil && refused != nil {
		err = refused
	}
	return other, replayed, err
}

// admit checks what the user may do and reserves the project's name.
func (c *creation) admit(ctx context.Context, tx *store.DB) error {
	in := c.intent
	if err := tx.LockUser(ctx, in.UserID); err != nil {
		return err
	}
	pending, err := tx.CountPending(ctx, in.UserID) // this one is among them
	if err != nil {
		return err
	}
	if pending > c.Pending { // each request is kept whole
		return &previewd.Error{
			Code: previewd.CodeQueueFull, Message: fmt.Sprintf("%d of your requests wait for the worker: try again later.", c.Pending), RetryAfter: 10 * time.Second,
		}
	}
	if err := c.checkQuotas(ctx, tx, pending); err != nil {
		return err
	}
	if in.Operation == previewd.IntentCreateBuild {
		if _, err := tx.FindAppProject(ctx, in.UserID, in.ProjectID); err != nil {
			return err
		}
		return c.checkRepairs(ctx, tx)
	}
	if c.ask.Name == "" {
		suggested := in.Name
		if err := reserveSuggested(ctx, tx, in); err != nil || in.Name == suggested {
			return err
		}
		return tx.NameIntent(ctx, in.ID, in.Name)
	}
	free, err := tx.ReserveName(ctx, in.UserID, foldName(c.ask.Name), in.ID)
	if err == nil && !free && !fault.Off(fault.NameOnce) {
		err = nameTaken(c.ask.Name)
	}
	return err
}

// checkQuotas returns a refusal that says when the quota frees. The intent that
// asks is among the pending ones, whose builds are not stored yet.
func (c *creation) checkQuotas(ctx context.Context, tx *store.DB, pending int) error {
	q := c.Quotas
	if q == (previewd.Quotas{}) || fault.Off(fault.Quotas) {
		return nil
	}
	replaced := ""
	if c.ask.Policy == "" || c.ask.Policy == previewd.PolicySupersede {
		replaced = c.intent.ProjectID // whose builds end for the new one
	}
	used, err := tx.CountUsage(ctx, c.intent.UserID, replaced)
	if err != nil {
		return err
	}
	refuse := func(code previewd.Code, message string, frees time.Time) error {
		e := &previewd.Error{Code: code, Message: message}
		if !frees.IsZero() {
			e.RetryAfter = frees.Sub(tx.Now())
			e.Details = "frees at " + frees.Format(time.RFC3339)
		}
		return e
	}
	switch {
	case q.Concurrent > 0 && used.Active+pending > q.Concurrent:
		return refuse(previewd.CodeQuotaExceeded,
			fmt.Sprintf("You may have %d builds that are not over: wait for one to end, or cancel one, and send a new request.", q.Concurrent), time.Time{})
	case q.BuildsPerDay > 0 && used.BuildsToday+pending > q.BuildsPerDay:
		return refuse(previewd.CodeQuotaExceeded,
			fmt.Sprintf("You have made the %d builds of this day; the next day begins at midnight UTC.", q.BuildsPerDay), used.NextMidnight)
	case q.SpendCap > 0 && used.SpentMicros+int64(pending)*c.reserved() > q.SpendCap:
		return refuse(previewd.CodeSpendCapReached,
			"This month's spend cap is reached: raise it, or wait for the next month.", used.NextMonth)
	}
	return nil
}

// reserved is what an open session counts against the cap.
func (s *Service) reserved() int64 { return s.Prices.BuildTime(s.Reserve) }

// isDefinitive reports whether a refusal that depends on what is stored ends an
// intent for good.
func isDefinitive(code previewd.Code) bool {
	switch code {
	case previewd.CodeNotFound, previewd.CodeNameTaken, previewd.CodeBuildActive, previewd.CodeNotFailed, previewd.CodeBuildOutdated, previewd.CodeIDTaken,
		previewd.CodeQuotaExceeded, previewd.CodeSpendCapReached:
		return true
	}
	return false
}

// isStateless reports whether the same request would be refused in the same way
// whatever is stored: such a refusal needs no memory.
func isStateless(code previewd.Code) bool {
	return code == previewd.CodeInvalid || code == previewd.CodeInvalidPath || code == previewd.CodeTooLarge || code == previewd.CodeClientIDNotAllowed
}

// refuse ends an intent with a refusal, which is its answer from now on.
func (s *Service) refuse(ctx context.Context, tx *store.DB, in *store.Intent, refused *previewd.Error) (err error) {
	in.State, in.LastError = previewd.IntentRejected, refused.Code
	if in.Body, err = json.Marshal(refused); err != nil {
		return err
	}
	if err := tx.EndIntent(ctx, in); err != nil {
		return err
	}
	if err := tx.ReleaseName(ctx, in.ID); err != nil {
		return err
	}
	return audit(ctx, tx, userActor(in.UserID), store.AuditEntry{
		Action: "intent.reject", Subject: "intent/" + in.ID,
		Data: map[string]any{"code": refused.Code, "referenceId": refused.ReferenceID, "requestId": in.RequestID},
	})
}

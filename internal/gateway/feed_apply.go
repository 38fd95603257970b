package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// applier applies events in one transaction. While it has the feed nobody else
// changes what it remembers: which events of a project were applied, and builds.
type applier struct {
	*Service
	tx       *store.DB
	feed     store.AppFeed
	topics   map[string]bool // who is to be told after the commit
	projects map[string]*store.AppProject
	builds   map[string]*store.AppBuild
	moved    map[string]bool    // projects of which events were applied
	audits   []store.AuditEntry // written last: who holds the log's head waits for nobody
	hooked   bool               // there are webhooks
}

// withApplier runs fn with the feed locked, and stores how far it went.
func (s *Service) withApplier(ctx context.Context, tx *store.DB, fn func(*applier) error) (topics map[string]bool, err error) {
	a := &applier{
		Service: s, tx: tx, topics: map[string]bool{}, moved: map[string]bool{},
		projects: map[string]*store.AppProject{}, builds: map[string]*store.AppBuild{},
	}
	if a.feed, err = tx.LockAppFeed(ctx); err != nil {
		return nil, err
	}
	if a.hooked, err = tx.HasWebhooks(ctx); err != nil {
		return nil, err
	}
	if err := fn(a); err != nil {
		return nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(a.moved)) {
		if err := tx.UpdateAppProject(ctx, id, store.AppProjectChange{LastEventSeq: &a.projects[id].LastEventSeq}); err != nil {
			return nil, err
		}
	}
	if err := tx.MoveAppFeed(ctx, a.feed); err != nil {
		return nil, err
	}
	for _, e := range a.audits {
		if err := audit(ctx, tx, follower, e); err != nil {
			return nil, err
		}
	}
	return a.topics, nil
}

func (a *applier) project(ctx context.Context, id string) (*store.AppProject, error) {
	if p := a.projects[id]; p != nil {
		return p, nil
	}
	p, err := a.tx.FindAnyAppProject(ctx, id)
	if err == nil {
		a.projects[id] = p
	}
	return p, err
}

// find returns a build, or nil.
func (a *applier) find(ctx context.Context, id string) (*store.AppBuild, error) {
	if b := a.builds[id]; b != nil {
		return b, nil
	}
	b, err := a.tx.FindAnyAppBuild(ctx, id)
	if b != nil {
		a.builds[id] = b
	}
	return b, err
}

// event applies an event, once: one that was applied, or that comes after a
// later one, changes nothing. One whose project is not stored yet is parked.
func (a *applier) event(ctx context.Context, e previewd.Event) error {
	if !previewd.IsID(e.ProjectID) || e.Seq < 1 || e.Type == "" || e.BuildID != "" && !previewd.IsID(e.BuildID) {
		return errors.New("it names no project, number or type")
	}
	p, err := a.project(ctx, e.ProjectID)
	if previewd.ErrorCode(err) == previewd.CodeNotFound {
		return a.park(ctx, e)
	}
	if err != nil {
		return err
	}
	if e.Seq > p.LastEventSeq+1 {
		// What was parked of it comes first.
		if err := a.release(ctx, e.ProjectID); err != nil {
			return err
		}
	}
	return a.change(ctx, p, e)
}

// park keeps an event of a project that a gateway has asked for. Others' are none
// of its business.
func (a *applier) park(ctx context.Context, e previewd.Event) error {
	first := e
	if e.Type != previewd.EventProjectCreated {
		parked, err := a.tx.ListParked(ctx, e.ProjectID)
		if err != nil {
			return err
		}
		if len(parked) > 0 {
			first = parked[0].Event
		}
	}
	key, _ := first.Data["idempotencyKey"].(string)
	if !strings.HasPrefix(key, projectKey) || fault.Off(fault.Parking) {
		return nil
	}
	// Whoever ends the intent has done so, or will find what is parked here.
	in, err := a.tx.LockIntentByWorkerKey(ctx, key)
	if err != nil {
		return err
	}
	since := a.tx.Now()
	if in == nil || in.State.Final() {
		// An intent is stored before the worker is asked. When there is none, or it
		// has ended, there is nothing to wait for.
		if first.Seq != e.Seq && in != nil && in.State != previewd.IntentConfirmed {
			return nil // what it has left behind is being deleted
		}
		since = since.Add(-a.Parked)
		a.topics[followTopic] = true
	}
	return a.tx.ParkEvent(ctx, e, since)
}

// release applies a project's parked events, if the project is stored.
func (a *applier) release(ctx context.Context, projectID string) error {
	parked, err := a.tx.ListParked(ctx, projectID)
	if err != nil || len(parked) == 0 {
		return err
	}
	p, err := a.project(ctx, projectID)
	if previewd.ErrorCode(err) == previewd.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range parked {
		if err := a.change(ctx, p, e.Event); err != nil {
			if blameless(ctx, err) {
				return err
			}
			return &badParkedError{e.Event, err}
		}
	}
	return a.tx.ForgetParked(ctx, projectID)
}

// change does what an event tells of, and tells of it in the app's words.
func (a *applier) change(ctx context.Context, p *store.AppProject, e previewd.Event) error {
	if e.Seq <= p.LastEventSeq && !fault.Off(fault.AppOrder) {
		return a.contradicts(ctx, p, e)
	}
	data := maps.Clone(e.Data)
	if data == nil {
		data = map[string]any{}
	}
	delete(data, "idempotencyKey") // between gateway and worker
	var err error
	switch {
	case e.Type == previewd.EventProjectDeleted:
		err = a.deleted(ctx, p)
	case e.Type == previewd.EventVersionActivated:
		err = a.activated(ctx, p, e)
	case strings.HasPrefix(string(e.Type), "build."):
		err = a.build(ctx, p, e, data)
	}
	if err != nil {
		return err
	}
	p.LastEventSeq, a.moved[p.ID] = max(p.LastEventSeq, e.Seq), true
	told := e
	told.Data = data
	a.feed.Position++
	if err := a.tx.InsertAppEvent(ctx, a.feed.Position, p.OwnerID, told); err != nil {
		return err
	}
	a.topics[ProjectTopic(p.ID)], a.topics[UserTopic(p.OwnerID)] = true, true
	return a.hook(ctx, p, told)
}

// contradicts looks at an event whose number was applied. When that was another
// one, the worker's log is another, as after an older backup of it was restored:
// an operator decides.
func (a *applier) contradicts(ctx context.Context, p *store.AppProject, e previewd.Event) error {
	applied, err := a.tx.ListAppProjectEvents(ctx, p.ID, e.Seq-1, 1)
	if err != nil || len(applied) == 0 || applied[0].Seq != e.Seq || applied[0].Type == e.Type && applied[0].BuildID == e.BuildID {
		return err
	}
	if p.Attention != "" {
		return nil // an operator is to look at it already, and each event of such a log would tell again
	}
	why := fmt.Sprintf("the worker's log has another event %d than was applied: was an older backup of it restored?", e.Seq)
	p.Attention = why
	a.Log.ErrorContext(ctx, "the worker's log is another one", telemetry.ProjectID, p.ID, "seq", e.Seq)
	return a.tx.UpdateAppProject(ctx, p.ID, store.AppProjectChange{Attention: &why})
}

// hook has the webhooks told that want to know.
func (a *applier) hook(ctx context.Context, p *store.AppProject, e previewd.Event) error {
	if !a.hooked || !slices.Contains(hookTypes, string(e.Type)) {
		return nil
	}
	data := maps.Clone(e.Data)
	data["projectId"], data["projectName"], data["userId"], data["previewUrl"] = p.ID, p.Name, p.OwnerID, p.PreviewURL
	if e.BuildID != "" {
		data["buildId"] = e.BuildID
	}
	n, err := a.tx.EnqueueWebhooks(ctx, store.WebhookEvent{
		ID: fmt.Sprintf("%s-%d", p.ID, e.Seq), OwnerID: p.OwnerID, Type: string(e.Type), At: e.At, Data: data,
	})
	if n > 0 {
		a.topics[HookTopic] = true
	}
	return err
}

var hookTypes = previewd.WebhookTypes()

func (a *applier) deleted(ctx context.Context, p *store.AppProject) error {
	ended, err := endProject(ctx, a.tx, p.ID)
	if ended {
		a.audits = append(a.audits, store.AuditEntry{Action: "project.deleted", Subject: "project/" + p.ID})
	}
	return err
}

func (a *applier) activated(ctx context.Context, p *store.AppProject, e previewd.Event) error {
	number := integer(e.Data["version"])
	pinned, _ := e.Data["pinned"].(bool)
	return a.tx.UpdateAppProject(ctx, p.ID, store.AppProjectChange{CurrentVersion: &number, Pinned: &pinned})
}

// integer reads a number of an event's data.
func integer(v any) int64 {
	switch n := v.(type) {
	case float64:
		return int64(n)
	case int64:
		return n
	case int:
		return int64(n)
	}
	return 0
}

// build applies an event of a build.
func (a *applier) build(ctx context.Context, p *store.AppProject, e previewd.Event, data map[string]any) error {
	b, err := a.find(ctx, e.BuildID)
	if err != nil {
		return err
	}
	if b == nil {
		if b, err = a.unknownBuild(ctx, p, e); err != nil || b == nil {
			return err
		}
	}
	if b.ProjectID != p.ID {
		return errors.New("its build is of another project")
	}
	if b.EventSeq >= e.Seq || b.FinishedAt != nil && !e.Type.Terminal() {
		return nil
	}
	wasOver := b.FinishedAt != nil
	if !a.turn(ctx, b, e) {
		return nil
	}
	b.EventSeq = e.Seq
	data["status"] = b.Status
	if b.Canceling {
		data["canceling"] = true
	}
	if err := a.tx.UpdateAppBuild(ctx, b); err != nil {
		return err
	}
	if b.FinishedAt == nil || wasOver {
		return nil
	}
	return a.closeBilling(ctx, a.tx, b, integer(e.Data["bytes"]))
}

// unknownBuild stores a build that was not asked for here, as by an operator.
func (a *applier) unknownBuild(ctx context.Context, p *store.AppProject, e previewd.Event) (*store.AppBuild, error) {
	seq, reference := integer(e.Data["seq"]), ""
	if text, ok := e.Data["referenceId"].(string); ok {
		reference = text
	}
	if e.BuildID == "" || seq < 1 {
		return nil, nil
	}
	b := &store.AppBuild{
		AppBuild: previewd.AppBuild{
			ID: e.BuildID, ProjectID: p.ID, Seq: seq, Status: previewd.ProjectQueued, ReferenceID: reference, QueuedAt: e.At,
			PreviewURL: strings.Replace(p.PreviewURL, p.ID+".", e.BuildID+".b.", 1),
		},
		OwnerID: p.OwnerID, WorkerStatus: previewd.BuildQueued,
	}
	if err := a.tx.InsertAppBuild(ctx, b); err != nil {
		return nil, err
	}
	// Its confirmation may have come between.
	b, err := a.find(ctx, b.ID)
	if err != nil || b == nil {
		return nil, err
	}
	return b, a.openBilling(ctx, a.tx, b)
}

// turn changes a build as an event tells. It reports false for one that tells of
// a status that nobody knows: then the build stays as it is.
func (a *applier) turn(ctx context.Context, b *store.AppBuild, e previewd.Event) bool {
	status := statusOf(e.Type)
	if status == "" {
		return true // it tells of no status
	}
	shown, err := status.ProjectStatus()
	if err != nil {
		a.unknown(ctx, b.ProjectID, b.ID, status)
		return false
	}
	b.WorkerStatus, b.Status, b.Canceling = status, shown, status == previewd.BuildCanceling
	b.Epoch = max(b.Epoch, e.Epoch)
	at := e.At
	switch status {
	case previewd.BuildQueued:
		b.StartedAt = nil // what it took is our fault, and costs nothing
	case previewd.BuildBuilding:
		b.StartedAt = &at
	case previewd.BuildCompleted:
		b.Version = integer(e.Data["version"])
	case previewd.BuildSuperseded:
		b.SupersededBy, _ = e.Data["supersededBy"].(string)
	case previewd.BuildFailed:
		b.Failure = failureOf(e.Data["failure"])
		if reference, ok := e.Data["referenceId"].(string); ok {
			b.ReferenceID = reference
		}
	}
	if status.Terminal() {
		b.FinishedAt = &at
	}
	return true
}

// statusOf returns the status that a build's event tells of, "" for none.
func statusOf(t previewd.EventType) previewd.BuildStatus {
	switch t {
	case previewd.EventBuildStep:
		return ""
	case previewd.EventBuildRetrying:
		return previewd.BuildQueued
	}
	return previewd.BuildStatus(strings.TrimPrefix(string(t), "build."))
}

func (s *Service) unknown(ctx context.Context, projectID, buildID string, status previewd.BuildStatus) {
	s.counts.UnknownStatus.Add(1)
	s.Log.ErrorContext(ctx, "unknown worker status", telemetry.ProjectID, projectID, telemetry.BuildID, buildID, telemetry.Status, status)
}

func failureOf(v any) *previewd.Failure {
	text, err := json.Marshal(v)
	f := new(previewd.Failure)
	if err != nil || json.Unmarshal(text, f) != nil || f.Class == "" {
		return nil
	}
	return f
}

// closeBilling closes the session of a build that is over, in the transaction
// that stores its end.
func (s *Service) closeBilling(ctx context.Context, tx *store.DB, b *store.AppBuild, bytes int64) error {
	session, err := tx.LockOpenBilling(ctx, b.ID)
	if err != nil || session == nil {
		return err
	}
	billed, reason := endOf(b).Billed()
	session.State, session.Reason = previewd.BillingVoided, reason
	if billed {
		session.State = previewd.BillingSettled
		session.Entries = s.meter(b, bytes)
		for _, e := range session.Entries {
			session.AmountMicros += e.AmountMicros
		}
	}
	return tx.CloseBilling(ctx, *session)
}

// endOf is how a build ended.
func endOf(b *store.AppBuild) previewd.BuildEnd {
	end := previewd.BuildEnd{Status: b.Status, Started: b.StartedAt != nil}
	if b.Failure != nil {
		end.Class = b.Failure.Class
	}
	return end
}

// meter is what a build has used.
func (s *Service) meter(b *store.AppBuild, bytes int64) (entries []previewd.BillingEntry) {
	var took time.Duration
	if b.StartedAt != nil && b.FinishedAt.After(*b.StartedAt) {
		took = b.FinishedAt.Sub(*b.StartedAt)
	}
	entry := func(meter string, quantity int64, unit string, amount int64) {
		entries = append(entries, previewd.BillingEntry{
			Key: entryKey(b.ID, b.Epoch, meter), Meter: meter, Quantity: quantity, Unit: unit, AmountMicros: amount,
		})
	}
	entry(previewd.MeterBuildTime, took.Milliseconds(), "ms", s.Prices.BuildTime(took))
	if bytes > 0 {
		entry(previewd.MeterStoredBytes, bytes, "B", s.Prices.Stored(bytes))
	}
	return entries
}

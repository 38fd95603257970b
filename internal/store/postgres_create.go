package store

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// createLanes shares transactions among creates that wait anyway: all of them
// end in the audit chain, whose head one transaction holds until its commit has
// reached the disk. A create that comes alone is sent at once; those that come
// while both lanes are busy go together. Two lanes, so that one works while the
// other commits.
type createLanes struct {
	mu      sync.Mutex
	pending []*createCall
	busy    int
}

const (
	maxLanes = 2
	maxBatch = 32
)

// createCall is one create on its way.
type createCall struct {
	creation *Creation
	args     []any
	created  *Created
	err      error
	done     chan struct{}
}

// createPreview returns when the create has committed, or has not happened.
func (p *postgresDB) createPreview(ctx context.Context, c *Creation) (*Created, error) {
	args, err := creationArgs(c)
	if err != nil {
		return nil, err
	}
	call := &createCall{creation: c, args: args, done: make(chan struct{})}
	l := &p.lanes
	l.mu.Lock()
	l.pending = append(l.pending, call)
	if l.busy < maxLanes {
		l.busy++
		go p.runLane()
	}
	l.mu.Unlock()
	select {
	case <-call.done:
	case <-ctx.Done():
		if l.drop(call) {
			return nil, ctx.Err()
		}
		<-call.done // it is under way: its outcome must not be left open
	}
	return call.created, p.translate(call.err)
}

// drop takes back a call that no lane has taken up.
func (l *createLanes) drop(call *createCall) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.pending, call)
	if i >= 0 {
		l.pending = slices.Delete(l.pending, i, i+1)
	}
	return i >= 0
}

// take returns what to send next; nil closes the lane.
func (l *createLanes) take() []*createCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.pending), maxBatch)
	if n == 0 {
		l.busy--
		return nil
	}
	calls := slices.Clone(l.pending[:n])
	l.pending = slices.Delete(l.pending, 0, n)
	return calls
}

func (p *postgresDB) runLane() {
	for calls := p.lanes.take(); calls != nil; calls = p.lanes.take() {
		if len(calls) > 1 {
			if p.send(calls) == nil {
				finish(calls)
				continue
			}
		}
		for _, call := range calls { // one that fails must not fail the others
			p.sendAlone(call)
		}
		finish(calls)
	}
}

func finish(calls []*createCall) {
	for _, call := range calls {
		close(call.done)
	}
}

// sendAlone sends a create until its outcome is known. When the connection
// breaks before the answer, the outcome is not guessed: the same create is sent
// again and finds what it did, for its rows name its ids.
func (p *postgresDB) sendAlone(call *createCall) {
	try := 1
	for ; try <= maxTries; try++ {
		call.err = p.send([]*createCall{call})
		again := (*brokenOffError)(nil)
		if call.err == nil || !errors.As(p.translate(call.err), &again) && !isBroken(call.err) {
			break
		}
	}
	if created := call.created; call.err == nil && try > 1 && created.Outcome != OutcomeCreated &&
		created.Stored.ResourceID == call.creation.Project.ID {
		created.Outcome, created.Place = OutcomeCreated, Place{Ahead: created.Stored.Ahead, ETA: created.Stored.ETA}
	}
}

// send sends BEGIN, the locks, the creates and COMMIT in one round trip.
func (p *postgresDB) send(calls []*createCall) error {
	// A commit must not be cut short: it would leave the outcome unknown.
	ctx, cancel := context.WithTimeout(context.Background(), statementLimit)
	defer cancel()
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer leave(conn)
	if err := fault.Point("create.before_commit"); err != nil {
		return err
	}
	wait := time.Duration(0)
	names := make([]string, 0, len(calls))
	for _, call := range calls {
		wait = max(wait, call.creation.Wait)
		names = append(names, call.creation.lockName())
	}
	var batch pgx.Batch
	batch.Queue(beginReadCommitted)
	batch.Queue(setLimits, milliseconds(statementLimit), milliseconds(max(wait, time.Millisecond)))
	// Equal requests wait here and not in the middle of their work. Each is a
	// statement of its own, because the next ones must see what was committed
	// before; correctness rests on the unique rows alone. In order, so that nobody
	// waits in a circle.
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		batch.Queue(`SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, name)
	}
	for _, call := range calls {
		call.created = &Created{}
		batch.Queue(callCreate, call.args...).QueryRow(call.created.scan)
		if fault.Off(fault.FeedOrder) {
			batch.Queue(`UPDATE worker_events SET feed_pos = $1::bigint + seq WHERE project_id = $2 AND feed_pos IS NULL`,
				earlyPositions.Add(2)-2, call.creation.Project.ID)
		}
	}
	batch.Queue("COMMIT").Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != "COMMIT" {
			return errors.New("the transaction was rolled back: " + tag.String())
		}
		return nil
	})
	err = conn.SendBatch(ctx, &batch).Close()
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) && e.Code == stateLockTimeout {
		return inFlight(wait)
	}
	if err != nil {
		return err
	}
	return fault.Point("create.after_commit")
}

// scan reads what worker_create_preview returns.
func (c *Created) scan(row pgx.Row) error {
	var operation, fingerprint, resource, request *string
	var status, ahead, eta *int64
	k := &c.Stored
	err := row.Scan((*string)(&c.Outcome), &operation, &fingerprint, &status, &k.Body, &resource, &request, &ahead, &eta)
	k.Operation, k.Fingerprint, k.ResourceID, k.RequestID = text(operation), text(fingerprint), text(resource), text(request)
	k.Status, k.Ahead, k.ETA = int(number(status)), int(number(ahead)), timeOf(eta)
	c.Place = Place{Ahead: k.Ahead, ETA: k.ETA}
	return err
}

func number(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

func inFlight(waited time.Duration) error {
	return &previewd.Error{
		Code: previewd.CodeKeyInFlight, Message: "An equal request is still under way: ask again with the same key.",
		Details: "waited " + waited.String(), RetryAfter: time.Second,
	}
}

// lockName is the same for requests that must make one project only.
func (c *Creation) lockName() string {
	if c.Key.Key != "" {
		return "key " + c.Key.Principal + " " + c.Key.Key
	}
	return "window " + c.Project.OwnerID + " " + c.Key.Fingerprint
}

const callCreate = `SELECT outcome, o_operation, o_fingerprint, o_status, o_body, o_resource_id, o_request_id, o_ahead, o_eta
	FROM worker_create_preview($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
		$21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34)`

// creationArgs are the parameters of worker_create_preview, in its order.
func creationArgs(c *Creation) ([]any, error) {
	created, err := json.Marshal(c.Created.Data)
	if err != nil {
		return nil, err
	}
	queued, err := json.Marshal(c.Queued.Data)
	if err != nil {
		return nil, err
	}
	audit, err := json.Marshal(c.Audit.Data)
	if err != nil {
		return nil, err
	}
	var base, step any
	if c.Pace.Base > 0 {
		base, step = c.Pace.Base.Microseconds(), c.Pace.Step.Microseconds()
	}
	p, b := c.Project, c.Build
	return []any{
		c.Key.Principal, c.Key.Key, c.Key.Operation, FingerprintVersion, c.Key.Fingerprint, c.Window.Microseconds(),
		c.Key.Status, c.Key.Body, c.Key.RequestID,
		p.ID, p.OwnerID, p.CreateKey, p.CreatedByService, string(p.IDSource),
		b.ID, b.State.MaxAttempts, b.ReferenceID, b.Prompt, b.Template, b.Metadata,
		string(b.Source.Digest), b.Source.Files, b.Source.Bytes,
		string(created), string(queued), c.Audit.Actor, c.Audit.Action, string(audit),
		c.Limits.ownerCap(), c.Limits.Total, c.Fair, c.Far, base, step,
	}, nil
}

func (l QueueLimits) ownerCap() int64 {
	if l.Owner == 0 {
		return 1 << 62
	}
	return int64(l.Owner)
}

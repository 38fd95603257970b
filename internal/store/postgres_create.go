package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// createPreview sends BEGIN, the locks, the create and COMMIT in one round trip.
// When the connection breaks before the answer, the outcome is not guessed: the
// same create is sent once more and finds what it did, for its rows name its ids.
func (p *postgresDB) createPreview(ctx context.Context, c *Creation) (*Created, error) {
	args, err := creationArgs(c)
	if err != nil {
		return nil, err
	}
	created, err := p.create(ctx, c, args)
	for try := 1; err != nil && try < maxTries; try++ {
		again := (*brokenOffError)(nil)
		if !errors.As(p.translate(err), &again) && (!isBroken(err) || ctx.Err() != nil) {
			break
		}
		if created, err = p.create(ctx, c, args); err == nil && created.Stored.ResourceID == c.Project.ID {
			created.Outcome, created.Place = OutcomeCreated, Place{Ahead: created.Stored.Ahead, ETA: created.Stored.ETA}
		}
	}
	return created, p.translate(err)
}

func (p *postgresDB) create(ctx context.Context, c *Creation, args []any) (*Created, error) {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rollBack(conn) }()
	created := &Created{}
	k := &created.Stored
	var ahead, eta *int64
	var operation, fingerprint, resource, request *string
	var status *int64

	var batch pgx.Batch
	batch.Queue(beginReadCommitted)
	batch.Queue(`SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true)`,
		milliseconds(statementLimit), milliseconds(max(c.Wait, time.Millisecond)))
	// Equal requests wait here and not in the middle of their work. It is a
	// statement of its own, because the next one must see what the one before
	// has committed; correctness rests on the unique rows alone.
	batch.Queue(`SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, c.lockName())
	batch.Queue(callCreate, args...).QueryRow(func(row pgx.Row) error {
		return row.Scan((*string)(&created.Outcome), &operation, &fingerprint, &status, &k.Body, &resource, &request, &ahead, &eta)
	})
	batch.Queue("COMMIT")
	// A commit must not be cut short: it would leave the outcome unknown.
	sent, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementLimit)
	defer cancel()
	if err := fault.Point("create.before_commit"); err != nil {
		return nil, err
	}
	results := conn.SendBatch(sent, &batch)
	err = results.Close()
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) && e.Code == stateLockTimeout {
		return nil, inFlight(c.Wait)
	}
	if err != nil {
		return nil, err
	}
	k.Operation, k.Fingerprint, k.ResourceID, k.RequestID = text(operation), text(fingerprint), text(resource), text(request)
	k.ETA = timeOf(eta)
	if status != nil {
		k.Status = int(*status)
	}
	if ahead != nil {
		k.Ahead = int(*ahead)
	}
	created.Place = Place{Ahead: k.Ahead, ETA: k.ETA}
	return created, fault.Point("create.after_commit")
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

package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/previewd/previewd"
)

// Creation is everything that one create stores. The same principal and key
// always get the first answer; without a key the same owner and fingerprint do,
// for as long as the window.
type Creation struct {
	Key     Key
	Window  time.Duration // for a creation without a key; 0 lets every call make a project
	Project NewProject
	Build   *Build
	Created previewd.Event // project.created; its data
	Queued  previewd.Event // build.queued; its data
	Audit   AuditEntry
	Limits  QueueLimits
	Fair    bool // owners take turns in the queue
	Pace    Pace
	Far     int           // about how many wait before it, if more than MaxAhead do
	Wait    time.Duration // for an equal request that is under way
}

// QueueLimits bound how many builds may wait; 0 is no bound.
type QueueLimits struct {
	Owner int
	Total int
}

// Pace foretells when a new build is over: Base from now, and Step more for
// each that waits before it. A zero Base foretells nothing.
type Pace struct {
	Base time.Duration
	Step time.Duration
}

// Outcome says what a create came to.
type Outcome string

// The outcomes of a create.
const (
	OutcomeCreated   Outcome = "created"
	OutcomeKnown     Outcome = "known"      // the key is taken; Stored says by what
	OutcomePruned    Outcome = "pruned"     // the key made this project once; its row is gone
	OutcomeWindow    Outcome = "window"     // an equal request without a key came just before
	OutcomeIDTaken   Outcome = "id_taken"   // a client's id is in use
	OutcomeOwnerFull Outcome = "owner_full" // too many of the owner's builds wait
	OutcomeFull      Outcome = "full"       // too many builds wait
)

// Created is what a create came to.
type Created struct {
	Outcome
	Stored Key   // known, window: the stored answer; pruned: its resource
	Place  Place // created
}

// Place is where a new build stands in the queue.
type Place struct {
	Rank  int64
	Ahead int       // how many are claimed before it; beyond MaxAhead, about
	ETA   time.Time // zero when nothing is foretold
}

// MaxAhead bounds how far a place is counted.
const MaxAhead = 100

// CreatePreview does a create: all of it, or nothing. It returns
// CodeKeyInFlight when an equal request does not end within Creation.Wait.
func (db *DB) CreatePreview(ctx context.Context, c *Creation) (*Created, error) {
	return db.engine.createPreview(ctx, c)
}

// createInSteps is what an engine does that has no functions. What is read
// before the first write can be out of date when another writes, and harms
// nothing: unique rows decide, and the key's, or the window's, is the first.
func (db *DB) createInSteps(ctx context.Context, c *Creation) (*Created, error) {
	if found, err := db.findCreated(ctx, c); err != nil || found != nil {
		return found, err
	}
	if c.Project.IDSource == previewd.IDSourceClient {
		var one int
		if taken, err := db.one(ctx, []any{&one}, `SELECT 1 FROM worker_projects WHERE id = $1`, c.Project.ID); err != nil || taken {
			return &Created{Outcome: OutcomeIDTaken}, err
		}
	}
	full, err := db.QueueFull(ctx, c.Build.OwnerID, c.Limits)
	if err != nil || full != "" {
		return &Created{Outcome: full}, err
	}
	place, err := db.findPlace(ctx, c)
	if err != nil {
		return nil, err
	}
	if c.Key.Key != "" {
		c.Key.Ahead, c.Key.ETA = place.Ahead, place.ETA
		if _, err := db.InsertKey(ctx, c.Key); err != nil {
			return nil, err
		}
	} else if c.Window > 0 {
		if err := db.openWindow(ctx, c, place); err != nil {
			return nil, err
		}
	}
	b := c.Build
	b.Seq, b.FairRank, b.QueuedAt, b.State.RunnableAt = 1, place.Rank, db.now, db.now
	if err := db.InsertProject(ctx, c.Project); err != nil {
		return nil, err
	}
	if err := db.InsertBuild(ctx, b); err != nil {
		return nil, err
	}
	if err := db.InsertFirstEvents(ctx, c.Project.ID, c.Created, c.Queued); err != nil {
		return nil, err
	}
	return &Created{Outcome: OutcomeCreated, Place: place}, db.AppendAudit(ctx, c.Audit)
}

// findCreated returns what an equal request has got, or nil.
func (db *DB) findCreated(ctx context.Context, c *Creation) (*Created, error) {
	if c.Key.Key == "" {
		return db.findWindow(ctx, c)
	}
	stored, err := db.FindKey(ctx, c.Key.Principal, c.Key.Key)
	if err != nil {
		return nil, err
	}
	if stored != nil {
		return &Created{Outcome: OutcomeKnown, Stored: *stored}, nil
	}
	id, _, err := db.FindProjectByKey(ctx, c.Key.Principal, c.Key.Key)
	if err != nil || id == "" {
		return nil, err
	}
	return &Created{Outcome: OutcomePruned, Stored: Key{ResourceID: id}}, nil
}

func (db *DB) findWindow(ctx context.Context, c *Creation) (*Created, error) {
	var k Key
	var ahead sql.NullInt64
	var eta *int64
	found, err := db.one(ctx, []any{&k.Body, &k.ResourceID, &k.RequestID, &ahead, &eta}, `
		SELECT body, project_id, request_id, queue_ahead, eta_at FROM worker_create_guard
		WHERE owner_id = $1 AND fingerprint = $2 AND expires_at > $3`, c.Project.OwnerID, c.Key.Fingerprint, micros(db.now))
	if err != nil || !found {
		return nil, err
	}
	k.Status, k.Ahead, k.ETA = c.Key.Status, int(ahead.Int64), timeOf(eta)
	return &Created{Outcome: OutcomeWindow, Stored: k}, nil
}

func (db *DB) openWindow(ctx context.Context, c *Creation, place Place) error {
	_, err := db.exec(ctx, `
		INSERT INTO worker_create_guard (owner_id, fingerprint, project_id, request_id, body, queue_ahead, eta_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (owner_id, fingerprint) DO UPDATE SET project_id = excluded.project_id, request_id = excluded.request_id,
			body = excluded.body, queue_ahead = excluded.queue_ahead, eta_at = excluded.eta_at, expires_at = excluded.expires_at`,
		c.Project.OwnerID, c.Key.Fingerprint, c.Project.ID, c.Key.RequestID, c.Key.Body,
		place.Ahead, micros(place.ETA), micros(db.now.Add(c.Window)))
	return err
}

// findPlace returns where a new build of the owner stands: owners take turns.
func (db *DB) findPlace(ctx context.Context, c *Creation) (Place, error) {
	rank, err := db.NextRank(ctx, c.Build.OwnerID, c.Fair)
	if err != nil {
		return Place{}, err
	}
	place := Place{Rank: rank}
	if place.Ahead, err = db.CountAhead(ctx, rank, c.Build.ID, MaxAhead); err != nil {
		return Place{}, err
	}
	if place.Ahead == MaxAhead {
		place.Ahead = max(MaxAhead, c.Far)
	}
	if c.Pace.Base > 0 {
		place.ETA = db.now.Add(c.Pace.Base + time.Duration(place.Ahead)*c.Pace.Step)
	}
	return place, nil
}

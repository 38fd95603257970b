package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/previewd/previewd"
)

// AppFeed is how far the worker's feed was applied, and how far the gateway's
// own events go.
type AppFeed struct {
	Cursor     string // of the worker's feed; "" is its beginning
	Generation int64
	Position   int64 // of the last of the gateway's events
}

// FindAppFeed returns how far the worker's feed was applied.
func (db *DB) FindAppFeed(ctx context.Context) (AppFeed, error) { return db.findAppFeed(ctx, "") }

// LockAppFeed is FindAppFeed for the one that applies events: others wait until
// the transaction ends.
func (db *DB) LockAppFeed(ctx context.Context) (AppFeed, error) {
	return db.findAppFeed(ctx, db.engine.locking(lockRow))
}

func (db *DB) findAppFeed(ctx context.Context, locking string) (f AppFeed, err error) {
	_, err = db.one(ctx, []any{&f.Cursor, &f.Generation, &f.Position},
		`SELECT cursor, generation, position FROM gateway_feed WHERE name = 'worker'`+locking)
	return f, err
}

// MoveAppFeed stores how far the worker's feed was applied.
func (db *DB) MoveAppFeed(ctx context.Context, f AppFeed) error {
	return changedOne(db.exec(ctx, `UPDATE gateway_feed SET cursor = $1, position = $2 WHERE name = 'worker'`, f.Cursor, f.Position))
}

// InsertAppEvent stores an event at the next position; the caller has locked the
// feed and moves it. Its seq is the worker's.
func (db *DB) InsertAppEvent(ctx context.Context, position int64, ownerID string, e previewd.Event) error {
	data, err := json.Marshal(e.Data)
	if err != nil {
		return err
	}
	_, err = db.exec(ctx, `
		INSERT INTO gateway_events (position, project_id, seq, owner_id, type, build_id, data, request_id, at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		position, e.ProjectID, e.Seq, ownerID, string(e.Type), null(e.BuildID), string(data), e.RequestID, micros(e.At))
	return err
}

const appEventColumns = `position, project_id, seq, type, build_id, data, request_id, at,
	(SELECT generation FROM gateway_feed WHERE name = 'worker')`

func scanAppEvent(r rows) (e previewd.Event, err error) {
	var build *string
	var data string
	var position, at, generation int64
	if err := r.Scan(&position, &e.ProjectID, &e.Seq, (*string)(&e.Type), &build, &data, &e.RequestID, &at, &generation); err != nil {
		return e, err
	}
	e.BuildID, e.At = text(build), timeOf(&at)
	e.ID = previewd.Cursor{Generation: generation, Position: e.Seq}.String()
	e.Cursor = previewd.Cursor{Generation: generation, Position: position}.String()
	return e, json.Unmarshal([]byte(data), &e.Data)
}

// ListAppProjectEvents returns a project's events after seq, in order.
func (db *DB) ListAppProjectEvents(ctx context.Context, projectID string, after int64, limit int) ([]previewd.Event, error) {
	return all(ctx, db, scanAppEvent, `SELECT `+appEventColumns+` FROM gateway_events WHERE project_id = $1 AND seq > $2 ORDER BY seq LIMIT $3`,
		projectID, after, limit)
}

// ListAppOwnerEvents returns an owner's events after a position, in order.
func (db *DB) ListAppOwnerEvents(ctx context.Context, ownerID string, after int64, limit int) ([]previewd.Event, error) {
	return all(ctx, db, scanAppEvent, `SELECT `+appEventColumns+` FROM gateway_events WHERE owner_id = $1 AND position > $2 ORDER BY position LIMIT $3`,
		ownerID, after, limit)
}

// LastAppProjectEvent returns the number of a project's last event, 0 for none.
func (db *DB) LastAppProjectEvent(ctx context.Context, projectID string) (seq int64, err error) {
	_, err = db.one(ctx, []any{&seq}, `SELECT COALESCE(MAX(seq), 0) FROM gateway_events WHERE project_id = $1`, projectID)
	return seq, err
}

// LastAppOwnerEvent returns the position of an owner's last event, 0 for none.
func (db *DB) LastAppOwnerEvent(ctx context.Context, ownerID string) (position int64, err error) {
	_, err = db.one(ctx, []any{&position}, `SELECT COALESCE(MAX(position), 0) FROM gateway_events WHERE owner_id = $1`, ownerID)
	return position, err
}

// ParkedEvent is an event that cannot be applied yet, or ever.
type ParkedEvent struct {
	previewd.Event
	Error    string
	Attempts int
}

// ParkEvent keeps an event for later, as one that waits since a moment; one that
// is kept already stays as it is.
func (db *DB) ParkEvent(ctx context.Context, e previewd.Event, since time.Time) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = db.exec(ctx, `INSERT INTO gateway_parked_events (project_id, seq, event, state, parked_at) VALUES ($1, $2, $3, 'parked', $4)
		ON CONFLICT (project_id, seq) DO NOTHING`, e.ProjectID, e.Seq, string(text), micros(since))
	return err
}

// PoisonEvent moves an event aside that cannot be applied.
func (db *DB) PoisonEvent(ctx context.Context, e previewd.Event, why string, attempts int) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = db.exec(ctx, `INSERT INTO gateway_parked_events (project_id, seq, event, state, error, attempts, parked_at)
		VALUES ($1, $2, $3, 'poison', $4, $5, $6)
		ON CONFLICT (project_id, seq) DO UPDATE SET state = 'poison', error = excluded.error, attempts = excluded.attempts`,
		e.ProjectID, e.Seq, string(text), why, attempts, micros(db.now))
	return err
}

func scanParked(r rows) (p ParkedEvent, err error) {
	var text string
	if err := r.Scan(&text, &p.Error, &p.Attempts); err != nil {
		return p, err
	}
	return p, json.Unmarshal([]byte(text), &p.Event)
}

const parkedColumns = `event, error, attempts`

// ListParked returns a project's parked events, in order.
func (db *DB) ListParked(ctx context.Context, projectID string) ([]ParkedEvent, error) {
	return all(ctx, db, scanParked, `SELECT `+parkedColumns+` FROM gateway_parked_events WHERE project_id = $1 AND state = 'parked' ORDER BY seq`, projectID)
}

// ListParkedProjects returns projects with parked events that are stored now,
// or whose first event was parked before a moment.
func (db *DB) ListParkedProjects(ctx context.Context, before time.Time, limit int) (ids []string, err error) {
	return all(ctx, db, func(r rows) (id string, err error) {
		err = r.Scan(&id)
		return id, err
	}, `SELECT e.project_id FROM gateway_parked_events e LEFT JOIN gateway_projects p ON p.id = e.project_id
		WHERE e.state = 'parked' AND (p.id IS NOT NULL OR e.parked_at < $1)
		GROUP BY e.project_id ORDER BY MAX(e.parked_at) LIMIT $2`, micros(before), limit)
}

// CountParked returns how many events wait for their project, and how many are
// poison.
func (db *DB) CountParked(ctx context.Context) (parked, poison int, err error) {
	_, err = db.one(ctx, []any{&parked, &poison}, `SELECT COUNT(CASE state WHEN 'parked' THEN 1 END), COUNT(CASE state WHEN 'poison' THEN 1 END)
		FROM gateway_parked_events`)
	return parked, poison, err
}

// ForgetParked removes a project's parked events.
func (db *DB) ForgetParked(ctx context.Context, projectID string) error {
	_, err := db.exec(ctx, `DELETE FROM gateway_parked_events WHERE project_id = $1 AND state = 'parked'`, projectID)
	return err
}

// ListPoison returns events that could not be applied.
func (db *DB) ListPoison(ctx context.Context, limit int) ([]ParkedEvent, error) {
	return all(ctx, db, scanParked, `SELECT `+parkedColumns+` FROM gateway_parked_events WHERE state = 'poison' ORDER BY project_id, seq LIMIT $1`, limit)
}

// RetryPoison makes a project's events that could not be applied parked ones.
func (db *DB) RetryPoison(ctx context.Context, projectID string) error {
	_, err := db.exec(ctx, `UPDATE gateway_parked_events SET state = 'parked', error = '' WHERE project_id = $1 AND state = 'poison'`, projectID)
	return err
}

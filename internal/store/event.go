package store

import (
	"context"
	"encoding/json"

	"github.com/previewd/previewd"
)

// AppendEvents gives the events the next numbers of their project and stores
// them. It must run in the transaction that makes the change they tell of.
func (db *DB) AppendEvents(ctx context.Context, projectID string, events ...previewd.Event) error {
	var last int64
	found, err := db.one(ctx, []any{&last}, `
		UPDATE worker_projects SET last_event_seq = last_event_seq + $2 WHERE id = $1 RETURNING last_event_seq`,
		projectID, len(events))
	if err != nil {
		return err
	}
	if !found {
		return previewd.NotFound("project", projectID)
	}
	for i, e := range events {
		e.ProjectID, e.Seq = projectID, last-int64(len(events)-1-i)
		if err := db.insertEvent(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) insertEvent(ctx context.Context, e previewd.Event) error {
	data, err := json.Marshal(e.Data)
	if err != nil {
		return err
	}
	_, err = db.exec(ctx, `
		INSERT INTO worker_events (project_id, seq, type, build_id, build_epoch, data, request_id, at, feed_pos)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		e.ProjectID, e.Seq, string(e.Type), null(e.BuildID), e.Epoch, string(data), e.RequestID, micros(db.now), earlyPosition())
	return err
}

const eventColumns = `
	seq, type, project_id, build_id, build_epoch, data, request_id, at, COALESCE(feed_pos, 0),
	(SELECT generation FROM worker_feed WHERE name = 'worker')`

func scanEvent(r rows) (previewd.Event, error) {
	var e previewd.Event
	var build *string
	var data string
	var at, position, generation int64
	err := r.Scan(&e.Seq, (*string)(&e.Type), &e.ProjectID, &build, &e.Epoch, &data, &e.RequestID, &at, &position, &generation)
	if err != nil {
		return e, err
	}
	e.BuildID, e.At = text(build), timeOf(&at)
	e.ID = previewd.Cursor{Generation: generation, Position: e.Seq}.String()
	if position > 0 {
		e.Cursor = previewd.Cursor{Generation: generation, Position: position}.String()
	}
	return e, json.Unmarshal([]byte(data), &e.Data)
}

// scanProjectEvent leaves out the place in the feed, which comes a moment after
// the event: the same event is told in the same words each time.
func scanProjectEvent(r rows) (previewd.Event, error) {
	e, err := scanEvent(r)
	e.Cursor = ""
	return e, err
}

// ListBuildEvents returns a build's events after seq, in order.
func (db *DB) ListBuildEvents(ctx context.Context, buildID string, after int64, limit int) ([]previewd.Event, error) {
	return all(ctx, db, scanProjectEvent, `
		SELECT `+eventColumns+` FROM worker_events WHERE build_id = $1 AND seq > $2 ORDER BY seq LIMIT $3`,
		buildID, after, limit)
}

// ListProjectEvents returns a project's events after seq, in order.
func (db *DB) ListProjectEvents(ctx context.Context, projectID string, after int64, limit int) ([]previewd.Event, error) {
	return all(ctx, db, scanProjectEvent, `
		SELECT `+eventColumns+` FROM worker_events WHERE project_id = $1 AND seq > $2 ORDER BY seq LIMIT $3`,
		projectID, after, limit)
}

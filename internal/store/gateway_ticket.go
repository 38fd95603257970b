package store

import (
	"context"
	"time"

	"github.com/previewd/previewd"
)

// InsertStreamTicket stores a ticket, of which only the sha256 is known here, and
// drops some that nobody has used in time.
func (db *DB) InsertStreamTicket(ctx context.Context, hash string, u previewd.User, until time.Time) error {
	_, err := db.exec(ctx, `DELETE FROM gateway_stream_tickets WHERE hash IN (
		SELECT hash FROM gateway_stream_tickets WHERE expires_at < $1 ORDER BY expires_at LIMIT 10)`, micros(db.now))
	if err != nil {
		return err
	}
	_, err = db.exec(ctx, `INSERT INTO gateway_stream_tickets (hash, user_id, session_id, token_expires_at, expires_at) VALUES ($1, $2, $3, $4, $5)`,
		hash, u.ID, u.SessionID, micros(u.Expires), micros(until))
	return err
}

// TakeStreamTicket returns whose a ticket is, and takes it: nil when there is no
// such ticket, or its time is over.
func (db *DB) TakeStreamTicket(ctx context.Context, hash string) (*previewd.User, error) {
	u := new(previewd.User)
	var token *int64
	var until int64
	found, err := db.one(ctx, []any{&u.ID, &u.SessionID, &token, &until}, `
		DELETE FROM gateway_stream_tickets WHERE hash = $1 RETURNING user_id, session_id, token_expires_at, expires_at`, hash)
	if err != nil || !found || timeOf(&until).Before(db.now) {
		return nil, err
	}
	u.Expires = timeOf(token)
	return u, nil
}

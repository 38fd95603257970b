package store

import (
	"context"
	"strings"
	"time"

	"github.com/previewd/previewd"
)

// InsertToken stores a service token with the sha256 of its secret.
func (db *DB) InsertToken(ctx context.Context, t *previewd.Token, hash previewd.Digest) error {
	_, err := db.exec(ctx, `
		INSERT INTO worker_tokens (id, name, secret_hash, principal, service, scopes, legacy_ids, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		t.ID, t.Name, string(hash), t.Principal, t.Service, t.Scopes.String(), number01(t.LegacyIDs), micros(t.CreatedAt), microsPtr(t.ExpiresAt))
	return err
}

const tokenColumns = `id, name, principal, service, scopes, legacy_ids, created_at, last_used_at, expires_at, revoked_at`

func scanToken(r rows) (*previewd.Token, error) {
	t := new(previewd.Token)
	var scopes string
	var legacy, created int64
	var used, expires, revoked *int64
	err := r.Scan(&t.ID, &t.Name, &t.Principal, &t.Service, &scopes, &legacy, &created, &used, &expires, &revoked)
	for scope := range strings.FieldsSeq(scopes) {
		t.Scopes = append(t.Scopes, previewd.Scope(scope))
	}
	t.LegacyIDs, t.CreatedAt = legacy == 1, timeOf(&created)
	t.LastUsedAt, t.ExpiresAt, t.RevokedAt = timePtr(used), timePtr(expires), timePtr(revoked)
	return t, err
}

// FindToken returns the token of a secret with this sha256, whatever became of
// it, or nil.
func (db *DB) FindToken(ctx context.Context, hash previewd.Digest) (*previewd.Token, error) {
	return db.findToken(ctx, `secret_hash = $1`, string(hash))
}

// FindTokenByName returns the token of this id, or the one of this name that is
// not revoked, or nil.
func (db *DB) FindTokenByName(ctx context.Context, idOrName string) (*previewd.Token, error) {
	t, err := db.findToken(ctx, `id = $1`, idOrName)
	if err != nil || t != nil {
		return t, err
	}
	return db.findToken(ctx, `name = $1 AND revoked_at IS NULL`, idOrName)
}

func (db *DB) findToken(ctx context.Context, where string, args ...any) (*previewd.Token, error) {
	list, err := all(ctx, db, scanToken, `SELECT `+tokenColumns+` FROM worker_tokens WHERE `+where, args...)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// ListTokens returns all tokens, the oldest first.
func (db *DB) ListTokens(ctx context.Context) ([]*previewd.Token, error) {
	return all(ctx, db, scanToken, `SELECT `+tokenColumns+` FROM worker_tokens ORDER BY created_at, id`)
}

// RevokeToken ends a token that is not revoked yet.
func (db *DB) RevokeToken(ctx context.Context, id string) error {
	return changedOne(db.exec(ctx, `UPDATE worker_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL`, id, micros(db.now)))
}

// TouchToken notes that a token was used, unless that was noted less than a
// pause before.
func (db *DB) TouchToken(ctx context.Context, id string, at time.Time, pause time.Duration) error {
	_, err := db.exec(ctx, `UPDATE worker_tokens SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at <= $3)`,
		id, micros(at), micros(at.Add(-pause)))
	return err
}

package store

import (
	"context"
	"database/sql"
	"time"
)

// Key is a claimed idempotency key and the answer that it got.
type Key struct {
	Principal   string
	Key         string
	Operation   string // method and route: a key is good for one operation
	Fingerprint string // of the whole request
	Status      int
	Body        []byte // nil once it was pruned
	ResourceID  string // "" when the request was refused
	RequestID   string
	Ahead       int       // part of the answer: builds that waited before the new one
	ETA         time.Time // part of the answer; zero when it had none
	CreatedAt   time.Time
}

// FingerprintVersion is raised when the way to compute fingerprints changes,
// so that live keys do not turn into mismatches.
const FingerprintVersion = 1

// InsertKey claims a key for the transaction and stores its answer, which is
// known beforehand: ids are made here. It returns nil when the key was free,
// else what is stored under it. It must be the first write of its transaction:
// on an engine with concurrent writers an equal request waits here.
func (db *DB) InsertKey(ctx context.Context, k Key) (*Key, error) {
	n, err := db.exec(ctx, `
		INSERT INTO worker_idempotency_keys
			(principal, key, operation, fp_version, fingerprint, state, status, body, resource_id, request_id, created_at,
			queue_ahead, eta_at)
		VALUES ($1, $2, $3, $4, $5, 'done', $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (principal, key) DO NOTHING`,
		k.Principal, k.Key, k.Operation, FingerprintVersion, k.Fingerprint, k.Status, k.Body, null(k.ResourceID), k.RequestID,
		micros(db.now), k.Ahead, micros(k.ETA))
	if err != nil || n == 1 {
		return nil, err
	}
	return db.FindKey(ctx, k.Principal, k.Key)
}

// AnswerKey replaces the answer of a key that this transaction has claimed, by
// a refusal: it names no resource.
func (db *DB) AnswerKey(ctx context.Context, k Key) error {
	return changedOne(db.exec(ctx, `
		UPDATE worker_idempotency_keys SET status = $3, body = $4, resource_id = NULL WHERE principal = $1 AND key = $2`,
		k.Principal, k.Key, k.Status, k.Body))
}

// FindKey returns what is stored under a key, or nil.
func (db *DB) FindKey(ctx context.Context, principal, key string) (*Key, error) {
	k := Key{Principal: principal, Key: key}
	var resource sql.NullString
	var ahead sql.NullInt64
	var eta, created *int64
	found, err := db.one(ctx, []any{&k.Operation, &k.Fingerprint, &k.Status, &k.Body, &resource, &k.RequestID, &ahead, &eta, &created}, `
		SELECT operation, fingerprint, status, body, resource_id, request_id, queue_ahead, eta_at, created_at
		FROM worker_idempotency_keys WHERE principal = $1 AND key = $2`, principal, key)
	if err != nil || !found {
		return nil, err
	}
	k.ResourceID, k.Ahead, k.ETA, k.CreatedAt = resource.String, int(ahead.Int64), timeOf(eta), timeOf(created)
	return &k, nil
}

// KeyRetention says how long keys and their answers are kept.
type KeyRetention struct {
	Body time.Duration
	Row  time.Duration
}

// PruneKeys drops answers, and then whole keys, that are older than they are
// kept, and windows that have closed. It returns how many rows it touched, at
// most limit of each kind. The project itself remembers its key for ever.
func (db *DB) PruneKeys(ctx context.Context, keep KeyRetention, limit int) (touched int64, err error) {
	now := db.now
	for _, step := range []struct {
		query string
		args  []any
	}{
		{`UPDATE worker_idempotency_keys SET body = NULL, body_pruned_at = $2 WHERE (principal, key) IN (
			SELECT principal, key FROM worker_idempotency_keys WHERE created_at < $1 AND body_pruned_at IS NULL
			ORDER BY created_at LIMIT $3)`, []any{micros(now.Add(-keep.Body)), micros(now), limit}},
		{`DELETE FROM worker_idempotency_keys WHERE (principal, key) IN (
			SELECT principal, key FROM worker_idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2)`,
			[]any{micros(now.Add(-keep.Row)), limit}},
		{`DELETE FROM worker_create_guard WHERE (owner_id, fingerprint) IN (
			SELECT owner_id, fingerprint FROM worker_create_guard WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`,
			[]any{micros(now), limit}},
	} {
		n, err := db.exec(ctx, step.query, step.args...)
		if err != nil {
			return touched, err
		}
		touched += n
	}
	return touched, nil
}

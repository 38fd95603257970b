package store

import (
	"context"
	"database/sql"
)

// Key is a claimed idempotency key and the answer that it got.
type Key struct {
	Principal   string
	Key         string
	Operation   string // method and route: a key is good for one operation
	Fingerprint string // of the whole request
	Status      int
	Body        []byte
	ResourceID  string
	RequestID   string
}

// FingerprintVersion is raised when the way to compute fingerprints changes,
// so that live keys do not turn into mismatches.
const FingerprintVersion = 1

// InsertKey claims a key for the transaction and stores its answer, which is
// known beforehand: ids are made here. It returns nil when the key was free,
// else what is stored under it. It must be the first statement of its
// transaction: on an engine with concurrent writers an equal request waits here.
func (db *DB) InsertKey(ctx context.Context, k Key) (*Key, error) {
	n, err := db.exec(ctx, `
		INSERT INTO worker_idempotency_keys
			(principal, key, operation, fp_version, fingerprint, state, status, body, resource_id, request_id, created_at)
		VALUES ($1, $2, $3, $4, $5, 'done', $6, $7, $8, $9, $10)
		ON CONFLICT (principal, key) DO NOTHING`,
		k.Principal, k.Key, k.Operation, FingerprintVersion, k.Fingerprint, k.Status, k.Body, k.ResourceID, k.RequestID, micros(db.now))
	if err != nil || n == 1 {
		return nil, err
	}
	return db.FindKey(ctx, k.Principal, k.Key)
}

// FindKey returns what is stored under a key, or nil.
func (db *DB) FindKey(ctx context.Context, principal, key string) (*Key, error) {
	k := Key{Principal: principal, Key: key}
	var resource sql.NullString
	found, err := db.one(ctx, []any{&k.Operation, &k.Fingerprint, &k.Status, &k.Body, &resource, &k.RequestID}, `
		SELECT operation, fingerprint, status, body, resource_id, request_id
		FROM worker_idempotency_keys WHERE principal = $1 AND key = $2`, principal, key)
	if err != nil || !found {
		return nil, err
	}
	k.ResourceID = resource.String
	return &k, nil
}

package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// Intent is an intent's row.
type Intent struct {
	previewd.Intent
	UserID      string
	ClientKey   string // the user's Idempotency-Key, or none:<id>
	Fingerprint string
	WorkerKey   string
	Body        []byte // the stored answer; nil when there is none, or when it was pruned
	BodyPruned  bool
	ClaimedBy   string
	ClaimUntil  time.Time
	DeadlineAt  time.Time
	RequestID   string
	Request     []byte // what to ask the worker for; of an intent that was just stored
}

const intentColumns = `id, operation, state, name, project_id, build_id, cancel_requested, attempts, next_attempt_at, last_error,
	reference_id, created_at, updated_at, user_id, client_key, fingerprint, worker_key, body, body_pruned_at,
	claimed_by, claim_until, deadline_at, request_id`

func scanIntent(r rows) (*Intent, error) {
	in := new(Intent)
	var project, build sql.NullString
	var cancel int
	var next, created, updated, until, deadline int64
	var pruned *int64
	err := r.Scan(&in.ID, &in.Operation, (*string)(&in.State), &in.Name, &project, &build, &cancel, &in.Attempts, &next,
		(*string)(&in.LastError), &in.ReferenceID, &created, &updated, &in.UserID, &in.ClientKey, &in.Fingerprint, &in.WorkerKey,
		&in.Body, &pruned, &in.ClaimedBy, &until, &deadline, &in.RequestID)
	in.ProjectID, in.BuildID, in.CancelRequested, in.BodyPruned = project.String, build.String, cancel == 1, pruned != nil
	in.CreatedAt, in.UpdatedAt, in.ClaimUntil, in.DeadlineAt = timeOf(&created), timeOf(&updated), timeOf(&until), timeOf(&deadline)
	if in.State == previewd.IntentPending || in.State == previewd.IntentAttention {
		in.NextAttemptAt = timePtr(&next)
	}
	return in, err
}

// findIntent returns an intent, or nil.
func (db *DB) findIntent(ctx context.Context, where string, args ...any) (*Intent, error) {
	list, err := all(ctx, db, scanIntent, `SELECT `+intentColumns+` FROM gateway_intents WHERE `+where, args...)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// findIntentByID is findIntent that returns CodeNotFound.
func (db *DB) findIntentByID(ctx context.Context, id, where string, args ...any) (*Intent, error) {
	if !previewd.IsID(id) {
		return nil, previewd.NotFound("intent", id)
	}
	in, err := db.findIntent(ctx, where, args...)
	if err == nil && in == nil {
		err = previewd.NotFound("intent", id)
	}
	return in, err
}

// InsertIntent stores a new intent. When the user's key is taken it stores
// nothing and returns the intent that has it: with an engine of concurrent
// writers an equal request waits here. Of its transaction only OpenIntentWindow
// comes before.
func (db *DB) InsertIntent(ctx context.Context, in *Intent) (taken *Intent, err error) {
	n, err := db.exec(ctx, `
		INSERT INTO gateway_intents (id, user_id, client_key, operation, fp_version, fingerprint, worker_key, state, name,
			project_id, body, next_attempt_at, claimed_by, claim_until, deadline_at, last_error, reference_id,
			request_id, created_at, updated_at, attempts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $19, $20)
		ON CONFLICT (user_id, client_key) DO NOTHING`,
		in.ID, in.UserID, in.ClientKey, in.Operation, FingerprintVersion, in.Fingerprint, in.WorkerKey, string(in.State), in.Name,
		null(in.ProjectID), in.Body, micros(db.now), in.ClaimedBy, in.ClaimUntil.UnixMicro(), micros(in.DeadlineAt),
		string(in.LastError), in.ReferenceID, in.RequestID, micros(db.now), in.Attempts)
	if err != nil || n == 1 {
		return nil, err
	}
	if taken, err = db.findIntent(ctx, `user_id = $1 AND client_key = $2`, in.UserID, in.ClientKey); err == nil && taken == nil {
		// It has come to nothing this moment.
		err = &previewd.Error{Code: previewd.CodeUnavailable, Message: "An equal request has just ended; try again.", RetryAfter: time.Second}
	}
	return taken, err
}

// OpenIntentWindow makes the intent the one of its user and fingerprint for as
// long as the window, or returns the id of the one that is.
func (db *DB) OpenIntentWindow(ctx context.Context, in *Intent, window time.Duration) (other string, err error) {
	n, err := db.exec(ctx, `
		INSERT INTO gateway_create_guard (user_id, fingerprint, intent_id, expires_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (user_id, fingerprint) DO UPDATE SET intent_id = excluded.intent_id, expires_at = excluded.expires_at
		WHERE gateway_create_guard.expires_at <= $5`,
		in.UserID, in.Fingerprint, in.ID, micros(db.now.Add(window)), micros(db.now))
	if err != nil || n == 1 {
		return "", err
	}
	_, err = db.one(ctx, []any{&other}, `SELECT intent_id FROM gateway_create_guard WHERE user_id = $1 AND fingerprint = $2`,
		in.UserID, in.Fingerprint)
	return other, err
}

// CloseIntentWindow ends the window in which an intent answers equal requests.
func (db *DB) CloseIntentWindow(ctx context.Context, id string) error {
	_, err := db.exec(ctx, `DELETE FROM gateway_create_guard WHERE intent_id = $1`, id)
	return err
}

// InsertIntentRequest keeps what to ask the worker for.
func (db *DB) InsertIntentRequest(ctx context.Context, id string, body []byte) error {
	_, err := db.exec(ctx, `INSERT INTO gateway_intent_requests (intent_id, body) VALUES ($1, $2)`, id, body)
	return err
}

// FindIntentRequest returns what to ask the worker for, nil when that is over.
func (db *DB) FindIntentRequest(ctx context.Context, id string) (body []byte, err error) {
	_, err = db.one(ctx, []any{&body}, `SELECT body FROM gateway_intent_requests WHERE intent_id = $1`, id)
	return body, err
}

// LockUser keeps others from counting what the user may do until the
// transaction ends.
func (db *DB) LockUser(ctx context.Context, userID string) error {
	_, err := db.exec(ctx, `INSERT INTO gateway_users (user_id, created_at, seen_at) VALUES ($1, $2, $2)
		ON CONFLICT (user_id) DO UPDATE SET seen_at = excluded.seen_at`, userID, micros(db.now))
	return err
}

// FindIntent returns a user's intent; "" is any user. It returns CodeNotFound
// when there is no such intent.
func (db *DB) FindIntent(ctx context.Context, userID, id string) (*Intent, error) {
	return db.findIntentByID(ctx, id, `id = $1 AND ($2 = '' OR user_id = $2)`, id, userID)
}

// FindIntentByWorkerKey returns the intent that asks the worker with a key, or nil.
func (db *DB) FindIntentByWorkerKey(ctx context.Context, key string) (*Intent, error) {
	return db.findIntent(ctx, `worker_key = $1`, key)
}

// LockIntentByWorkerKey is FindIntentByWorkerKey for an intent that nobody else
// changes until the transaction ends.
func (db *DB) LockIntentByWorkerKey(ctx context.Context, key string) (*Intent, error) {
	return db.findIntent(ctx, `worker_key = $1`+db.engine.locking(lockRow), key)
}

// LockIntent returns an intent that nobody else changes until the transaction
// ends. It returns CodeNotFound.
func (db *DB) LockIntent(ctx context.Context, id string) (*Intent, error) {
	return db.findIntentByID(ctx, id, `id = $1`+db.engine.locking(lockRow), id)
}

// Claim is the time that one process has to work on an intent.
type Claim struct {
	Holder string
	For    time.Duration
}

// ClaimIntents gives intents that are due to the holder, oldest first; those that
// need attention come last. Each state has an index of its own.
func (db *DB) ClaimIntents(ctx context.Context, c Claim, limit int) (list []*Intent, err error) {
	for _, state := range []string{`'pending'`, `'attention'`} {
		found, err := db.claimIntents(ctx, c, `state = `+state+` AND next_attempt_at <= $1 AND claim_until <= $1
			ORDER BY next_attempt_at LIMIT $2`+db.engine.locking(skipLockedRow), micros(db.now), limit-len(list))
		if list = append(list, found...); err != nil || len(list) == limit {
			return list, err
		}
	}
	return list, nil
}

// ReleaseClaims gives back what a holder has claimed.
func (db *DB) ReleaseClaims(ctx context.Context, holder string) error {
	_, err := db.exec(ctx, `UPDATE gateway_intents SET claim_until = 0 WHERE state = 'pending' AND claimed_by = $1 AND claim_until > 0`, holder)
	return err
}

// HastenPostponed makes intents due now that wait because the worker was away,
// and returns how many.
func (db *DB) HastenPostponed(ctx context.Context) (int64, error) {
	return db.exec(ctx, `UPDATE gateway_intents SET next_attempt_at = $1 WHERE state = 'pending' AND next_attempt_at > $1 AND last_error = $2`,
		micros(db.now), string(previewd.CodeUnavailable))
}

// ClaimIntent gives a pending intent to the holder unless somebody else has it;
// then it returns nil.
func (db *DB) ClaimIntent(ctx context.Context, c Claim, id string) (*Intent, error) {
	guard := `claim_until <= $1`
	if fault.Off(fault.IntentClaim) {
		guard = `$1 > 0`
	}
	list, err := db.claimIntents(ctx, c, `state = 'pending' AND `+guard+` AND id = $2`+db.engine.locking(skipLockedRow), micros(db.now), id)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

func (db *DB) claimIntents(ctx context.Context, c Claim, where string, args ...any) ([]*Intent, error) {
	list, err := all(ctx, db, scanIntent, `SELECT `+intentColumns+` FROM gateway_intents WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	for _, in := range list {
		in.ClaimedBy, in.ClaimUntil, in.Attempts = c.Holder, db.now.Add(c.For), in.Attempts+1
		_, err := db.exec(ctx, `UPDATE gateway_intents SET claimed_by = $2, claim_until = $3, attempts = $4 WHERE id = $1`,
			in.ID, in.ClaimedBy, in.ClaimUntil.UnixMicro(), in.Attempts)
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// RenewClaim prolongs a claim that the holder still has.
func (db *DB) RenewClaim(ctx context.Context, c Claim, id string) error {
	_, err := db.exec(ctx, `UPDATE gateway_intents SET claim_until = $3 WHERE id = $1 AND claimed_by = $2 AND state IN ('pending', 'attention')`,
		id, c.Holder, db.now.Add(c.For).UnixMicro())
	return err
}

// PostponeIntent gives a claim back: the next attempt is due at a moment.
func (db *DB) PostponeIntent(ctx context.Context, in *Intent, next time.Time) error {
	_, err := db.exec(ctx, `
		UPDATE gateway_intents SET state = $3, next_attempt_at = $4, claimed_by = '', claim_until = 0, last_error = $5, updated_at = $6
		WHERE id = $1 AND claimed_by = $2 AND state IN ('pending', 'attention')`,
		in.ID, in.ClaimedBy, string(in.State), micros(next), string(in.LastError), micros(db.now))
	return err
}

// HastenIntent makes a pending intent due now.
func (db *DB) HastenIntent(ctx context.Context, id string) error {
	_, err := db.exec(ctx, `UPDATE gateway_intents SET next_attempt_at = $2 WHERE id = $1 AND state IN ('pending', 'attention')`, id, micros(db.now))
	return err
}

// ReviveIntent makes an open intent one that is asked for again, at once and
// until a new deadline. Who had claimed it has lost it.
func (db *DB) ReviveIntent(ctx context.Context, id string, deadline time.Time) error {
	return changedOne(db.exec(ctx, `
		UPDATE gateway_intents SET state = 'pending', next_attempt_at = $2, deadline_at = $3, updated_at = $2, claimed_by = '', claim_until = 0
		WHERE id = $1 AND state IN ('pending', 'attention')`, id, micros(db.now), micros(deadline)))
}

// RequestCancel marks a pending intent as one that its user has taken back.
func (db *DB) RequestCancel(ctx context.Context, id string) error {
	err := changedOne(db.exec(ctx, `
		UPDATE gateway_intents SET cancel_requested = 1, next_attempt_at = $2, updated_at = $2
		WHERE id = $1 AND state IN ('pending', 'attention')`, id, micros(db.now)))
	if err != nil {
		return err
	}
	return db.CloseIntentWindow(ctx, id) // the same request again means another project
}

// NameIntent stores the name that was found for an intent's project.
func (db *DB) NameIntent(ctx context.Context, id, name string) error {
	return changedOne(db.exec(ctx, `UPDATE gateway_intents SET name = $2 WHERE id = $1`, id, name))
}

// EndIntent stores an intent's end: its state, ids and answer. What there was to
// ask for is forgotten. It returns CodeConflict when the intent had ended before.
func (db *DB) EndIntent(ctx context.Context, in *Intent) error {
	err := changedOne(db.exec(ctx, `
		UPDATE gateway_intents SET state = $2, name = $3, project_id = $4, build_id = $5, body = $6, last_error = $7,
			claim_until = 0, updated_at = $8
		WHERE id = $1 AND state IN ('pending', 'attention')`,
		in.ID, string(in.State), in.Name, null(in.ProjectID), null(in.BuildID), in.Body, string(in.LastError), micros(db.now)))
	if err != nil {
		return err
	}
	_, err = db.exec(ctx, `DELETE FROM gateway_intent_requests WHERE intent_id = $1`, in.ID)
	return err
}

// DeleteIntent forgets an intent that came to nothing: the same request would
// fail in the same way.
func (db *DB) DeleteIntent(ctx context.Context, id string) error {
	for _, query := range []string{
		`DELETE FROM gateway_intent_requests WHERE intent_id = $1`,
		`DELETE FROM gateway_create_guard WHERE intent_id = $1`,
		`DELETE FROM gateway_names WHERE intent_id = $1`,
		`DELETE FROM gateway_intents WHERE id = $1 AND state IN ('pending', 'attention')`,
	} {
		if _, err := db.exec(ctx, query, id); err != nil {
			return err
		}
	}
	return nil
}

// ListIntents returns intents in a state whose id is below the cursor, newest
// first.
func (db *DB) ListIntents(ctx context.Context, state previewd.IntentState, below string, limit int) ([]*Intent, error) {
	return all(ctx, db, scanIntent, `SELECT `+intentColumns+` FROM gateway_intents WHERE state = $1 AND id < $2 ORDER BY id DESC LIMIT $3`,
		string(state), below, limit)
}

// PruneIntents drops stored answers that are older than keep.Body, intents that
// came to nothing and are older than keep.Row, and windows that have closed. It
// returns how many rows it touched, at most limit of each kind.
func (db *DB) PruneIntents(ctx context.Context, keep KeyRetention, limit int) (touched int64, err error) {
	now := db.now
	for _, step := range []struct {
		query string
		args  []any
	}{
		{`DELETE FROM gateway_create_guard WHERE (user_id, fingerprint) IN (
			SELECT user_id, fingerprint FROM gateway_create_guard WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)`, []any{micros(now), limit}},
		{`UPDATE gateway_intents SET body = NULL, body_pruned_at = $2 WHERE id IN (
			SELECT id FROM gateway_intents WHERE created_at < $1 AND body IS NOT NULL AND state IN ('confirmed', 'rejected')
			ORDER BY created_at LIMIT $3)`, []any{micros(now.Add(-keep.Body)), micros(now), limit}},
		{`DELETE FROM gateway_intents WHERE id IN (
			SELECT id FROM gateway_intents WHERE created_at < $1 AND state IN ('rejected', 'canceled') ORDER BY created_at LIMIT $2)`,
			[]any{micros(now.Add(-keep.Row)), limit}},
	} {
		n, err := db.exec(ctx, step.query, step.args...)
		if err != nil {
			return touched, err
		}
		touched += n
	}
	return touched, nil
}

// ReserveName gives a user's name to an intent; false when another has it.
func (db *DB) ReserveName(ctx context.Context, userID, folded, intentID string) (bool, error) {
	n, err := db.exec(ctx, `INSERT INTO gateway_names (user_id, name, intent_id) VALUES ($1, $2, $3) ON CONFLICT (user_id, name) DO NOTHING`,
		userID, folded, intentID)
	return n == 1, err
}

// ListNames returns a user's names that begin with a prefix, folded.
func (db *DB) ListNames(ctx context.Context, userID, prefix string, limit int) ([]string, error) {
	return all(ctx, db, func(r rows) (name string, err error) {
		err = r.Scan(&name)
		return name, err
	}, `SELECT name FROM gateway_names WHERE user_id = $1 AND name >= $2 AND name < $3 ORDER BY name LIMIT $4`,
		userID, prefix, prefix+"\U0010FFFF", limit)
}

// ReleaseName frees an intent's name.
func (db *DB) ReleaseName(ctx context.Context, intentID string) error {
	_, err := db.exec(ctx, `DELETE FROM gateway_names WHERE intent_id = $1`, intentID)
	return err
}

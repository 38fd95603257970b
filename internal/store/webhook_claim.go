package store

import (
	"context"
	"time"

	"github.com/previewd/previewd"
)

// WebhookClaim is a delivery that its holder may attempt until the lease is over.
type WebhookClaim struct {
	ID        string
	WebhookID string
	Type      string
	Payload   []byte
	Attempt   int // counts claims: a claim that is lost writes nothing
	Holder    string
	Endpoint  *WebhookEndpoint
}

// WebhookClaims says how many deliveries to claim.
type WebhookClaims struct {
	Holder      string
	Lease       time.Duration
	Limit       int // of all
	PerEndpoint int // of one endpoint, with those that are held already
}

// HasPendingWebhooks reports whether any delivery is not over, due or not.
func (db *DB) HasPendingWebhooks(ctx context.Context) (bool, error) {
	var one int
	return db.one(ctx, []any{&one}, `SELECT 1 FROM gateway_webhook_deliveries WHERE state = 'pending' LIMIT 1`)
}

// ClaimWebhooks claims deliveries that are due and that nobody holds: at most
// PerEndpoint of one endpoint, the endpoint first that has waited longest.
func (db *DB) ClaimWebhooks(ctx context.Context, c WebhookClaims) (claims []WebhookClaim, err error) {
	due, err := db.listDueEndpoints(ctx, c.PerEndpoint, c.Limit)
	if err != nil {
		return nil, err
	}
	for _, id := range due {
		if len(claims) >= c.Limit {
			break
		}
		some, err := db.claimOfEndpoint(ctx, c, id, c.Limit-len(claims))
		if err != nil {
			return nil, err
		}
		claims = append(claims, some...)
	}
	return claims, nil
}

// listDueEndpoints returns endpoints with something due of which fewer than
// perEndpoint are held. It jumps through the index from endpoint to endpoint: what
// it costs does not depend on how much waits for each.
func (db *DB) listDueEndpoints(ctx context.Context, perEndpoint, limit int) ([]string, error) {
	return all(ctx, db, func(r rows) (id string, err error) { return id, r.Scan(&id) }, `
		WITH RECURSIVE waiting (id) AS (
			SELECT (SELECT d.endpoint_id FROM gateway_webhook_deliveries d WHERE d.state = 'pending'
				ORDER BY d.endpoint_id LIMIT 1)
			UNION ALL
			SELECT (SELECT d.endpoint_id FROM gateway_webhook_deliveries d WHERE d.state = 'pending' AND d.endpoint_id > w.id
				ORDER BY d.endpoint_id LIMIT 1)
			FROM waiting w WHERE w.id IS NOT NULL
		), due (id, first) AS (
			SELECT w.id, (SELECT d.next_attempt_at FROM gateway_webhook_deliveries d
				WHERE d.endpoint_id = w.id AND d.state = 'pending' AND d.next_attempt_at <= $1
				  AND (d.claimed_until IS NULL OR d.claimed_until <= $1)
				ORDER BY d.next_attempt_at, d.id LIMIT 1)
			FROM waiting w WHERE w.id IS NOT NULL
		)
		SELECT due.id FROM due WHERE due.first IS NOT NULL AND $2 > (
			SELECT COUNT(*) FROM gateway_webhook_deliveries d
			WHERE d.endpoint_id = due.id AND d.claimed_until > $1)
		ORDER BY due.first, due.id LIMIT $3`, micros(db.now), perEndpoint, limit)
}

func (db *DB) claimOfEndpoint(ctx context.Context, c WebhookClaims, id string, limit int) ([]WebhookClaim, error) {
	// Its row is locked, so that two who claim do not exceed what one endpoint
	// takes: the second passes on to others.
	list, err := all(ctx, db, scanEndpoint, `
		SELECT `+endpointColumns+` FROM gateway_webhook_endpoints e WHERE e.id = $1 AND e.state = 'active'`+
		db.engine.locking(claimEndpoint), id)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var held int
	if _, err := db.one(ctx, []any{&held}, `
		SELECT COUNT(*) FROM gateway_webhook_deliveries WHERE endpoint_id = $1 AND claimed_until > $2`,
		id, micros(db.now)); err != nil {
		return nil, err
	}
	if limit = min(limit, c.PerEndpoint-held); limit <= 0 {
		return nil, nil
	}
	return all(ctx, db, func(r rows) (WebhookClaim, error) {
		claim := WebhookClaim{Holder: c.Holder, Endpoint: list[0]}
		return claim, r.Scan(&claim.ID, &claim.WebhookID, &claim.Type, &claim.Payload, &claim.Attempt)
	}, `
		UPDATE gateway_webhook_deliveries SET attempts = attempts + 1, claimed_by = $3, claimed_until = $4
		WHERE id IN (
			SELECT id FROM gateway_webhook_deliveries
			WHERE endpoint_id = $1 AND state = 'pending' AND next_attempt_at <= $2 AND (claimed_until IS NULL OR claimed_until <= $2)
			ORDER BY next_attempt_at, id LIMIT $5)
		  AND state = 'pending' AND (claimed_until IS NULL OR claimed_until <= $2)
		RETURNING id, webhook_id, type, payload, attempts`,
		id, micros(db.now), c.Holder, micros(db.now.Add(c.Lease)), limit)
}

// WebhookOutcome is what becomes of a delivery after an attempt.
type WebhookOutcome struct {
	Status previewd.WebhookDeliveryStatus
	In     time.Duration // until the next attempt, of one that stays pending
}

// EndWebhookAttempt records an attempt and what becomes of the delivery, and ends
// the claim. It returns CodeLeaseLost, and records nothing, when the claim is not
// the holder's any more.
func (db *DB) EndWebhookAttempt(ctx context.Context, c *WebhookClaim, a previewd.WebhookAttempt, o WebhookOutcome) error {
	var next, ended any
	if o.Status == previewd.WebhookPending {
		next = micros(db.now.Add(o.In))
	} else {
		ended = micros(db.now)
	}
	n, err := db.exec(ctx, `
		UPDATE gateway_webhook_deliveries SET state = $4, next_attempt_at = $5, ended_at = $6, claimed_by = NULL,
			claimed_until = NULL, last_status = $7, last_error = $8
		WHERE id = $1 AND state = 'pending' AND claimed_by = $2 AND attempts = $3`,
		c.ID, c.Holder, c.Attempt, string(o.Status), next, ended, a.Status, a.Error)
	if err != nil {
		return err
	}
	if n != 1 {
		return &previewd.Error{Code: previewd.CodeLeaseLost, Message: "The delivery is another's, or over.", Details: c.ID}
	}
	_, err = db.exec(ctx, `
		INSERT INTO gateway_webhook_attempts (delivery_id, n, at, status, took, error, excerpt) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		c.ID, c.Attempt, micros(a.At), a.Status, a.Took.Microseconds(), a.Error, a.Excerpt)
	return err
}

// ReleaseWebhook gives a claim back, as if it had not been taken.
func (db *DB) ReleaseWebhook(ctx context.Context, c *WebhookClaim) error {
	_, err := db.exec(ctx, `
		UPDATE gateway_webhook_deliveries SET attempts = attempts - 1, claimed_by = NULL, claimed_until = NULL
		WHERE id = $1 AND state = 'pending' AND claimed_by = $2 AND attempts = $3`, c.ID, c.Holder, c.Attempt)
	return err
}

// PruneWebhooks deletes deliveries that have been over for longer than they are
// kept, drops those that were added while their endpoint was being disabled, and
// forgets secrets that sign no more. It returns how many rows it touched, at most
// limit of each kind.
func (db *DB) PruneWebhooks(ctx context.Context, limit int) (touched int64, err error) {
	now := db.now
	for _, step := range []struct {
		query string
		args  []any
	}{
		{`DELETE FROM gateway_webhook_deliveries WHERE id IN (
			SELECT id FROM gateway_webhook_deliveries WHERE state = 'delivered' AND ended_at < $1 ORDER BY ended_at LIMIT $2)`,
			[]any{micros(now.Add(-WebhookDeliveredRetention)), limit}},
		{`DELETE FROM gateway_webhook_deliveries WHERE id IN (
			SELECT id FROM gateway_webhook_deliveries WHERE state = 'failed' AND ended_at < $1 ORDER BY ended_at LIMIT $2)`,
			[]any{micros(now.Add(-WebhookFailedRetention)), limit}},
		{`DELETE FROM gateway_webhook_deliveries WHERE id IN (
			SELECT id FROM gateway_webhook_deliveries WHERE state = 'dropped' AND ended_at < $1 ORDER BY ended_at LIMIT $2)`,
			[]any{micros(now.Add(-WebhookFailedRetention)), limit}},
		{`UPDATE gateway_webhook_deliveries SET state = 'dropped', next_attempt_at = NULL, claimed_by = NULL,
			claimed_until = NULL, last_error = 'The endpoint is disabled.', ended_at = $1
		WHERE id IN (
			SELECT d.id FROM gateway_webhook_endpoints e JOIN gateway_webhook_deliveries d ON d.endpoint_id = e.id
			WHERE e.state = 'disabled' AND d.state = 'pending' LIMIT $2) AND state = 'pending'`,
			[]any{micros(now), limit}},
		{`UPDATE gateway_webhook_endpoints SET previous_secret = NULL, previous_until = NULL WHERE id IN (
			SELECT id FROM gateway_webhook_endpoints WHERE previous_until <= $1 LIMIT $2)`,
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

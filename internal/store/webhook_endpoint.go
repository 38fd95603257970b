package store

import (
	"context"
	"strings"
	"time"

	"github.com/previewd/previewd"
)

// MaxWebhookEndpoints is how many endpoints an owner can have; the table's slots
// hold it.
const MaxWebhookEndpoints = 20

// Operator owns the endpoints that are told of all users' events.
const Operator = ""

// WebhookEndpoint is an endpoint's whole row.
type WebhookEndpoint struct {
	previewd.WebhookEndpoint
	Secret         string
	PreviousSecret string // signs too until BothSignUntil; "" when there is none
}

// Secrets returns what signs at a moment, the current secret first.
func (e *WebhookEndpoint) Secrets(now time.Time) []string {
	if e.PreviousSecret != "" && e.BothSignUntil != nil && now.Before(*e.BothSignUntil) {
		return []string{e.Secret, e.PreviousSecret}
	}
	return []string{e.Secret}
}

// InsertWebhookEndpoint stores a new endpoint of its owner, which is active and
// was made now. It returns CodeConflict when the owner has too many.
func (db *DB) InsertWebhookEndpoint(ctx context.Context, e *WebhookEndpoint) error {
	e.Status, e.CreatedAt = previewd.WebhookActive, db.now
	used, err := all(ctx, db, func(r rows) (slot int, err error) { return slot, r.Scan(&slot) },
		`SELECT slot FROM gateway_webhook_endpoints WHERE owner_id = $1`, e.OwnerID)
	if err != nil {
		return err
	}
	taken := map[int]bool{}
	for _, slot := range used {
		taken[slot] = true
	}
	for slot := 1; slot <= MaxWebhookEndpoints; slot++ {
		if taken[slot] {
			continue
		}
		n, err := db.exec(ctx, `
			INSERT INTO gateway_webhook_endpoints (id, owner_id, slot, url, description, types, secret, state, created_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (owner_id, slot) DO NOTHING`,
			e.ID, e.OwnerID, slot, e.URL, e.Description, packTypes(e.Types), e.Secret, string(e.Status), micros(e.CreatedAt))
		if err != nil || n == 1 {
			return err
		}
	}
	return &previewd.Error{Code: previewd.CodeConflict, Message: "There are 20 webhook endpoints, which is the most: delete one first."}
}

// Types are kept as text that LIKE can look for one in.
func packTypes(types []string) string {
	if len(types) == 0 {
		return ""
	}
	return " " + strings.Join(types, " ") + " "
}

const endpointColumns = `
	e.id, e.owner_id, e.url, e.description, e.types, e.secret, e.previous_secret, e.previous_until,
	e.state, e.disabled_reason, e.failing_since, e.created_at`

func scanEndpoint(r rows) (*WebhookEndpoint, error) {
	e := new(WebhookEndpoint)
	var types string
	var previous *string
	var until, failing, created *int64
	err := r.Scan(&e.ID, &e.OwnerID, &e.URL, &e.Description, &types, &e.Secret, &previous, &until,
		(*string)(&e.Status), &e.DisabledReason, &failing, &created)
	if err != nil {
		return nil, err
	}
	e.Types = append([]string{}, strings.Fields(types)...)
	e.PreviousSecret, e.BothSignUntil = text(previous), timePtr(until)
	e.FailingSince, e.CreatedAt = timePtr(failing), timeOf(created)
	return e, nil
}

// FindWebhookEndpoint returns an owner's endpoint, and CodeNotFound when the owner
// has none of this id.
func (db *DB) FindWebhookEndpoint(ctx context.Context, ownerID, id string) (*WebhookEndpoint, error) {
	return db.findEndpoint(ctx, ownerID, id, "")
}

// LockWebhookEndpoint is FindWebhookEndpoint with the row locked: nobody else
// changes it, or claims its deliveries, before the transaction ends. Whoever
// changes deliveries too locks their endpoint first.
func (db *DB) LockWebhookEndpoint(ctx context.Context, ownerID, id string) (*WebhookEndpoint, error) {
	return db.findEndpoint(ctx, ownerID, id, db.engine.locking(lockEndpoint))
}

func (db *DB) findEndpoint(ctx context.Context, ownerID, id, locking string) (*WebhookEndpoint, error) {
	list, err := all(ctx, db, scanEndpoint, `
		SELECT `+endpointColumns+` FROM gateway_webhook_endpoints e WHERE e.id = $1 AND e.owner_id = $2`+locking, id, ownerID)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, previewd.NotFound("webhook endpoint", id)
	}
	return list[0], nil
}

// ListWebhookEndpoints returns an owner's endpoints, oldest first.
func (db *DB) ListWebhookEndpoints(ctx context.Context, ownerID string) ([]*WebhookEndpoint, error) {
	return all(ctx, db, scanEndpoint, `
		SELECT `+endpointColumns+` FROM gateway_webhook_endpoints e WHERE e.owner_id = $1 ORDER BY e.created_at, e.id`, ownerID)
}

// UpdateWebhookEndpoint writes what may change of an endpoint that the transaction
// has locked.
func (db *DB) UpdateWebhookEndpoint(ctx context.Context, e *WebhookEndpoint) error {
	return changedOne(db.exec(ctx, `
		UPDATE gateway_webhook_endpoints SET url = $2, description = $3, types = $4, secret = $5, previous_secret = $6,
			previous_until = $7, state = $8, disabled_reason = $9, failing_since = $10
		WHERE id = $1`,
		e.ID, e.URL, e.Description, packTypes(e.Types), e.Secret, null(e.PreviousSecret),
		microsPtr(e.BothSignUntil), string(e.Status), e.DisabledReason, microsPtr(e.FailingSince)))
}

// DeleteWebhookEndpoint deletes an endpoint with its deliveries and their attempts.
func (db *DB) DeleteWebhookEndpoint(ctx context.Context, id string) error {
	_, err := db.exec(ctx, `DELETE FROM gateway_webhook_endpoints WHERE id = $1`, id)
	return err
}

// EndpointWorks notes a success: the endpoint does not fail any more.
func (db *DB) EndpointWorks(ctx context.Context, id string) error {
	_, err := db.exec(ctx, `
		UPDATE gateway_webhook_endpoints SET failing_since = NULL WHERE id = $1 AND failing_since IS NOT NULL`, id)
	return err
}

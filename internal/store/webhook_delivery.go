package store

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/previewd/previewd"
)

// WebhookEvent is what endpoints are told.
type WebhookEvent struct {
	ID      string    // the header webhook-id: stable, and no other event's; letters, digits, "-" and "_"
	OwnerID string    // whose endpoints are told, besides the operator's
	Type    string    // one of previewd.WebhookTypes
	At      time.Time // when it happened; zero is now
	Data    any       // becomes the payload's data
}

const (
	// WebhookDeliveredRetention is how long deliveries are kept that have arrived.
	WebhookDeliveredRetention = 7 * 24 * time.Hour
	// WebhookFailedRetention is how long those are kept that have not.
	WebhookFailedRetention = 30 * 24 * time.Hour

	maxWebhookPayload = 20_000
	maxWebhookID      = 64
	// clockDifference is how far the clocks of two databases may be apart.
	clockDifference = time.Minute
)

// HasWebhooks reports whether there is anybody to tell.
func (db *DB) HasWebhooks(ctx context.Context) (bool, error) {
	var one int
	return db.one(ctx, []any{&one}, `SELECT 1 FROM gateway_webhook_endpoints WHERE state = 'active' LIMIT 1`)
}

// EnqueueWebhooks adds a pending delivery of an event for each active endpoint of
// its owner, and of the operator, that wants its type, and returns how many it
// added. It belongs into the transaction that tells of the event. Told again it
// adds none: a delivery is remembered for longer than an event is news, and what
// is older is not told.
func (db *DB) EnqueueWebhooks(ctx context.Context, e WebhookEvent) (n int, err error) {
	if !db.inTx {
		return 0, errors.New("cannot write outside a transaction")
	}
	if e.At.IsZero() {
		e.At = db.now
	}
	if db.now.Sub(e.At) > WebhookDeliveredRetention-clockDifference {
		return 0, nil
	}
	payload, err := e.payload()
	if err != nil {
		return 0, err
	}
	group, _, _ := strings.Cut(e.Type, ".")
	// An endpoint is told of what happens after it was made.
	changed, err := db.exec(ctx, `
		INSERT INTO gateway_webhook_deliveries
			(id, endpoint_id, webhook_id, replay, type, payload, state, attempts, next_attempt_at, created_at)
		SELECT e.id || '.' || CAST($2 AS TEXT), e.id, CAST($2 AS TEXT), 0, CAST($3 AS TEXT), $4, 'pending', 0,
			CAST($5 AS BIGINT), CAST($5 AS BIGINT)
		FROM gateway_webhook_endpoints e
		WHERE e.owner_id IN ($1, '') AND e.state = 'active' AND e.created_at <= $6
		  AND (e.types = '' OR e.types LIKE '% ' || CAST($3 AS TEXT) || ' %' OR e.types LIKE '% ' || CAST($7 AS TEXT) || ' %')
		`+db.engine.locking(keepEndpoint)+`
		ON CONFLICT (endpoint_id, webhook_id, replay) DO NOTHING`,
		e.OwnerID, e.ID, e.Type, payload, micros(db.now), micros(e.At.Add(clockDifference)), group+".*")
	return int(changed), err
}

// payload returns the event as Standard Webhooks has it. Data that is too long is
// left out: whoever is told can ask for it, and the event must not be lost.
func (e WebhookEvent) payload() ([]byte, error) {
	if e.ID == "" || len(e.ID) > maxWebhookID || strings.Trim(e.ID, webhookIDBytes) != "" {
		return nil, errors.New("cannot tell webhooks of an event with the id " + strconv.Quote(e.ID))
	}
	type envelope struct {
		Type      string `json:"type"`
		Timestamp string `json:"timestamp"`
		Data      any    `json:"data"`
	}
	body := envelope{e.Type, e.At.UTC().Format("2006-01-02T15:04:05.000000Z"), e.Data}
	payload, err := json.Marshal(body)
	if err == nil && len(payload) > maxWebhookPayload {
		body.Data = withoutLong(e.Data)
		payload, err = json.Marshal(body)
	}
	return payload, err
}

const webhookIDBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// withoutLong keeps the ids of data that is too long.
func withoutLong(data any) map[string]any {
	kept := map[string]any{"truncated": true}
	fields, _ := data.(map[string]any)
	for _, name := range []string{"projectId", "buildId", "versionId", "seq"} {
		value, ok := fields[name]
		if text, isText := value.(string); ok && (!isText || len(text) <= maxWebhookID) {
			kept[name] = value
		}
	}
	return kept
}

// WebhookDelivery is a delivery that is stored from outside EnqueueWebhooks.
type WebhookDelivery struct {
	EndpointID string
	WebhookID  string
	Replay     int
	Type       string
	Payload    []byte
}

// InsertWebhookDelivery adds a pending delivery and returns its id.
func (db *DB) InsertWebhookDelivery(ctx context.Context, d WebhookDelivery) (id string, err error) {
	id = d.EndpointID + "." + d.WebhookID
	if d.Replay > 0 {
		id += "." + strconv.Itoa(d.Replay)
	}
	_, err = db.exec(ctx, `
		INSERT INTO gateway_webhook_deliveries
			(id, endpoint_id, webhook_id, replay, type, payload, state, attempts, next_attempt_at, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, $7, $7)`,
		id, d.EndpointID, d.WebhookID, d.Replay, d.Type, d.Payload, micros(db.now))
	return id, err
}

// InsertWebhookTest adds a delivery of a test, which no other endpoint gets, and
// returns its id.
func (db *DB) InsertWebhookTest(ctx context.Context, endpointID, webhookID string) (id string, err error) {
	e := WebhookEvent{ID: webhookID, Type: previewd.WebhookTest, At: db.now, Data: map[string]any{"endpointId": endpointID}}
	payload, err := e.payload()
	if err != nil {
		return "", err
	}
	return db.InsertWebhookDelivery(ctx, WebhookDelivery{EndpointID: endpointID, WebhookID: webhookID, Type: e.Type, Payload: payload})
}

// deliveryColumns are followed by the payload, or NULL in its place.
const deliveryColumns = `
	d.id, d.endpoint_id, d.webhook_id, d.replay, d.type, d.state, d.attempts, d.next_attempt_at,
	d.last_status, d.last_error, d.created_at, d.ended_at`

func scanDelivery(r rows) (d previewd.WebhookDelivery, err error) {
	var next, created, ended *int64
	err = r.Scan(&d.ID, &d.EndpointID, &d.WebhookID, &d.Replay, &d.Type, (*string)(&d.Status), &d.Attempts, &next,
		&d.LastStatus, &d.LastError, &created, &ended, (*[]byte)(&d.Payload))
	d.NextAttemptAt, d.CreatedAt, d.EndedAt = timePtr(next), timeOf(created), timePtr(ended)
	return d, err
}

// FindWebhookDelivery returns a delivery with its payload, without its attempts.
// It returns CodeNotFound when the endpoint has none of this id.
func (db *DB) FindWebhookDelivery(ctx context.Context, endpointID, id string) (*previewd.WebhookDelivery, error) {
	list, err := all(ctx, db, scanDelivery, `
		SELECT `+deliveryColumns+`, d.payload FROM gateway_webhook_deliveries d WHERE d.id = $1 AND d.endpoint_id = $2`,
		id, endpointID)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, previewd.NotFound("delivery", id)
	}
	return &list[0], nil
}

// ListWebhookDeliveries returns an endpoint's deliveries before (at, id), the
// newest first. A zero time is the newest, an empty status is all.
func (db *DB) ListWebhookDeliveries(ctx context.Context, endpointID string, f WebhookListing) ([]previewd.WebhookDelivery, error) {
	before := int64(math.MaxInt64)
	if !f.At.IsZero() {
		before = f.At.UnixMicro()
	}
	return all(ctx, db, scanDelivery, `
		SELECT `+deliveryColumns+`, NULL FROM gateway_webhook_deliveries d
		WHERE d.endpoint_id = $1 AND (d.created_at, d.id) < ($2, $3) AND (d.state = $4 OR CAST($4 AS TEXT) = '')
		ORDER BY d.created_at DESC, d.id DESC LIMIT $5`,
		endpointID, before, f.ID, string(f.Status), f.Limit)
}

// WebhookListing is a place in the list of an endpoint's deliveries, and how much
// of it to read.
type WebhookListing struct {
	At     time.Time
	ID     string
	Status previewd.WebhookDeliveryStatus
	Limit  int
}

// LastWebhookReplay returns the number of an event's last replay to an endpoint.
func (db *DB) LastWebhookReplay(ctx context.Context, endpointID, webhookID string) (n int, err error) {
	_, err = db.one(ctx, []any{&n}, `
		SELECT COALESCE(MAX(replay), 0) FROM gateway_webhook_deliveries WHERE endpoint_id = $1 AND webhook_id = $2`,
		endpointID, webhookID)
	return n, err
}

// HurryWebhook makes a pending delivery due now. Whoever is at it finishes first.
func (db *DB) HurryWebhook(ctx context.Context, id string) error {
	_, err := db.exec(ctx, `
		UPDATE gateway_webhook_deliveries SET next_attempt_at = $2 WHERE id = $1 AND state = 'pending' AND next_attempt_at > $2`,
		id, micros(db.now))
	return err
}

// DropWebhooks ends all deliveries to an endpoint that are pending.
func (db *DB) DropWebhooks(ctx context.Context, endpointID, reason string) error {
	_, err := db.exec(ctx, `
		UPDATE gateway_webhook_deliveries SET state = 'dropped', next_attempt_at = NULL, claimed_by = NULL,
			claimed_until = NULL, last_error = $2, ended_at = $3
		WHERE endpoint_id = $1 AND state = 'pending'`, endpointID, reason, micros(db.now))
	return err
}

// ListWebhookAttempts returns a delivery's attempts in their order.
func (db *DB) ListWebhookAttempts(ctx context.Context, deliveryID string) ([]previewd.WebhookAttempt, error) {
	return all(ctx, db, func(r rows) (a previewd.WebhookAttempt, err error) {
		var at, took int64
		err = r.Scan(&a.N, &at, &a.Status, &took, &a.Error, &a.Excerpt)
		a.At, a.Took = timeOf(&at), time.Duration(took)*time.Microsecond
		return a, err
	}, `SELECT n, at, status, took, error, excerpt FROM gateway_webhook_attempts WHERE delivery_id = $1 ORDER BY n`, deliveryID)
}

package webhook

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// ServiceConfig is what a Service needs. A zero field takes the default that its
// comment names.
type ServiceConfig struct {
	Store  *store.DB
	Egress *Egress // default NewEgress with nothing allowed besides public addresses
	Audit  Audit   // default none
}

// Service is what owners do with their endpoints; store.Operator owns those that
// are told of all users' events. What is another owner's is CodeNotFound.
type Service struct {
	cfg ServiceConfig
}

// NewService returns a Service.
func NewService(cfg ServiceConfig) *Service {
	if cfg.Egress == nil {
		cfg.Egress = NewEgress(EgressConfig{})
	}
	if cfg.Audit == nil {
		cfg.Audit = noAudit
	}
	return &Service{cfg}
}

const (
	maxDescription = 500
	bothSign       = 24 * time.Hour // after a rotation
	defaultPage    = 50
	maxPage        = 200
)

// NewEndpoint is what an owner says of a new endpoint.
type NewEndpoint struct {
	OwnerID     string
	URL         string
	Types       []string // none is all
	Description string
}

// CreatedEndpoint is a new endpoint with its secret, which is not shown again.
type CreatedEndpoint struct {
	previewd.WebhookEndpoint
	Secret string `json:"secret"`
}

// Create makes an endpoint. It returns CodeInvalid for a URL or a type that cannot
// be, and CodeConflict when the owner has 20 endpoints.
func (s *Service) Create(ctx context.Context, n NewEndpoint) (*CreatedEndpoint, error) {
	e := &store.WebhookEndpoint{Secret: NewSecret()}
	e.ID, e.OwnerID = newID("we_"), n.OwnerID
	if err := s.set(e, UpdateEndpoint{URL: &n.URL, Types: &n.Types, Description: &n.Description}); err != nil {
		return nil, err
	}
	err := s.cfg.Store.Tx(ctx, "webhook_create", func(tx *store.DB) error {
		if err := tx.InsertWebhookEndpoint(ctx, e); err != nil {
			return err
		}
		return s.audit(ctx, tx, "webhook.create", e, map[string]any{"url": e.URL, "types": e.Types})
	})
	if err != nil {
		return nil, err
	}
	return &CreatedEndpoint{e.WebhookEndpoint, e.Secret}, nil
}

// newID returns a name that nobody guesses. Projects' ids are made elsewhere.
func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()) }

// List returns an owner's endpoints, oldest first.
func (s *Service) List(ctx context.Context, ownerID string) ([]previewd.WebhookEndpoint, error) {
	rows, err := s.cfg.Store.ListWebhookEndpoints(ctx, ownerID)
	list := make([]previewd.WebhookEndpoint, len(rows))
	for i, e := range rows {
		list[i] = e.WebhookEndpoint
	}
	return list, err
}

// Find returns one of an owner's endpoints.
func (s *Service) Find(ctx context.Context, ownerID, id string) (*previewd.WebhookEndpoint, error) {
	e, err := s.cfg.Store.FindWebhookEndpoint(ctx, ownerID, id)
	if err != nil {
		return nil, err
	}
	return &e.WebhookEndpoint, nil
}

// UpdateEndpoint is what to change of an endpoint: nil leaves a field as it is.
type UpdateEndpoint struct {
	URL         *string
	Types       *[]string
	Description *string
	Active      *bool // false drops what is pending; true starts with the next event
}

// Update changes an endpoint. It returns CodeInvalid as Create does.
func (s *Service) Update(ctx context.Context, ownerID, id string, u UpdateEndpoint) (*previewd.WebhookEndpoint, error) {
	return s.change(ctx, ownerID, id, "webhook.update", func(tx *store.DB, e *store.WebhookEndpoint) (map[string]any, error) {
		if err := s.set(e, u); err != nil {
			return nil, err
		}
		was := e.Status
		if u.Active != nil && *u.Active {
			e.Status, e.DisabledReason = previewd.WebhookActive, ""
		}
		if u.Active != nil && !*u.Active {
			e.Status, e.DisabledReason = previewd.WebhookDisabled, "Its owner disabled it."
		}
		if e.Status != was {
			e.FailingSince = nil
			if err := tx.DropWebhooks(ctx, e.ID, "The endpoint was disabled."); err != nil {
				return nil, err
			}
		}
		return map[string]any{"url": e.URL, "types": e.Types, "status": e.Status}, tx.UpdateWebhookEndpoint(ctx, e)
	})
}

// set changes what its owner says of an endpoint.
func (s *Service) set(e *store.WebhookEndpoint, u UpdateEndpoint) error {
	if u.URL != nil {
		if err := s.cfg.Egress.CheckURL(*u.URL); err != nil {
			return err
		}
		e.URL = *u.URL
	}
	if u.Types != nil {
		types, err := previewd.CheckWebhookTypes(*u.Types)
		if err != nil {
			return err
		}
		e.Types = types
	}
	if u.Description != nil {
		text := strings.Map(previewd.Harmless, strings.ToValidUTF8(*u.Description, ""))
		if len(text) > maxDescription {
			return &previewd.Error{Code: previewd.CodeInvalid, Message: "The description must have at most 500 bytes."}
		}
		e.Description = text
	}
	return nil
}

// Delete deletes an endpoint, and all that is known of its deliveries.
func (s *Service) Delete(ctx context.Context, ownerID, id string) error {
	_, err := s.change(ctx, ownerID, id, "webhook.delete", func(tx *store.DB, e *store.WebhookEndpoint) (map[string]any, error) {
		return map[string]any{"url": e.URL}, tx.DeleteWebhookEndpoint(ctx, e.ID)
	})
	return err
}

// RotateSecret gives an endpoint a new secret and returns it. For 24 hours the one
// before signs too; the one before that does not.
func (s *Service) RotateSecret(ctx context.Context, ownerID, id string) (*CreatedEndpoint, error) {
	secret := NewSecret()
	e, err := s.change(ctx, ownerID, id, "webhook.rotate_secret", func(tx *store.DB, e *store.WebhookEndpoint) (map[string]any, error) {
		until := tx.Now().Add(bothSign)
		e.Secret, e.PreviousSecret, e.BothSignUntil = secret, e.Secret, &until
		return nil, tx.UpdateWebhookEndpoint(ctx, e)
	})
	if err != nil {
		return nil, err
	}
	return &CreatedEndpoint{*e, secret}, nil
}

// change runs a change on a locked endpoint in a transaction that ends with its
// audit entry.
func (s *Service) change(ctx context.Context, ownerID, id, action string,
	do func(tx *store.DB, e *store.WebhookEndpoint) (map[string]any, error),
) (*previewd.WebhookEndpoint, error) {
	var e *store.WebhookEndpoint
	err := s.cfg.Store.Tx(ctx, "webhook_change", func(tx *store.DB) (err error) {
		if e, err = tx.LockWebhookEndpoint(ctx, ownerID, id); err != nil {
			return err
		}
		data, err := do(tx, e)
		if err != nil {
			return err
		}
		return s.audit(ctx, tx, action, e, data)
	})
	if err != nil {
		return nil, err
	}
	return &e.WebhookEndpoint, nil
}

// audit never tells a secret.
func (s *Service) audit(ctx context.Context, tx *store.DB, action string, e *store.WebhookEndpoint, data map[string]any) error {
	if data == nil {
		data = map[string]any{}
	}
	data["ownerId"] = e.OwnerID
	return s.cfg.Audit(ctx, tx, action, subject(e.ID), data)
}

func subject(endpointID string) string { return "webhook/" + endpointID }

// ListDeliveries returns an endpoint's deliveries, the newest first. It returns
// CodeInvalid for a cursor that is none.
func (s *Service) ListDeliveries(ctx context.Context, ownerID, id string, f previewd.WebhookDeliveryFilter) (*previewd.WebhookDeliveryPage, error) {
	if f.Limit <= 0 {
		f.Limit = defaultPage
	}
	f.Limit = min(f.Limit, maxPage)
	from, err := parseCursor(f.After)
	if err != nil {
		return nil, err
	}
	if _, err := s.cfg.Store.FindWebhookEndpoint(ctx, ownerID, id); err != nil {
		return nil, err
	}
	from.Status, from.Limit = f.Status, f.Limit+1
	list, err := s.cfg.Store.ListWebhookDeliveries(ctx, id, from)
	if err != nil {
		return nil, err
	}
	page := &previewd.WebhookDeliveryPage{Deliveries: append([]previewd.WebhookDelivery{}, list...)}
	if len(list) > f.Limit {
		page.Deliveries = list[:f.Limit]
		last := page.Deliveries[f.Limit-1]
		page.Next = base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(last.CreatedAt.UnixMicro(), 10) + " " + last.ID))
	}
	return page, nil
}

func parseCursor(text string) (store.WebhookListing, error) {
	if text == "" {
		return store.WebhookListing{}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	at, id, _ := strings.Cut(string(raw), " ")
	us, notNumber := strconv.ParseInt(at, 10, 64)
	if err != nil || notNumber != nil || id == "" || strings.ToValidUTF8(id, "") != id || strings.Contains(id, "\x00") {
		return store.WebhookListing{}, &previewd.Error{
			Code: previewd.CodeInvalid, Message: "The cursor is none: take it from next.", Details: strconv.Quote(text[:min(len(text), 64)]),
		}
	}
	return store.WebhookListing{At: time.UnixMicro(us), ID: id}, nil
}

// FindDelivery returns a delivery with its payload and its attempts.
func (s *Service) FindDelivery(ctx context.Context, ownerID, id, deliveryID string) (*previewd.WebhookDelivery, error) {
	if _, err := s.cfg.Store.FindWebhookEndpoint(ctx, ownerID, id); err != nil {
		return nil, err
	}
	d, err := s.cfg.Store.FindWebhookDelivery(ctx, id, deliveryID)
	if err != nil {
		return nil, err
	}
	d.Log, err = s.cfg.Store.ListWebhookAttempts(ctx, deliveryID)
	return d, err
}

// Replay sends an event again, with the webhook-id that it had, and returns the
// delivery that does: a new one, or that which is still pending, which becomes
// due. It returns CodeConflict while the endpoint is disabled.
func (s *Service) Replay(ctx context.Context, ownerID, id, deliveryID string) (*previewd.WebhookDelivery, error) {
	return s.add(ctx, ownerID, id, "webhook.replay", func(tx *store.DB) (string, error) {
		d, err := tx.FindWebhookDelivery(ctx, id, deliveryID)
		if err != nil {
			return "", err
		}
		if d.Status == previewd.WebhookPending {
			return d.ID, tx.HurryWebhook(ctx, d.ID)
		}
		last, err := tx.LastWebhookReplay(ctx, id, d.WebhookID)
		if err != nil {
			return "", err
		}
		return tx.InsertWebhookDelivery(ctx, store.WebhookDelivery{
			EndpointID: id, WebhookID: d.WebhookID, Replay: last + 1, Type: d.Type, Payload: d.Payload,
		})
	})
}

// SendTest sends an event of the type webhook.test, once, whatever the endpoint's
// filter. It returns CodeConflict while the endpoint is disabled.
func (s *Service) SendTest(ctx context.Context, ownerID, id string) (*previewd.WebhookDelivery, error) {
	return s.add(ctx, ownerID, id, "webhook.test", func(tx *store.DB) (string, error) {
		return tx.InsertWebhookTest(ctx, id, newID("test_"))
	})
}

// add adds a delivery to an active endpoint and returns it.
func (s *Service) add(ctx context.Context, ownerID, id, action string, do func(tx *store.DB) (string, error)) (d *previewd.WebhookDelivery, err error) {
	_, err = s.change(ctx, ownerID, id, action, func(tx *store.DB, e *store.WebhookEndpoint) (map[string]any, error) {
		if e.Status != previewd.WebhookActive {
			return nil, &previewd.Error{Code: previewd.CodeConflict, Message: "The webhook endpoint is disabled: enable it first.", Details: e.DisabledReason}
		}
		deliveryID, err := do(tx)
		if err != nil {
			return nil, err
		}
		d, err = tx.FindWebhookDelivery(ctx, id, deliveryID)
		return map[string]any{"deliveryId": deliveryID}, err
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

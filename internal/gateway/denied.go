package gateway

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// deniedFor is how long the list of the denied is used before it is read again.
const deniedFor = time.Second

// Denials says whose tokens are refused before they end. It reads the list every
// second while it is asked, so a denial takes that long everywhere.
type Denials struct {
	store *store.DB
	mu    sync.Mutex
	read  time.Time
	list  map[store.DeniedSubject]bool
}

// NewDenials returns Denials of a database.
func NewDenials(db *store.DB) *Denials { return &Denials{store: db} }

// Denied reports whether a user's or a session's tokens are refused.
func (d *Denials) Denied(ctx context.Context, userID, sessionID string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.read) > deniedFor {
		all, err := d.store.ListDenied(ctx)
		if err != nil {
			return false, err
		}
		d.list, d.read = map[store.DeniedSubject]bool{}, time.Now()
		for _, denied := range all {
			d.list[denied.DeniedSubject] = true
		}
	}
	return d.list[store.DeniedSubject{Kind: "user", Subject: userID}] ||
		sessionID != "" && d.list[store.DeniedSubject{Kind: "session", Subject: sessionID}], nil
}

// canonical spells a subject as tokens' are read: UUIDs in lower case.
func canonical(s store.DeniedSubject) store.DeniedSubject {
	if lower := strings.ToLower(s.Subject); previewd.IsID(lower) {
		s.Subject = lower
	}
	return s
}

// Deny refuses the tokens of a user or a session from now on.
func (s *Service) Deny(ctx context.Context, req Request, subject store.DeniedSubject, reason string) error {
	if subject.Kind != "user" && subject.Kind != "session" {
		return invalid("kind must be user or session.", subject.Kind)
	}
	if subject.Subject == "" || len(subject.Subject) > previewd.MaxUserID || strings.Map(previewd.Harmless, subject.Subject) != subject.Subject {
		return invalid("subject must be a user's or a session's id.", "subject")
	}
	reason = strings.Map(previewd.Harmless, reason)
	subject = canonical(subject)
	return s.Store.Tx(ctx, "deny", func(tx *store.DB) error {
		if err := tx.DenySubject(ctx, subject, reason); err != nil {
			return err
		}
		return audit(ctx, tx, actor("operator/"+req.User.ID), store.AuditEntry{
			Action: "token.deny", Subject: subject.Kind + "/" + subject.Subject, Data: map[string]any{"reason": reason, "requestId": req.RequestID},
		})
	})
}

// Allow takes a denial back.
func (s *Service) Allow(ctx context.Context, req Request, subject store.DeniedSubject) error {
	subject = canonical(subject)
	return s.Store.Tx(ctx, "allow", func(tx *store.DB) error {
		if err := tx.AllowSubject(ctx, subject); err != nil {
			return err
		}
		return audit(ctx, tx, actor("operator/"+req.User.ID), store.AuditEntry{
			Action: "token.allow", Subject: subject.Kind + "/" + subject.Subject, Data: map[string]any{"requestId": req.RequestID},
		})
	})
}

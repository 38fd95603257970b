package store

import (
	"context"
	"time"
)

// DeniedSubject is whose tokens are refused.
type DeniedSubject struct {
	Kind    string `json:"kind" enum:"user,session"`
	Subject string `json:"subject"`
}

// Denied is a subject whose tokens are refused, and why.
type Denied struct {
	DeniedSubject
	Reason    string    `json:"reason"`
	CreatedAt time.Time `json:"createdAt"`
}

// DenySubject refuses the tokens of a user or a session from now on.
func (db *DB) DenySubject(ctx context.Context, s DeniedSubject, reason string) error {
	_, err := db.exec(ctx, `INSERT INTO gateway_denied (kind, subject, reason, created_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (kind, subject) DO NOTHING`, s.Kind, s.Subject, reason, micros(db.now))
	return err
}

// AllowSubject takes a denial back.
func (db *DB) AllowSubject(ctx context.Context, s DeniedSubject) error {
	_, err := db.exec(ctx, `DELETE FROM gateway_denied WHERE kind = $1 AND subject = $2`, s.Kind, s.Subject)
	return err
}

// ListDenied returns all who are denied.
func (db *DB) ListDenied(ctx context.Context) ([]Denied, error) {
	return all(ctx, db, func(r rows) (d Denied, err error) {
		var at int64
		err = r.Scan(&d.Kind, &d.Subject, &d.Reason, &at)
		d.CreatedAt = timeOf(&at)
		return d, err
	}, `SELECT kind, subject, reason, created_at FROM gateway_denied ORDER BY kind, subject`)
}

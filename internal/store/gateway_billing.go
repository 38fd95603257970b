package store

import (
	"context"
	"time"

	"github.com/previewd/previewd"
)

// OpenBilling opens the session of a build; one that was opened before stays.
func (db *DB) OpenBilling(ctx context.Context, s previewd.BillingSession) error {
	_, err := db.exec(ctx, `
		INSERT INTO gateway_billing_sessions (id, project_id, build_id, owner_id, kind, state, reserved_micros, opened_at)
		VALUES ($1, $2, $3, $4, 'build', 'open', $5, $6)
		ON CONFLICT (project_id, build_id, kind) DO NOTHING`,
		s.ID, s.ProjectID, s.BuildID, s.UserID, s.ReservedMicros, micros(db.now))
	return err
}

const billingColumns = `id, project_id, build_id, owner_id, state, reason, reserved_micros, amount_micros, opened_at, closed_at`

func scanBilling(r rows) (s previewd.BillingSession, err error) {
	var opened int64
	var closed *int64
	err = r.Scan(&s.ID, &s.ProjectID, &s.BuildID, &s.UserID, (*string)(&s.State), &s.Reason, &s.ReservedMicros, &s.AmountMicros, &opened, &closed)
	s.OpenedAt, s.ClosedAt, s.Entries = timeOf(&opened), timePtr(closed), []previewd.BillingEntry{}
	return s, err
}

// LockOpenBilling returns the open session of a build for the transaction that
// closes it, or nil.
func (db *DB) LockOpenBilling(ctx context.Context, buildID string) (*previewd.BillingSession, error) {
	list, err := all(ctx, db, scanBilling, `SELECT `+billingColumns+` FROM gateway_billing_sessions WHERE build_id = $1 AND state = 'open'`+
		db.engine.locking(lockRow), buildID)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// CloseBilling closes a session with what was used: each entry once, as postings
// that sum to nothing, with the accounts' balances. The session's State says
// whether it is settled or voided; one that is voided has no entries.
func (db *DB) CloseBilling(ctx context.Context, s previewd.BillingSession) error {
	for _, e := range s.Entries {
		if err := db.postEntry(ctx, s, e); err != nil {
			return err
		}
	}
	return changedOne(db.exec(ctx, `
		UPDATE gateway_billing_sessions SET state = $2, reason = $3, amount_micros = $4, closed_at = $5 WHERE id = $1 AND state = 'open'`,
		s.ID, string(s.State), s.Reason, s.AmountMicros, micros(db.now)))
}

func (db *DB) postEntry(ctx context.Context, s previewd.BillingSession, e previewd.BillingEntry) error {
	n, err := db.exec(ctx, `
		INSERT INTO gateway_billing_entries (entry_key, session_id, meter, quantity, unit, amount_micros, at) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (entry_key) DO NOTHING`, e.Key, s.ID, e.Meter, e.Quantity, e.Unit, e.AmountMicros, micros(db.now))
	if err != nil || n == 0 {
		return err // posted before
	}
	// In order, so that nobody waits in a circle: "revenue:…" sorts before "user:…".
	for _, p := range []struct {
		account string
		amount  int64
	}{{"revenue:" + e.Meter, -e.AmountMicros}, {"user:" + s.UserID, e.AmountMicros}} {
		_, err := db.exec(ctx, `INSERT INTO gateway_billing_postings (entry_key, account, amount_micros) VALUES ($1, $2, $3)`, e.Key, p.account, p.amount)
		if err != nil {
			return err
		}
		_, err = db.exec(ctx, `INSERT INTO gateway_billing_accounts (account, balance_micros) VALUES ($1, $2)
			ON CONFLICT (account) DO UPDATE SET balance_micros = gateway_billing_accounts.balance_micros + excluded.balance_micros`, p.account, p.amount)
		if err != nil {
			return err
		}
	}
	return nil
}

// FindBalance returns an account's balance in micros.
func (db *DB) FindBalance(ctx context.Context, account string) (balance int64, err error) {
	_, err = db.one(ctx, []any{&balance}, `SELECT balance_micros FROM gateway_billing_accounts WHERE account = $1`, account)
	return balance, err
}

// ListBilling returns an owner's sessions whose id is below the cursor, newest
// first, with their entries.
func (db *DB) ListBilling(ctx context.Context, ownerID, below string, limit int) ([]previewd.BillingSession, error) {
	list, err := all(ctx, db, scanBilling, `SELECT `+billingColumns+` FROM gateway_billing_sessions WHERE owner_id = $1 AND id < $2
		ORDER BY id DESC LIMIT $3`, ownerID, below, limit)
	if err != nil {
		return nil, err
	}
	return list, db.fillEntries(ctx, list)
}

func (db *DB) fillEntries(ctx context.Context, list []previewd.BillingSession) error {
	if len(list) == 0 {
		return nil
	}
	sessions, ids := map[string]*previewd.BillingSession{}, make([]any, len(list))
	for i := range list {
		s := &list[i]
		sessions[s.ID], ids[i] = s, s.ID
	}
	type entry struct {
		previewd.BillingEntry
		session string
	}
	entries, err := all(ctx, db, func(r rows) (e entry, err error) {
		var at int64
		err = r.Scan(&e.session, &e.Key, &e.Meter, &e.Quantity, &e.Unit, &e.AmountMicros, &at)
		e.At = timeOf(&at)
		return e, err
	}, `SELECT session_id, entry_key, meter, quantity, unit, amount_micros, at FROM gateway_billing_entries
		WHERE session_id IN (`+parameters(1, len(ids))+`) ORDER BY entry_key`, ids...)
	for _, e := range entries {
		s := sessions[e.session]
		s.Entries = append(s.Entries, e.BillingEntry)
	}
	return err
}

// Usage is what a user has used up of the quotas.
type Usage struct {
	BuildsToday  int
	Active       int // builds that are not over
	SpentMicros  int64
	NextMidnight time.Time // UTC
	NextMonth    time.Time // UTC
}

// CountPending counts a user's requests whose outcome is not known.
func (db *DB) CountPending(ctx context.Context, userID string) (n int, err error) {
	_, err = db.one(ctx, []any{&n}, `SELECT COUNT(*) FROM gateway_intents WHERE user_id = $1 AND state = 'pending'`, userID)
	return n, err
}

// CountUsage counts what a user has used; the active builds of one project, "" for
// none, are left out. The caller has locked the user.
func (db *DB) CountUsage(ctx context.Context, userID, but string) (u Usage, err error) {
	now := db.now.UTC()
	day := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	u.NextMidnight, u.NextMonth = day.AddDate(0, 0, 1), month.AddDate(0, 1, 0)
	if _, err = db.one(ctx, []any{&u.Active}, `SELECT COUNT(*) FROM gateway_billing_sessions WHERE owner_id = $1 AND state = 'open' AND project_id <> $2`,
		userID, but); err != nil {
		return u, err
	}
	if _, err = db.one(ctx, []any{&u.BuildsToday}, `SELECT COUNT(*) FROM gateway_billing_sessions WHERE owner_id = $1 AND opened_at >= $2`,
		userID, micros(day)); err != nil {
		return u, err
	}
	_, err = db.one(ctx, []any{&u.SpentMicros}, `SELECT CAST(COALESCE(SUM(CASE state WHEN 'open' THEN reserved_micros ELSE amount_micros END), 0) AS BIGINT)
		FROM gateway_billing_sessions WHERE owner_id = $1 AND opened_at >= $2`, userID, micros(month))
	return u, err
}

// ClaimUntold returns closed sessions that the biller is to be told of, and
// sets when to try again if that does not work out.
func (db *DB) ClaimUntold(ctx context.Context, again func(attempts int) time.Duration, limit int) ([]previewd.BillingSession, error) {
	var attempts []int
	list, err := all(ctx, db, func(r rows) (previewd.BillingSession, error) {
		var n int
		s, err := scanBilling(extra{r, []any{&n}})
		attempts = append(attempts, n)
		return s, err
	}, `SELECT `+billingColumns+`, tell_attempts FROM gateway_billing_sessions WHERE told_at IS NULL AND state <> 'open' AND tell_at <= $1
		ORDER BY tell_at LIMIT $2`+db.engine.locking(skipLockedRow), micros(db.now), limit)
	if err != nil {
		return nil, err
	}
	for i, s := range list {
		_, err := db.exec(ctx, `UPDATE gateway_billing_sessions SET tell_attempts = $2, tell_at = $3 WHERE id = $1`,
			s.ID, attempts[i]+1, micros(db.now.Add(again(attempts[i]))))
		if err != nil {
			return nil, err
		}
	}
	return list, db.fillEntries(ctx, list)
}

// extra scans further columns after those that a scan function knows.
type extra struct {
	rows
	more []any
}

func (e extra) Scan(dest ...any) error { return e.rows.Scan(append(dest, e.more...)...) }

// MarkTold notes that the biller has a session.
func (db *DB) MarkTold(ctx context.Context, id string) error {
	_, err := db.exec(ctx, `UPDATE gateway_billing_sessions SET told_at = $2 WHERE id = $1 AND told_at IS NULL`, id, micros(db.now))
	return err
}

package store

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/previewd/previewd"
)

const maxExamples = 10

// integrityLimit bounds one query of a check. They read whole tables.
const integrityLimit = 15 * time.Minute

// Ages from which on something counts as forgotten.
const (
	DeadLease     = 5 * time.Minute    // a lease that nobody has renewed
	UnfedAge      = time.Minute        // an event without a feed position
	keyMustRemain = 7 * 24 * time.Hour // the key of a project
)

// invariant is a query that returns the ids of what breaks a promise, as one
// column id. It must return nothing, at any moment, whatever died before. Each
// is one statement, so it sees one moment.
type invariant struct {
	name, promise string
	fixable       bool
	age           time.Duration // when not 0, $1 is the moment so long ago
	query         string
}

func (db *DB) check(ctx context.Context, i invariant, now time.Time) (previewd.Check, error) {
	check := previewd.Check{Name: i.name, Description: i.promise, Fixable: i.fixable}
	var args []any
	if i.age != 0 {
		args = append(args, micros(now.Add(-i.age)))
	}
	ids, err := all(ctx, db, func(r rows) (id string, err error) {
		err = r.Scan(&id, &check.Count)
		return id, err
	}, `SELECT id, COUNT(*) OVER () FROM (`+i.query+`) AS broken ORDER BY id LIMIT `+strconv.Itoa(maxExamples), args...)
	if err != nil {
		return check, fmt.Errorf("cannot check %s: %w", i.name, err)
	}
	check.Examples = ids
	return check, nil
}

// CheckIntegrity checks every promise that a query can check, and the audit
// chain. It returns all of them, those that hold with a count of 0.
func (db *DB) CheckIntegrity(ctx context.Context) ([]previewd.Check, error) {
	now, err := db.clock(ctx)
	if err != nil {
		return nil, err
	}
	patient := db.patient()
	var checks []previewd.Check
	for _, group := range [][]invariant{buildInvariants, eventInvariants, keyInvariants, gatewayInvariants, billingInvariants} {
		for _, i := range group {
			check, err := patient.check(ctx, i, now)
			if err != nil {
				return nil, err
			}
			checks = append(checks, check)
		}
	}
	for _, chain := range Chains() {
		check, err := db.checkChain(ctx, chain)
		if err != nil {
			return nil, err
		}
		checks = append(checks, check)
	}
	return checks, nil
}

const gatewayChainCheck = "app_audit_chain_broken"

func (db *DB) checkChain(ctx context.Context, chain Chain) (previewd.Check, error) {
	check := previewd.Check{Name: "audit_chain_broken", Description: "Each audit entry follows from the one before it, up to the head."}
	if chain == GatewayChain {
		check.Name = gatewayChainCheck
	}
	broken, err := db.FindAuditBreak(ctx, chain)
	if broken != nil {
		check.Count, check.Examples = 1, []string{broken.String()}
	}
	return check, err
}

// FindViolations returns the promises that do not hold.
func (db *DB) FindViolations(ctx context.Context) ([]previewd.Check, error) {
	checks, err := db.CheckIntegrity(ctx)
	return previewd.Broken(checks), err
}

// patient is the database for queries that take long.
func (db *DB) patient() *DB { return &DB{engine: db.engine, q: db.engine.reader(true)} }

// clock returns the time by the database's clock.
func (db *DB) clock(ctx context.Context) (now time.Time, err error) {
	err = db.Tx(ctx, "clock", func(tx *DB) error {
		now = tx.Now()
		return nil
	})
	return now, err
}

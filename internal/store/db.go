package store

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// Config is what Open needs: Path or URL.
type Config struct {
	Path        string           // the SQLite file; its folder must exist
	URL         string           // postgres://…; goes before Path
	Now         func() time.Time // default time.Now; the clock of an engine that has none
	KeepSchema  bool             // refuse a schema that is not this program's instead of migrating
	Application string           // names the connections; default previewd
}

// DB is a database, or a transaction on one: the methods are the same.
// Outside a transaction reads go to the reader pool and see what is committed.
type DB struct {
	engine engine
	q      querier
	inTx   bool
	now    time.Time
	reads  *buildReads // nil in a transaction, and on SQLite, where no read waits for a network
}

// engine is what differs between SQLite and PostgreSQL.
type engine interface {
	name() string
	reader(patient bool) querier                        // patient: for queries that read whole tables
	begin(ctx context.Context, alone bool) (txn, error) // alone: shares its commit with nobody
	translate(err error) error                          // driver errors to *previewd.Error
	locking(lock lock) string                           // what makes a SELECT lock its rows
	createPreview(ctx context.Context, c *Creation) (*Created, error)
	appendAudit(ctx context.Context, tx *DB, entry AuditEntry, data string) error
	close() error
}

// lock is a way to lock the rows of a SELECT: over builds b and projects p, or
// over webhook endpoints e.
type lock int

const (
	lockProject   lock = iota // waits for the project's row
	skipLocked                // leaves out what others have locked
	lockEndpoint              // waits for the endpoint's row; rows that refer to it can be inserted meanwhile
	claimEndpoint             // the same, but leaves out what others have locked
	keepEndpoint              // nobody deletes the endpoint meanwhile
	lockRow                   // waits for the rows of a SELECT over one table
	skipLockedRow             // leaves out those that others have locked
)

type querier interface {
	exec(ctx context.Context, query string, args ...any) (changed int64, err error)
	query(ctx context.Context, query string, args ...any) (rows, error)
}

type txn interface {
	querier
	clock() time.Time
	commit() error
	// rollback does nothing after a commit. An error says that what the
	// transaction has read was never committed: what it concluded is void.
	rollback() error
}

type rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// Open opens the database and brings its schema up to date. An older program
// refuses a newer schema.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	var e engine
	var err error
	var reads *buildReads
	if cfg.URL != "" {
		e, err = openPostgres(ctx, cfg)
		reads = &buildReads{}
	} else {
		e, err = openSQLite(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	return &DB{engine: e, q: e.reader(false), reads: reads}, nil
}

// Engine returns "sqlite" or "postgres".
func (db *DB) Engine() string { return db.engine.name() }

// Close closes all connections. Nothing committed is lost.
func (db *DB) Close() error { return db.engine.close() }

// Tx runs fn in a transaction that can write, and commits when fn returns nil.
// All of it happens or nothing. Nesting is an error: a transaction that opens
// another would wait for itself. The name is that of its fault points. What the
// database breaks off so that others can go on, as in a deadlock, is run again.
func (db *DB) Tx(ctx context.Context, name string, fn func(tx *DB) error) error {
	if db.inTx {
		return errors.New("cannot begin a transaction inside a transaction")
	}
	for try := 1; ; try++ {
		err := db.tx(ctx, name, try > 1, fn)
		if again := (*brokenOffError)(nil); try == maxTries || !errors.As(err, &again) {
			return err
		}
	}
}

const maxTries = 5

// brokenOffError says that the database has rolled a transaction back for no
// fault of its own.
type brokenOffError struct{ error }

func (e *brokenOffError) Unwrap() error { return e.error }

func (db *DB) tx(ctx context.Context, name string, alone bool, fn func(tx *DB) error) error {
	t, err := db.engine.begin(ctx, alone)
	if err != nil {
		return db.engine.translate(err)
	}
	defer func() { _ = t.rollback() }() // for a panic
	if err := fn(&DB{engine: db.engine, q: t, inTx: true, now: t.clock()}); err != nil {
		if void := t.rollback(); void != nil {
			return db.engine.translate(void)
		}
		return err
	}
	if err := fault.Point(name + ".before_commit"); err != nil {
		return err
	}
	if err := t.commit(); err != nil {
		return db.engine.translate(err)
	}
	return fault.Point(name + ".after_commit")
}

// Now returns the transaction's one timestamp, by the database's clock. It is
// the zero time outside a transaction.
func (db *DB) Now() time.Time { return db.now }

// Ping tells whether the database can be read and written.
func (db *DB) Ping(ctx context.Context) error {
	return db.Tx(ctx, "ping", func(tx *DB) error {
		var one int
		_, err := tx.one(ctx, []any{&one}, `SELECT 1`)
		return err
	})
}

func (db *DB) exec(ctx context.Context, query string, args ...any) (int64, error) {
	n, err := db.q.exec(ctx, query, args...)
	return n, db.engine.translate(err)
}

// one scans the first row into dest; found is false when there is none.
func (db *DB) one(ctx context.Context, dest []any, query string, args ...any) (found bool, err error) {
	err = db.read(func() error {
		found = false
		r, err := db.q.query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer r.Close()
		if !r.Next() {
			return r.Err()
		}
		if err := r.Scan(dest...); err != nil {
			return err
		}
		found = true
		return r.Close()
	})
	return found && err == nil, err
}

// all scans every row with scan.
func all[T any](ctx context.Context, db *DB, scan func(rows) (T, error), query string, args ...any) (list []T, err error) {
	err = db.read(func() error {
		list = nil
		r, err := db.q.query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer r.Close()
		for r.Next() {
			item, err := scan(r)
			if err != nil {
				return err
			}
			list = append(list, item)
		}
		return r.Err()
	})
	return list, err
}

// errBroken is the cause of errors that say that the connection ended before
// the answer: what it was asked to do may have been done.
var errBroken = errors.New("the connection to the database is broken")

// read runs a query. Outside a transaction it is run again when its connection
// turns out to be broken, as all are after the database was started again.
func (db *DB) read(query func() error) error {
	for try := 1; ; try++ {
		err := query()
		if err = db.engine.translate(err); err == nil || db.inTx || try == maxTries || !errors.Is(err, errBroken) {
			return err
		}
	}
}

// changedOne turns "no row changed" of a guarded UPDATE into a conflict: the
// row is no longer what the caller read.
func changedOne(n int64, err error) error {
	if err == nil && n != 1 {
		return &previewd.Error{Code: previewd.CodeConflict, Message: "The row has changed since it was read."}
	}
	return err
}

// Times are stored as microseconds since 1970; zero times as NULL.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func timeOf(us *int64) time.Time {
	if us == nil {
		return time.Time{}
	}
	return time.UnixMicro(*us).UTC()
}

func timePtr(us *int64) *time.Time {
	if us == nil {
		return nil
	}
	t := timeOf(us)
	return &t
}

// null turns "" into NULL.
func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// parameters are those of an IN: n of them, $first, $first+1 and so on.
func parameters(first, n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = "$" + strconv.Itoa(first+i)
	}
	return strings.Join(list, ", ")
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

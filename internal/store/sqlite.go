package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"runtime"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/previewd/previewd"
)

// sqliteDB is one file: a single writer connection, because SQLite has one
// writer anyway and a queue in Go is fairer than SQLITE_BUSY, and a pool of
// readers that WAL keeps out of its way.
type sqliteDB struct {
	write *sqliteWriter
	read  *sqliteReader
	now   func() time.Time
}

// Pragmas hold per connection, so they belong into the DSN. FULL syncs the log
// at every commit: an acknowledged create survives a power cut.
const sqlitePragmas = "_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)"

func openSQLite(ctx context.Context, cfg Config) (*sqliteDB, error) {
	if _, err := migrateSQLite(ctx, cfg); err != nil {
		return nil, err
	}
	db, err := openSQLitePool(cfg.Path, sqlitePragmas, 1)
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	read, err := openSQLitePool(cfg.Path, sqlitePragmas+"&_pragma=query_only(1)", max(4, runtime.NumCPU()))
	if err != nil {
		return nil, errors.Join(err, conn.Close(), db.Close())
	}
	return &sqliteDB{
		write: &sqliteWriter{db: db, conn: conn, stmts: map[string]*sql.Stmt{}},
		read:  &sqliteReader{db: read, stmts: map[string]*sql.Stmt{}},
		now:   cfg.Now,
	}, nil
}

func openSQLitePool(path, params string, conns int) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+params)
	if err != nil {
		return nil, fmt.Errorf("cannot open database %s: %w", path, err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

func (s *sqliteDB) name() string { return "sqlite" }

// reader is the same for patient queries: nothing bounds one but its context.
func (s *sqliteDB) reader(bool) querier { return s.read }

// locking is empty: who writes is alone.
func (s *sqliteDB) locking(lock) string { return "" }

func (s *sqliteDB) createPreview(ctx context.Context, c *Creation) (created *Created, err error) {
	db := &DB{engine: s, q: s.read}
	err = db.Tx(ctx, "create", func(tx *DB) error {
		created, err = tx.createInSteps(ctx, c)
		return err
	})
	return created, err
}

func (s *sqliteDB) appendAudit(ctx context.Context, tx *DB, e AuditEntry, data string) error {
	return tx.appendAuditInSteps(ctx, e, data)
}

func (s *sqliteDB) close() error {
	_ = s.write.turn.take(context.Background()) // waits for running transactions
	err := s.read.db.Close()
	for _, stmt := range s.write.stmts { // or SQLite keeps the connection, and its log beside the database
		err = errors.Join(err, stmt.Close())
	}
	return errors.Join(err, s.write.conn.Close(), s.write.db.Close())
}

func (s *sqliteDB) begin(ctx context.Context, alone bool) (txn, error) {
	return s.write.begin(ctx, alone, s.now)
}

// translate turns what callers can act on into codes; the rest stays internal.
func (s *sqliteDB) translate(err error) error {
	var driver *sqlite.Error
	if again := (*brokenOffError)(nil); errors.As(err, &again) || !errors.As(err, &driver) {
		return err
	}
	switch driver.Code() & 0xff {
	case sqlite3.SQLITE_CONSTRAINT:
		return &previewd.Error{Code: previewd.CodeConflict, Message: "The database refuses this as inconsistent.", Err: err}
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return &previewd.Error{
			Code: previewd.CodeUnavailable, Message: "The database is busy; try again.", RetryAfter: time.Second, Err: err,
		}
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY:
		return &previewd.Error{
			Code: previewd.CodeUnavailable, Message: "The database cannot write; is the disk full?", RetryAfter: 10 * time.Second, Err: err,
		}
	}
	return err
}

// SQLite reads $1 as a name and numbers it by first appearance; ?1 is the
// position that PostgreSQL means by $1.
var dollar = regexp.MustCompile(`\$(\d+)`)

func isForeignKey(err error) bool {
	var driver *sqlite.Error
	return errors.As(err, &driver) && driver.Code() == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
}

func (t *sqliteTx) statement(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt := t.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := t.conn.PrepareContext(ctx, dollar.ReplaceAllString(query, "?$1"))
	if err == nil {
		t.stmts[query] = stmt
	}
	return stmt, err
}

// exec is not cut short once it runs: SQLite would roll back what others in the
// group have done.
func (t *sqliteTx) exec(ctx context.Context, query string, args ...any) (int64, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	ctx = context.WithoutCancel(ctx)
	stmt, err := t.statement(ctx, query)
	if err != nil {
		return 0, err
	}
	result, err := stmt.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (t *sqliteTx) query(ctx context.Context, query string, args ...any) (rows, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	ctx = context.WithoutCancel(ctx)
	stmt, err := t.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}

// sqliteReader reads what is committed, on any of its connections.
type sqliteReader struct {
	db    *sql.DB
	mu    sync.Mutex
	stmts map[string]*sql.Stmt
}

func (r *sqliteReader) exec(context.Context, string, ...any) (int64, error) {
	return 0, errors.New("cannot write outside a transaction")
}

func (r *sqliteReader) query(ctx context.Context, query string, args ...any) (rows, error) {
	stmt, err := r.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args...)
}

func (r *sqliteReader) statement(ctx context.Context, query string) (*sql.Stmt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if stmt := r.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := r.db.PrepareContext(ctx, dollar.ReplaceAllString(query, "?$1"))
	if err == nil {
		r.stmts[query] = stmt
	}
	return stmt, err
}

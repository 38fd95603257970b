package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// Every statement has a limit, so that nothing waits for ever on a lock, a
// server or a network. They are set in each transaction and not for the session:
// behind a transaction pooler there is none.
const (
	statementLimit = 30 * time.Second
	lockLimit      = 5 * time.Second
	minPostgres    = 150000
	defaultConns   = 16 // unless the URL says pool_max_conns
)

// postgresDB is a PostgreSQL server, which several processes can share.
// Transactions are READ COMMITTED: what must not change between two statements
// is locked. No lock outlives its transaction.
type postgresDB struct {
	pool  *pgxpool.Pool
	lanes createLanes
}

func newPool(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, errors.New("cannot read --database-url: it must be like postgres://user:password@host:5432/database")
	}
	if cfg.Application == "" {
		cfg.Application = "previewd"
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = cfg.Application
	}
	if !strings.Contains(cfg.URL, "pool_max_conns") {
		config.MaxConns = defaultConns
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	// A standby may be behind: what decides is read where it is written.
	config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	// Plans are kept for a connection's life. One made while a table was new, and
	// read whole in no time, would read it whole for ever.
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `SET enable_seqscan = off`)
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("cannot use the database: %w", err)
	}
	return pool, nil
}

func openPostgres(ctx context.Context, cfg Config) (*postgresDB, error) {
	pool, err := newPool(ctx, cfg)
	if err != nil {
		return nil, err
	}
	db := &postgresDB{pool: pool}
	if err := db.check(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	if _, err := migratePostgres(ctx, pool, cfg.KeepSchema); err != nil {
		pool.Close()
		return nil, err
	}
	return db, nil
}

// check refuses a server that the tables cannot live on.
func (p *postgresDB) check(ctx context.Context) error {
	var version int
	var encoding string
	err := p.pool.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding')`).Scan(&version, &encoding)
	switch {
	case err != nil:
		return fmt.Errorf("cannot reach the database: %w", err)
	case version < minPostgres:
		return fmt.Errorf("the database is PostgreSQL %d; 15 is the oldest that previewd works with", version/10000)
	case encoding != "UTF8":
		return fmt.Errorf("the database has the encoding %s: create one with ENCODING 'UTF8'", encoding)
	}
	return nil
}

func (p *postgresDB) name() string { return "postgres" }

func (p *postgresDB) reader(patient bool) querier {
	if patient {
		return postgresPatient{p.pool}
	}
	return postgresReader{p.pool}
}

func (p *postgresDB) close() error {
	p.pool.Close()
	return nil
}

func (p *postgresDB) locking(l lock) string {
	switch l {
	case skipLocked:
		return " FOR UPDATE OF p, b SKIP LOCKED"
	case lockEndpoint:
		return " FOR NO KEY UPDATE OF e"
	case claimEndpoint:
		return " FOR NO KEY UPDATE OF e SKIP LOCKED"
	case keepEndpoint:
		return " FOR KEY SHARE OF e"
	case lockRow:
		return " FOR UPDATE"
	case skipLockedRow:
		return " FOR UPDATE SKIP LOCKED"
	}
	return " FOR UPDATE OF p"
}

func (p *postgresDB) appendAudit(ctx context.Context, tx *DB, e AuditEntry, data string) error {
	if fault.Off(fault.AuditHead) {
		return tx.appendAuditInSteps(ctx, e, data)
	}
	_, err := tx.exec(ctx, `SELECT `+string(e.chain)+`_append_audit($1, $2, $3, $4, $5)`, micros(tx.now), e.Actor, e.Action, e.Subject, data)
	return err
}

const beginReadCommitted = "BEGIN ISOLATION LEVEL READ COMMITTED"

// limits are set in each transaction, in the round trip of its BEGIN.
// The last ends the transaction of a process that has stopped in its middle:
// others may wait for what it has locked.
const setLimits = `SELECT worker_now(), set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true),
	set_config('idle_in_transaction_session_timeout', $2, true)`

func (p *postgresDB) begin(ctx context.Context, _ bool) (t txn, err error) {
	for range maxTries {
		if t, err = p.beginOnce(ctx); err == nil || !isBroken(err) {
			break // else nothing has been done yet: another connection may do
		}
	}
	return t, err
}

func (p *postgresDB) beginOnce(ctx context.Context) (txn, error) {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	tx := &postgresTx{conn: conn}
	var batch pgx.Batch
	batch.Queue(beginReadCommitted)
	var us int64
	var ignored string
	batch.Queue(setLimits, milliseconds(statementLimit), milliseconds(lockLimit)).QueryRow(func(row pgx.Row) error {
		return row.Scan(&us, &ignored, &ignored, &ignored)
	})
	if err := conn.SendBatch(ctx, &batch).Close(); err != nil {
		_ = tx.rollback()
		return nil, err
	}
	tx.at = timeOf(&us)
	return tx, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// SQLSTATE codes (PostgreSQL documentation, appendix A).
const (
	stateDeadlock      = "40P01"
	stateSerialization = "40001"
	stateLockTimeout   = "55P03"
	stateCanceled      = "57014"
	stateDiskFull      = "53100"
	stateReadOnly      = "25006"
)

// translate turns what callers can act on into codes; the rest stays internal.
func (p *postgresDB) translate(err error) error {
	var e *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case err == nil || previewd.ErrorCode(err) != previewd.CodeInternal:
		return err
	case isBroken(err):
		return unreachable(fmt.Errorf("%w: %w", errBroken, err))
	case errors.As(err, &e):
		return translateState(e)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded) && !pgconn.Timeout(err):
		return err
	case errors.As(err, &connect), pgconn.Timeout(err):
		return unreachable(err)
	}
	return err
}

func unreachable(err error) error {
	return &previewd.Error{Code: previewd.CodeUnavailable, Message: "The database cannot be reached; try again.", RetryAfter: time.Second, Err: err}
}

func translateState(e *pgconn.PgError) error {
	switch {
	case e.Code == stateDeadlock || e.Code == stateSerialization:
		return &brokenOffError{&previewd.Error{
			Code: previewd.CodeUnavailable, Message: "The database is busy; try again.", RetryAfter: time.Second, Err: e,
		}}
	case e.Code == stateLockTimeout || e.Code == stateCanceled:
		return &previewd.Error{Code: previewd.CodeUnavailable, Message: "The database is busy; try again.", RetryAfter: time.Second, Err: e}
	case e.Code == stateDiskFull || e.Code == stateReadOnly:
		return &previewd.Error{
			Code: previewd.CodeUnavailable, Message: "The database cannot write; is its disk full?", RetryAfter: 10 * time.Second, Err: e,
		}
	case e.Code[:2] == "23": // integrity constraint violation
		return &previewd.Error{Code: previewd.CodeConflict, Message: "The database refuses this as inconsistent.", Err: e}
	case e.Code[:2] == "08" || e.Code[:2] == "53" || e.Code[:2] == "57": // connection, resources, operator
		return unreachable(e)
	}
	return e
}

// isBroken reports whether the connection ended before its answer.
func isBroken(err error) bool {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code[:2] == "57" && e.Code != stateCanceled // the server is going down, or an operator ended it
	}
	var network *net.OpError
	return errors.As(err, &network) && !network.Timeout() || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}

// postgresTx is a transaction on a connection of the pool.
type postgresTx struct {
	conn *pgxpool.Conn // nil when it is over
	at   time.Time
}

func (t *postgresTx) clock() time.Time { return t.at }

// commit must not be cut short by its caller: it would leave the outcome unknown.
func (t *postgresTx) commit() error {
	ctx, cancel := context.WithTimeout(context.Background(), statementLimit)
	defer cancel()
	tag, err := t.conn.Exec(ctx, "COMMIT")
	if err == nil && tag.String() != "COMMIT" {
		err = &previewd.Error{Code: previewd.CodeConflict, Message: "The database has rolled the transaction back.", Details: tag.String()}
	}
	t.conn.Release()
	t.conn = nil
	return err
}

func (t *postgresTx) rollback() error {
	if t.conn == nil {
		return nil
	}
	leave(t.conn)
	t.conn = nil
	return nil
}

// leave returns a connection to the pool, out of any transaction: the pool
// would throw away one that is left in a failed transaction.
func leave(conn *pgxpool.Conn) {
	defer conn.Release()
	if conn.Conn().IsClosed() || conn.Conn().PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockLimit)
	defer cancel()
	_, _ = conn.Exec(ctx, "ROLLBACK") // a connection that cannot is thrown away
}

func (t *postgresTx) exec(ctx context.Context, query string, args ...any) (int64, error) {
	tag, err := t.conn.Exec(ctx, query, args...)
	return tag.RowsAffected(), err
}

func (t *postgresTx) query(ctx context.Context, query string, args ...any) (rows, error) {
	found, err := t.conn.Query(ctx, query, args...)
	return postgresRows{found, func() {}}, err
}

// postgresReader reads what is committed.
type postgresReader struct{ pool *pgxpool.Pool }

func (r postgresReader) exec(context.Context, string, ...any) (int64, error) {
	return 0, errors.New("cannot write outside a transaction")
}

func (r postgresReader) query(ctx context.Context, query string, args ...any) (rows, error) {
	ctx, cancel := context.WithTimeout(ctx, statementLimit)
	found, err := r.pool.Query(ctx, query, args...)
	if err != nil {
		cancel()
		return nil, err
	}
	return postgresRows{found, cancel}, nil
}

type postgresRows struct {
	pgx.Rows
	done func()
}

func (r postgresRows) Close() error {
	r.Rows.Close()
	r.done()
	return r.Err()
}

package store

import (
	"context"
	"errors"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// postgresPatient reads whole tables. Each query has a transaction of its own,
// for settings that no session keeps: a longer limit, and no compiling of
// queries. The planner thinks a join of whole tables dear enough to compile, which
// takes a hundred times as long as running it on small ones, and saves nothing.
type postgresPatient struct{ pool *pgxpool.Pool }

const setPatience = `SELECT set_config('statement_timeout', $1, true), set_config('jit', 'off', true)`

func (r postgresPatient) exec(context.Context, string, ...any) (int64, error) {
	return 0, errors.New("cannot write outside a transaction")
}

func (r postgresPatient) query(ctx context.Context, query string, args ...any) (rows, error) {
	ctx, cancel := context.WithTimeout(ctx, integrityLimit)
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	done := sync.OnceFunc(func() {
		leave(conn)
		cancel()
	})
	var batch pgx.Batch
	batch.Queue(beginReadCommitted + ", READ ONLY")
	batch.Queue(setPatience, milliseconds(integrityLimit))
	if err := conn.SendBatch(ctx, &batch).Close(); err != nil {
		done()
		return nil, err
	}
	found, err := conn.Query(ctx, query, args...)
	if err != nil {
		done()
		return nil, err
	}
	return postgresRows{found, done}, nil
}

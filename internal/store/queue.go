package store

import (
	"context"
	"time"
)

// The queue is the queued rows, claimed by (fair_rank, id). A new build's rank
// is one more than its owner's last that waits, and that of the queue's head when
// none does: so owners take turns, whatever one of them has queued (start-time
// fair queueing, Goyal et al. 1996, with every build of the same cost).

// NextRank returns the rank of an owner's new build.
func (db *DB) NextRank(ctx context.Context, ownerID string, fair bool) (rank int64, err error) {
	if !fair {
		return 0, nil
	}
	_, err = db.one(ctx, []any{&rank}, `
		SELECT COALESCE((SELECT MAX(fair_rank) + 1 FROM worker_builds WHERE owner_id = $1 AND state = 'queued'),
			(SELECT fair_rank FROM worker_builds WHERE state = 'queued' ORDER BY fair_rank, id LIMIT 1), 0)`, ownerID)
	return rank, err
}

// CountAhead returns how many builds are claimed before one of this rank and
// id; it counts no further than limit.
func (db *DB) CountAhead(ctx context.Context, rank int64, buildID string, limit int) (n int, err error) {
	_, err = db.one(ctx, []any{&n}, `
		SELECT COUNT(*) FROM (SELECT 1 FROM worker_builds
			WHERE state = 'queued' AND (fair_rank, id) < ($1, $2) ORDER BY fair_rank, id LIMIT $3) AS ahead`,
		rank, buildID, limit)
	return n, err
}

// QueueFull returns OutcomeOwnerFull or OutcomeFull when a limit is reached,
// else "". It counts no further than the limits.
func (db *DB) QueueFull(ctx context.Context, ownerID string, limits QueueLimits) (Outcome, error) {
	var n int
	if limits.Owner > 0 {
		_, err := db.one(ctx, []any{&n}, `
			SELECT COUNT(*) FROM (SELECT 1 FROM worker_builds WHERE owner_id = $1 AND state = 'queued' LIMIT $2) AS mine`,
			ownerID, limits.Owner)
		if err != nil || n >= limits.Owner {
			return OutcomeOwnerFull, err
		}
	}
	if limits.Total > 0 {
		_, err := db.one(ctx, []any{&n}, `
			SELECT COUNT(*) FROM (SELECT 1 FROM worker_builds WHERE state = 'queued' LIMIT $1) AS waiting`, limits.Total)
		if err != nil || n >= limits.Total {
			return OutcomeFull, err
		}
	}
	return "", nil
}

// Queued is a build's place in the order of claims.
type Queued struct {
	Rank    int64
	ID      string
	OwnerID string
}

// ListQueue returns all builds that wait, in the order of claims.
func (db *DB) ListQueue(ctx context.Context) ([]Queued, error) {
	return all(ctx, db, func(r rows) (q Queued, err error) {
		err = r.Scan(&q.Rank, &q.ID, &q.OwnerID)
		return q, err
	}, `SELECT fair_rank, id, owner_id FROM worker_builds WHERE state = 'queued' ORDER BY fair_rank, id`)
}

// CountWaiting returns how many builds wait now.
func (db *DB) CountWaiting(ctx context.Context) (n int, err error) {
	_, err = db.one(ctx, []any{&n}, `SELECT COUNT(*) FROM worker_builds WHERE state = 'queued'`)
	return n, err
}

// CountRunning returns how many builds run now.
func (db *DB) CountRunning(ctx context.Context) (n int, err error) {
	_, err = db.one(ctx, []any{&n}, `SELECT COUNT(*) FROM worker_builds WHERE state IN ('building', 'canceling')`)
	return n, err
}

// Ended is a build that has run and is over.
type Ended struct {
	Completed bool
	Runner    string
	Cache     string
	Template  string
	At        time.Time
	Took      time.Duration // from its first claim to its end
}

// ListEnded returns the builds that ended last, the newest first.
func (db *DB) ListEnded(ctx context.Context, limit int) ([]Ended, error) {
	return all(ctx, db, func(r rows) (e Ended, err error) {
		var completed, started, finished int64
		err = r.Scan(&completed, &e.Runner, &e.Cache, &e.Template, &started, &finished)
		e.Completed, e.At, e.Took = completed == 1, timeOf(&finished), time.Duration(finished-started)*time.Microsecond
		return e, err
	}, `
		SELECT CASE WHEN state = 'completed' THEN 1 ELSE 0 END, runner, cache_state, template, started_at, finished_at
		FROM worker_builds WHERE started_at IS NOT NULL AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT $1`, limit)
}

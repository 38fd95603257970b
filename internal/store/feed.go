package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// The feed is all events in one order. Commits have no order that a query could
// follow: a number taken before the commit can become visible after a higher one
// was read, and is lost to whoever pages by it. So positions are given
// afterwards, to what is committed, under the lock of one row.

// FindFeed returns the feed's last position.
func (db *DB) FindFeed(ctx context.Context) (previewd.Cursor, error) {
	query := `SELECT generation, position FROM worker_feed WHERE name = 'worker'`
	if fault.Off(fault.FeedOrder) {
		query = `SELECT generation, (SELECT COALESCE(MAX(feed_pos), 0) FROM worker_events) FROM worker_feed WHERE name = 'worker'`
	}
	var head previewd.Cursor
	_, err := db.one(ctx, []any{&head.Generation, &head.Position}, query)
	return head, err
}

// ListFeed returns events in the feed's order, after a position.
func (db *DB) ListFeed(ctx context.Context, after int64, limit int) ([]previewd.Event, error) {
	return all(ctx, db, scanEvent, `
		SELECT `+eventColumns+` FROM worker_events WHERE feed_pos > $1 ORDER BY feed_pos LIMIT $2`, after, limit)
}

// AssignFeed gives the next positions to at most limit committed events that
// have none, and returns to how many. It writes nothing when there are none. One
// holder leads for as long as its lease, which every batch renews; others give
// none meanwhile, and leads is false. Should two lead all the same, the lock of
// the head keeps the order: the second sees what the first has given.
func (db *DB) AssignFeed(ctx context.Context, holder string, lease time.Duration, limit int) (given int, leads bool, err error) {
	var one int
	found, err := db.one(ctx, []any{&one}, `SELECT 1 FROM worker_events WHERE feed_pos IS NULL LIMIT 1`)
	if err != nil || !found {
		return 0, true, err
	}
	err = db.Tx(ctx, "feed", func(tx *DB) error {
		given, leads, err = tx.AssignFeedHere(ctx, holder, lease, limit)
		return err
	})
	return given, leads, err
}

// CountUnfed returns how many events have waited for a position since before a
// moment.
func (db *DB) CountUnfed(ctx context.Context, before time.Time) (n int, err error) {
	_, err = db.one(ctx, []any{&n}, `SELECT COUNT(*) FROM worker_events WHERE feed_pos IS NULL AND at < $1`, micros(before))
	return n, err
}

// AssignFeedHere is AssignFeed in the transaction.
func (db *DB) AssignFeedHere(ctx context.Context, holder string, lease time.Duration, limit int) (given int, leads bool, err error) {
	// The head is locked before the events are read: what is read below is all
	// that others have left.
	var position int64
	leads, err = db.one(ctx, []any{&position}, `
		UPDATE worker_feed SET holder = $1, holder_until = $2
		WHERE name = 'worker' AND (holder = $1 OR holder_until <= $3) RETURNING position`,
		holder, micros(db.now.Add(lease)), micros(db.now))
	if err != nil || !leads {
		return 0, leads, err
	}
	n, err := db.exec(ctx, `
		UPDATE worker_events AS e SET feed_pos = $1 + n.place
		FROM (
			SELECT project_id, seq, row_number() OVER (ORDER BY project_id, seq) AS place
			FROM (SELECT project_id, seq FROM worker_events WHERE feed_pos IS NULL ORDER BY project_id, seq LIMIT $2) AS f
		) AS n
		WHERE e.project_id = n.project_id AND e.seq = n.seq`, position, limit)
	if err != nil {
		return 0, true, err
	}
	_, err = db.exec(ctx, `UPDATE worker_feed SET position = position + $1 WHERE name = 'worker'`, n)
	return int(n), true, err
}

// ReleaseFeed ends the holder's lease, so that another leads at once.
func (db *DB) ReleaseFeed(ctx context.Context, holder string) error {
	return db.Tx(ctx, "feed_release", func(tx *DB) error {
		_, err := tx.exec(ctx, `UPDATE worker_feed SET holder_until = 0 WHERE name = 'worker' AND holder = $1`, holder)
		return err
	})
}

// earlyPositions counts events as they are inserted. It is used only where the
// tests switch fault.FeedOrder off, to see that they notice.
var earlyPositions atomic.Int64

func earlyPosition() any {
	if fault.Off(fault.FeedOrder) {
		return earlyPositions.Add(1)
	}
	return nil
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/previewd/previewd/internal/fault"
)

// sqliteWriter is the one connection that writes. It keeps each statement
// prepared, which saves half of the time of a short one. Transactions that wait
// for their turn anyway share one commit, and its sync of the disk: each is a
// savepoint, fails alone, and is answered when the commit has returned.
type sqliteWriter struct {
	db    *sql.DB
	conn  *sql.Conn
	turn  turn
	stmts map[string]*sql.Stmt
	group *commitGroup // whose transaction is open; nil between transactions
}

// commitGroup is the transactions that share a commit.
type commitGroup struct {
	members int
	alone   bool
	done    chan struct{} // closed when err is set
	err     error
}

const maxGroup = 32

// sqliteTx is the transaction whose turn it is.
type sqliteTx struct {
	*sqliteWriter
	at     time.Time
	joined bool // it runs in a savepoint of the group's transaction
	over   bool
}

func (w *sqliteWriter) begin(ctx context.Context, alone bool, now func() time.Time) (txn, error) {
	if err := w.turn.take(ctx); err != nil {
		if errors.Is(err, errTooLate) {
			_ = w.settle(nil) // it was our turn: the others in the group wait for the commit
			return nil, ctx.Err()
		}
		return nil, err
	}
	if w.group != nil && (alone || w.group.alone) {
		w.end(w.exec("COMMIT"))
	}
	tx := &sqliteTx{sqliteWriter: w, joined: w.group != nil}
	begin := "BEGIN IMMEDIATE"
	switch {
	case tx.joined:
		begin = "SAVEPOINT member"
	case fault.Off(fault.ImmediateBegin):
		begin = "BEGIN"
	}
	// IMMEDIATE takes the write lock now: a transaction that reads first and
	// upgrades later fails at once whatever busy_timeout says. It must not be cut
	// short: the driver reports a canceled BEGIN as failed even when it took place.
	if err := w.exec(begin); err != nil {
		if !tx.joined {
			w.turn.pass()
			return nil, err
		}
		return nil, w.fail(err)
	}
	if !tx.joined {
		w.group = &commitGroup{alone: alone, done: make(chan struct{})}
	}
	// Taken after BEGIN, so that the order of timestamps is the order of commits.
	tx.at = now().UTC().Truncate(time.Microsecond)
	return tx, nil
}

// exec runs a statement that must not be cut short.
func (w *sqliteWriter) exec(query string) error {
	_, err := w.conn.ExecContext(context.Background(), query)
	return err
}

func (t *sqliteTx) clock() time.Time { return t.at }

func (t *sqliteTx) commit() error {
	t.over = true
	if t.joined {
		if err := t.sqliteWriter.exec("RELEASE member"); err != nil {
			return t.fail(err)
		}
	}
	return t.settle(t.group)
}

func (t *sqliteTx) rollback() error {
	if t.over {
		return nil
	}
	t.over = true
	if !t.joined {
		_ = t.sqliteWriter.exec("ROLLBACK") // an error says that SQLite has rolled back by itself, as on a full disk
		t.group = nil
		t.turn.pass()
		return nil
	}
	if err := errors.Join(t.sqliteWriter.exec("ROLLBACK TO member"), t.sqliteWriter.exec("RELEASE member")); err != nil {
		return t.fail(err)
	}
	// It may have read what others in the group have written: nobody is told of
	// that before it is committed.
	return t.settle(t.group)
}

// settle gives the open transaction to the next that waits, or commits it. It
// returns what became of a member's group; nil is for who is not a member.
func (w *sqliteWriter) settle(member *commitGroup) error {
	g := w.group
	if g == nil {
		w.turn.pass()
		return nil
	}
	if member != nil {
		g.members++
	}
	if g.members >= maxGroup || g.alone || !w.turn.handOver() {
		err := w.exec("COMMIT")
		if err != nil {
			_ = w.exec("ROLLBACK") // an error says that SQLite has rolled back by itself
			if g.members > 1 && isForeignKey(err) {
				err = &brokenOffError{err} // one of them did it: each tries again, alone
			}
		}
		w.end(err)
		w.turn.pass()
	}
	if member == nil {
		return nil
	}
	<-member.done
	return member.err
}

// end tells the group what became of it.
func (w *sqliteWriter) end(err error) {
	w.group.err = err
	close(w.group.done)
	w.group = nil
}

// fail ends a group whose transaction SQLite has rolled back by itself.
func (w *sqliteWriter) fail(err error) error {
	_ = w.exec("ROLLBACK")
	w.end(err)
	w.turn.pass()
	return err
}

// turn lets one at a time go on, in the order of asking.
type turn struct {
	mu      sync.Mutex
	taken   bool
	waiting []chan struct{}
}

var errTooLate = errors.New("the turn came when nobody wanted it any more")

// take waits for the turn. With errTooLate the caller has it all the same.
func (t *turn) take(ctx context.Context) error {
	t.mu.Lock()
	if !t.taken {
		t.taken = true
		t.mu.Unlock()
		return nil
	}
	mine := make(chan struct{})
	t.waiting = append(t.waiting, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.waiting, mine); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
		return ctx.Err()
	}
	return errTooLate
}

// handOver gives the turn to the next that waits; false when nobody does.
func (t *turn) handOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		return false
	}
	close(t.waiting[0])
	t.waiting = t.waiting[1:]
	return true
}

// pass gives the turn to the next that waits, or leaves it free.
func (t *turn) pass() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == 0 {
		t.taken = false
		return
	}
	close(t.waiting[0])
	t.waiting = t.waiting[1:]
}

package store

import (
	"context"
	"maps"
	"sync"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// buildReads shares queries among reads of builds that wait anyway. A read that
// comes while few are under way is sent at once. Those that come while many are
// go together when one of them is through: so each is answered by a query that
// was sent after it came, and sees what was committed before.
type buildReads struct {
	mu      sync.Mutex
	pending []*buildRead
	busy    int
	stale   map[string]*Build // what has been read: used only to show that the tests notice
}

const (
	maxReading = 8  // queries at a time
	maxRead    = 64 // builds in one
)

// buildRead is a read that waits.
type buildRead struct {
	id    string
	build *Build // nil: there is none
	err   error
	done  chan struct{}
}

// findShared is findBuild for many at a time.
func (db *DB) findShared(ctx context.Context, id string) (*Build, error) {
	if !previewd.IsID(id) {
		return nil, previewd.NotFound("build", id) // what no column can hold would fail all
	}
	r := db.reads
	r.mu.Lock()
	if r.busy < maxReading {
		r.busy++
		r.mu.Unlock()
		defer db.readOn()
		return db.findBuild(ctx, id, notDeleted)
	}
	if b := r.stale[id]; b != nil && fault.Off(fault.FreshRead) {
		defer r.mu.Unlock()
		return new(*b), nil
	}
	read := &buildRead{id: id, done: make(chan struct{})}
	r.pending = append(r.pending, read)
	r.mu.Unlock()
	select {
	case <-read.done:
	case <-ctx.Done():
		return nil, ctx.Err() // the others do without it
	}
	if read.build == nil && read.err == nil {
		return nil, previewd.NotFound("build", id)
	}
	return read.build, read.err
}

// readOn reads what has come while all were busy, or makes room.
func (db *DB) readOn() {
	if reads := db.reads.take(); reads != nil {
		go func() {
			for ; reads != nil; reads = db.reads.take() {
				db.readAll(reads)
			}
		}()
	}
}

func (r *buildReads) take() []*buildRead {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.pending), maxRead)
	if n == 0 {
		r.pending = nil
		r.busy--
		return nil
	}
	reads := r.pending[:n:n]
	r.pending = r.pending[n:]
	return reads
}

// findBuilds looks each build's version up by itself. A plan for a join is made
// once, while the table of versions is small, and would read it whole for ever.
const findBuilds = `SELECT ` + buildColumns + ` FROM worker_builds b
	LEFT JOIN LATERAL (SELECT number FROM worker_versions WHERE build_id = b.id OFFSET 0) v ON TRUE WHERE b.id = ANY($1)` + notDeleted

func (db *DB) readAll(reads []*buildRead) {
	ids := make([]string, len(reads))
	for i, read := range reads {
		ids[i] = read.id
	}
	ctx := context.Background() // who hangs up must not end it for the others; the statement has its limit
	found, err := all(ctx, db, scanBuild, findBuilds, ids)
	byID := make(map[string]*Build, len(found))
	for _, b := range found {
		byID[b.ID] = b
	}
	if fault.Off(fault.FreshRead) {
		db.reads.mu.Lock()
		if db.reads.stale == nil {
			db.reads.stale = map[string]*Build{}
		}
		maps.Copy(db.reads.stale, byID)
		db.reads.mu.Unlock()
	}
	for _, read := range reads {
		if b := byID[read.id]; b != nil {
			read.build = new(*b) // several can have asked for it, and each writes into its own
		}
		if read.err = err; previewd.ErrorCode(err) == previewd.CodeInternal {
			read.build, read.err = db.findBuild(ctx, read.id, notDeleted) // a row that cannot be read fails its readers only
		}
		close(read.done)
	}
}

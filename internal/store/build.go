package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// Build is a build's whole row.
type Build struct {
	previewd.Build
	State     previewd.BuildState
	RunnerID  string
	Metadata  string // JSON
	CreatedBy string // the service that asked for it
	RequestID string
	OwnerID   string
	FairRank  int64     // with the id: the place in the queue
	ClaimedAt time.Time // when its last attempt began; zero when none has
}

// InsertBuild stores a new build.
func (db *DB) InsertBuild(ctx context.Context, b *Build) error {
	_, err := db.exec(ctx, `
		INSERT INTO worker_builds (id, project_id, seq, state, max_attempts, runnable_at, reference_id, prompt, template, metadata,
			source_digest, source_files, source_bytes, created_by, request_id, queued_at, owner_id, fair_rank, repairs)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)`,
		b.ID, b.ProjectID, b.Seq, string(b.State.Status), b.State.MaxAttempts, micros(b.State.RunnableAt), b.ReferenceID,
		b.Prompt, b.Template, b.Metadata, string(b.Source.Digest), b.Source.Files, b.Source.Bytes,
		b.CreatedBy, b.RequestID, micros(b.QueuedAt), b.OwnerID, b.FairRank, null(b.Repairs))
	return err
}

const buildColumns = `
	b.id, b.project_id, b.seq, b.state, b.step, b.epoch, b.attempt, b.max_attempts, b.runnable_at, b.runner_id,
	b.lease_until, b.cancel_reason, b.cancel_deadline, b.superseded_by, b.failure_class, b.failure, b.reference_id,
	b.runner, b.runner_reason, b.isolation, b.prompt, b.template, b.metadata, b.source_digest, b.source_files,
	b.source_bytes, b.log_bytes, b.created_by, b.request_id, b.queued_at, b.started_at, b.finished_at,
	b.owner_id, b.fair_rank, b.cache_state, b.claimed_at, b.repairs, b.packages, COALESCE(v.number, 0)`

const buildFrom = ` FROM worker_builds b LEFT JOIN worker_versions v ON v.build_id = b.id `

// buildScan holds the nullable columns of a row between Scan and the noun.
type buildScan struct {
	runnerID, cancelReason, supersededBy, failureClass, failure  *string
	runnable, queued, lease, cancelDeadline, startedAt, finished *int64
	claimed                                                      *int64
	repairs                                                      *string
}

func (s *buildScan) dest(b *Build) []any {
	return []any{
		&b.ID, &b.ProjectID, &b.Seq, (*string)(&b.Status), &b.Step, &b.Epoch, &b.Attempt, &b.State.MaxAttempts,
		&s.runnable, &s.runnerID, &s.lease, &s.cancelReason, &s.cancelDeadline, &s.supersededBy, &s.failureClass,
		&s.failure, &b.ReferenceID, &b.Runner, &b.Reason, &b.Isolation, &b.Prompt, &b.Template, &b.Metadata,
		(*string)(&b.Source.Digest), &b.Source.Files, &b.Source.Bytes, &b.LogBytes, &b.CreatedBy, &b.RequestID,
		&s.queued, &s.startedAt, &s.finished, &b.OwnerID, &b.FairRank, &b.Cache, &s.claimed, &s.repairs, &b.Packages, &b.Version,
	}
}

func (s *buildScan) fill(b *Build) error {
	b.RunnerID, b.SupersededBy, b.Repairs = text(s.runnerID), text(s.supersededBy), text(s.repairs)
	b.CancelReason = previewd.CancelReason(text(s.cancelReason))
	b.QueuedAt, b.StartedAt, b.FinishedAt = timeOf(s.queued), timePtr(s.startedAt), timePtr(s.finished)
	b.ClaimedAt = timeOf(s.claimed)
	b.State = previewd.BuildState{
		Status: b.Status, Epoch: b.Epoch, Attempt: b.Attempt, MaxAttempts: b.State.MaxAttempts,
		RunnableAt: timeOf(s.runnable), LeaseUntil: timeOf(s.lease),
		CancelReason: b.CancelReason, CancelDeadline: timeOf(s.cancelDeadline),
		FailureClass: previewd.FailureClass(text(s.failureClass)),
	}
	if s.failure == nil {
		return nil
	}
	return json.Unmarshal([]byte(*s.failure), &b.Failure)
}

func scanBuild(r rows) (*Build, error) {
	b, s := new(Build), buildScan{}
	if err := r.Scan(s.dest(b)...); err != nil {
		return nil, err
	}
	return b, s.fill(b)
}

// FindBuild returns CodeNotFound when there is no such build, or its project is
// deleted.
func (db *DB) FindBuild(ctx context.Context, id string) (*Build, error) {
	if db.reads != nil {
		return db.findShared(ctx, id)
	}
	return db.findBuild(ctx, id, notDeleted)
}

// notDeleted leaves builds of deleted projects out.
const notDeleted = ` AND EXISTS (SELECT 1 FROM worker_projects p WHERE p.id = b.project_id AND p.state = 'active')`

// FindAnyBuild is FindBuild for those who see a build to its end: it returns
// those of deleted projects too.
func (db *DB) FindAnyBuild(ctx context.Context, id string) (*Build, error) {
	return db.findBuild(ctx, id, ``)
}

func (db *DB) findBuild(ctx context.Context, id, and string) (*Build, error) {
	list, err := all(ctx, db, scanBuild, `SELECT `+buildColumns+buildFrom+`WHERE b.id = $1`+and, id)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, previewd.NotFound("build", id)
	}
	return list[0], nil
}

// LockBuild returns the build with its project locked, deleted or not: nobody
// changes either before the transaction ends. It returns CodeNotFound when there
// is no such build.
func (db *DB) LockBuild(ctx context.Context, id string) (*Build, error) {
	return db.lockBuild(ctx, id, ``)
}

// LockLiveBuild is LockBuild but for those of deleted projects: it does not find them.
func (db *DB) LockLiveBuild(ctx context.Context, id string) (*Build, error) {
	return db.lockBuild(ctx, id, notDeleted)
}

func (db *DB) lockBuild(ctx context.Context, id, and string) (*Build, error) {
	b, err := db.findBuild(ctx, id, and)
	if err != nil || db.engine.locking(lockProject) == "" {
		return b, err
	}
	if _, err := db.LockAnyProject(ctx, b.ProjectID); err != nil {
		return nil, err
	}
	return db.findBuild(ctx, id, and) // as it is now that the lock is held
}

// FindRunnableBuild returns the build that is claimed next, locked with its
// project, or nil: the first of the queue that is due and whose project runs no
// other. It passes over what others have locked.
func (db *DB) FindRunnableBuild(ctx context.Context) (*Build, error) {
	list, err := all(ctx, db, scanBuild, `
		SELECT `+buildColumns+buildFrom+` JOIN worker_projects p ON p.id = b.project_id
		WHERE b.state = 'queued' AND b.runnable_at <= $1 AND p.state = 'active' AND NOT EXISTS (
			SELECT 1 FROM worker_builds r WHERE r.project_id = b.project_id AND r.state IN ('building', 'canceling'))
		ORDER BY b.fair_rank, b.id LIMIT 1`+db.engine.locking(skipLocked), micros(db.now))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// ListActiveBuilds returns the project's builds that are not over, oldest first.
func (db *DB) ListActiveBuilds(ctx context.Context, projectID string) ([]*Build, error) {
	return all(ctx, db, scanBuild, `
		SELECT `+buildColumns+buildFrom+`
		WHERE b.project_id = $1 AND b.state IN ('queued', 'building', 'canceling') ORDER BY b.seq`, projectID)
}

// NewestBuild returns the number of the project's newest build that nobody has
// taken back: not canceled, and not replaced.
func (db *DB) NewestBuild(ctx context.Context, projectID string) (seq int64, err error) {
	_, err = db.one(ctx, []any{&seq}, `
		SELECT COALESCE(MAX(seq), 0) FROM worker_builds WHERE project_id = $1 AND state NOT IN ('canceled', 'superseded')`, projectID)
	return seq, err
}

// FindWaiting returns the id of the project's build that waits, or "".
func (db *DB) FindWaiting(ctx context.Context, projectID string) (id string, err error) {
	_, err = db.one(ctx, []any{&id}, `SELECT id FROM worker_builds WHERE project_id = $1 AND state = 'queued'`, projectID)
	return id, err
}

// ListExpiredBuilds returns builds whose lease or cancel deadline has passed.
func (db *DB) ListExpiredBuilds(ctx context.Context, limit int) ([]*Build, error) {
	states := `('building', 'canceling')`
	if fault.Off(fault.ReapCanceling) {
		states = `('building')`
	}
	return all(ctx, db, scanBuild, `
		SELECT `+buildColumns+buildFrom+`
		WHERE b.state IN `+states+` AND (b.lease_until < $1 OR b.cancel_deadline < $1)
		ORDER BY b.lease_until LIMIT $2`, micros(db.now), limit)
}

// ListRunnerBuilds returns the builds that a runner holds.
func (db *DB) ListRunnerBuilds(ctx context.Context, runnerID string) ([]*Build, error) {
	return all(ctx, db, scanBuild, `
		SELECT `+buildColumns+buildFrom+`
		WHERE b.state IN ('building', 'canceling') AND b.runner_id = $1 ORDER BY b.id`, runnerID)
}

// ListStaleBuilds returns builds that could have been claimed since before a moment.
func (db *DB) ListStaleBuilds(ctx context.Context, before time.Time, limit int) ([]*Build, error) {
	return all(ctx, db, scanBuild, `
		SELECT `+buildColumns+buildFrom+`
		WHERE b.state = 'queued' AND b.runnable_at < $1 ORDER BY b.runnable_at LIMIT $2`, micros(before), limit)
}

// UpdateBuild writes what may change of a build, guarded by the status and
// epoch of the state it was read with. It returns CodeConflict when the row
// has another.
func (db *DB) UpdateBuild(ctx context.Context, read previewd.BuildState, b *Build) error {
	var failure any
	if b.Failure != nil && b.State.Status == previewd.BuildFailed {
		raw, err := json.Marshal(b.Failure)
		if err != nil {
			return err
		}
		failure = string(raw)
	}
	guard := `epoch = $2 AND state = $3`
	if fault.Off(fault.StateGuard) {
		guard = `epoch >= $2 - 1000000 AND state <> $3 || '-'`
	}
	s := b.State
	return changedOne(db.exec(ctx, `
		UPDATE worker_builds SET state = $4, step = $5, epoch = $6, attempt = $7, runnable_at = $8, runner_id = $9,
			lease_until = $10, cancel_reason = $11, cancel_deadline = $12, superseded_by = $13, failure_class = $14,
			failure = $15, runner = $16, runner_reason = $17, isolation = $18, started_at = $19, finished_at = $20, cache_state = $21,
			claimed_at = $22, packages = $23
		WHERE id = $1 AND `+guard,
		b.ID, read.Epoch, string(read.Status),
		string(s.Status), b.Step, s.Epoch, s.Attempt, micros(s.RunnableAt), null(b.RunnerID),
		micros(s.LeaseUntil), null(string(s.CancelReason)), micros(s.CancelDeadline), null(b.SupersededBy),
		null(string(s.FailureClass)), failure, b.Runner, b.Reason, b.Isolation, microsPtr(b.StartedAt), microsPtr(b.FinishedAt), b.Cache, micros(b.ClaimedAt), b.Packages))
}

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/previewd/previewd"
)

// AppProject is a project's row with that of its newest build.
type AppProject struct {
	previewd.AppProject
	IntentID     string
	OwnerID      string
	LastEventSeq int64 // of the worker's events, the last that was applied
	State        string
	Attention    string // why an operator should look; "" for nothing
	Newest       *AppBuild
}

// AppBuild is a build's row.
type AppBuild struct {
	previewd.AppBuild
	OwnerID      string
	WorkerStatus previewd.BuildStatus
	Epoch        int64
	EventSeq     int64 // of its events, the last that was applied
}

const appBuildColumns = `b.id, b.project_id, b.owner_id, b.seq, b.status, b.worker_status, b.canceling, b.epoch, b.version, b.preview_url,
	b.superseded_by, b.failure, b.reference_id, b.event_seq, b.queued_at, b.started_at, b.finished_at`

// appBuildScan holds what a build's columns are read into before fill.
type appBuildScan struct {
	canceling         int
	failure           *string
	queued            int64
	started, finished *int64
}

func (s *appBuildScan) dest(b *AppBuild) []any {
	return []any{&b.ID, &b.ProjectID, &b.OwnerID, &b.Seq, (*string)(&b.Status), (*string)(&b.WorkerStatus), &s.canceling, &b.Epoch,
		&b.Version, &b.PreviewURL, &b.SupersededBy, &s.failure, &b.ReferenceID, &b.EventSeq, &s.queued, &s.started, &s.finished}
}

func (s *appBuildScan) fill(b *AppBuild) error {
	b.Canceling, b.QueuedAt, b.StartedAt, b.FinishedAt = s.canceling == 1, timeOf(&s.queued), timePtr(s.started), timePtr(s.finished)
	if s.failure == nil {
		return nil
	}
	b.Failure = new(previewd.Failure)
	return json.Unmarshal([]byte(*s.failure), b.Failure)
}

func scanAppBuild(r rows) (*AppBuild, error) {
	b, s := new(AppBuild), appBuildScan{}
	if err := r.Scan(s.dest(b)...); err != nil {
		return nil, err
	}
	return b, s.fill(b)
}

const appProjectColumns = `p.id, p.intent_id, p.owner_id, p.name, p.prompt, p.template, p.preview_url, p.state, p.current_version, p.pinned,
	p.last_event_seq, p.attention, p.created_at, p.updated_at, `

func scanAppProject(r rows) (*AppProject, error) {
	p, s := &AppProject{Newest: new(AppBuild)}, appBuildScan{}
	var pinned int
	var created, updated int64
	dest := []any{&p.ID, &p.IntentID, &p.OwnerID, &p.Name, &p.Prompt, &p.Template, &p.PreviewURL, &p.State, &p.CurrentVersion, &pinned,
		&p.LastEventSeq, &p.Attention, &created, &updated}
	if err := r.Scan(append(dest, s.dest(p.Newest)...)...); err != nil {
		return nil, err
	}
	if err := s.fill(p.Newest); err != nil {
		return nil, err
	}
	p.Pinned, p.Deleting, p.CreatedAt, p.UpdatedAt = pinned == 1, p.State == "deleting", timeOf(&created), timeOf(&updated)
	p.Build, p.Status, p.Canceling = p.Newest.AppBuild, p.Newest.Status, p.Newest.Canceling
	return p, nil
}

const appProjectFrom = ` FROM gateway_projects p JOIN gateway_builds b ON b.project_id = p.id AND b.seq = p.build_seq WHERE `

// InsertAppProject stores a project that the worker has made, and its first build.
func (db *DB) InsertAppProject(ctx context.Context, p *AppProject) error {
	_, err := db.exec(ctx, `
		INSERT INTO gateway_projects (id, intent_id, owner_id, name, prompt, template, preview_url, state, build_seq, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 'active', $8, $9, $9)`,
		p.ID, p.IntentID, p.OwnerID, p.Name, p.Prompt, p.Template, p.PreviewURL, p.Newest.Seq, micros(db.now))
	if err != nil {
		return err
	}
	_, err = db.insertAppBuild(ctx, p.Newest)
	return err
}

// InsertAppBuild stores a build; one that is stored already stays as it is.
func (db *DB) InsertAppBuild(ctx context.Context, b *AppBuild) error {
	n, err := db.insertAppBuild(ctx, b)
	if err != nil || n == 0 {
		return err
	}
	_, err = db.exec(ctx, `UPDATE gateway_projects SET build_seq = $2, updated_at = $3 WHERE id = $1 AND build_seq < $2`,
		b.ProjectID, b.Seq, micros(db.now))
	return err
}

func (db *DB) insertAppBuild(ctx context.Context, b *AppBuild) (n int64, err error) {
	failure, err := failureText(b.Failure)
	if err != nil {
		return 0, err
	}
	return db.exec(ctx, `
		INSERT INTO gateway_builds (id, project_id, owner_id, seq, status, worker_status, canceling, epoch, version, preview_url,
			superseded_by, failure, reference_id, event_seq, queued_at, started_at, finished_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
		ON CONFLICT (id) DO NOTHING`,
		b.ID, b.ProjectID, b.OwnerID, b.Seq, string(b.Status), string(b.WorkerStatus), number01(b.Canceling), b.Epoch, b.Version,
		b.PreviewURL, b.SupersededBy, failure, b.ReferenceID, b.EventSeq, micros(b.QueuedAt), microsPtr(b.StartedAt), microsPtr(b.FinishedAt))
}

// UpdateAppBuild stores what an event has changed of a build. It returns
// CodeConflict when a later event was applied already.
func (db *DB) UpdateAppBuild(ctx context.Context, b *AppBuild) error {
	failure, err := failureText(b.Failure)
	if err != nil {
		return err
	}
	return changedOne(db.exec(ctx, `
		UPDATE gateway_builds SET status = $2, worker_status = $3, canceling = $4, epoch = $5, version = $6, superseded_by = $7,
			failure = $8, event_seq = $9, started_at = $10, finished_at = $11, reference_id = $12
		WHERE id = $1 AND event_seq <= $9`,
		b.ID, string(b.Status), string(b.WorkerStatus), number01(b.Canceling), b.Epoch, b.Version, b.SupersededBy, failure,
		b.EventSeq, microsPtr(b.StartedAt), microsPtr(b.FinishedAt), b.ReferenceID))
}

func failureText(f *previewd.Failure) (any, error) {
	if f == nil {
		return nil, nil
	}
	text, err := json.Marshal(f)
	return string(text), err
}

func number01(b bool) int {
	if b {
		return 1
	}
	return 0
}

func microsPtr(t *time.Time) any {
	if t == nil {
		return nil
	}
	return micros(*t)
}

func (db *DB) findAppProject(ctx context.Context, id, where string, args ...any) (*AppProject, error) {
	if !previewd.IsID(id) {
		return nil, previewd.NotFound("project", id) // what no column can hold would be a fault
	}
	list, err := all(ctx, db, scanAppProject, `SELECT `+appProjectColumns+appBuildColumns+appProjectFrom+where, args...)
	if err == nil && len(list) == 0 {
		err = previewd.NotFound("project", id)
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// FindAppProject returns an owner's project that is not deleted. It returns
// CodeNotFound, for another's as for one that is not there.
func (db *DB) FindAppProject(ctx context.Context, ownerID, id string) (*AppProject, error) {
	return db.findAppProject(ctx, id, `p.id = $1 AND p.owner_id = $2 AND p.state <> 'deleted'`, id, ownerID)
}

// FindAnyAppProject returns a project, whoever's it is and whatever became of
// it: for what acts on the worker's word. It returns CodeNotFound.
func (db *DB) FindAnyAppProject(ctx context.Context, id string) (*AppProject, error) {
	return db.findAppProject(ctx, id, `p.id = $1`, id)
}

// LockAppProject keeps others from changing a project until the transaction
// ends, and returns it. It returns CodeNotFound.
func (db *DB) LockAppProject(ctx context.Context, id string) (*AppProject, error) {
	if !previewd.IsID(id) {
		return nil, previewd.NotFound("project", id)
	}
	query := `SELECT 1 FROM gateway_projects WHERE id = $1` + db.engine.locking(lockRow)
	var one int
	if found, err := db.one(ctx, []any{&one}, query, id); err != nil || !found {
		if err == nil {
			err = previewd.NotFound("project", id)
		}
		return nil, err
	}
	return db.FindAnyAppProject(ctx, id)
}

// ListAppProjects returns an owner's projects whose id is below the cursor,
// newest first.
func (db *DB) ListAppProjects(ctx context.Context, ownerID, below string, limit int) ([]*AppProject, error) {
	return all(ctx, db, scanAppProject, `SELECT `+appProjectColumns+appBuildColumns+appProjectFrom+`
		p.owner_id = $1 AND p.id < $2 AND p.state <> 'deleted' ORDER BY p.id DESC LIMIT $3`, ownerID, below, limit)
}

// AppProjectChange is what to change of a project; nil leaves it as it is.
type AppProjectChange struct {
	Name           *string
	State          *string
	CurrentVersion *int64
	Pinned         *bool
	Attention      *string
	LastEventSeq   *int64
}

// UpdateAppProject changes a project.
func (db *DB) UpdateAppProject(ctx context.Context, id string, c AppProjectChange) error {
	query, args := `UPDATE gateway_projects SET updated_at = $2`, []any{id, micros(db.now)}
	set := func(column string, value any) {
		args = append(args, value)
		query += fmt.Sprintf(`, %s = $%d`, column, len(args))
	}
	if c.Name != nil {
		set("name", *c.Name)
	}
	if c.State != nil {
		set("state", *c.State)
		if *c.State == "deleted" {
			set("deleted_at", micros(db.now))
		}
	}
	if c.CurrentVersion != nil {
		set("current_version", *c.CurrentVersion)
	}
	if c.Pinned != nil {
		set("pinned", number01(*c.Pinned))
	}
	if c.Attention != nil {
		set("attention", *c.Attention)
	}
	if c.LastEventSeq != nil {
		set("last_event_seq", *c.LastEventSeq)
	}
	return changedOne(db.exec(ctx, query+` WHERE id = $1`, args...))
}

// ListDeleting returns projects whose deletion is not done.
func (db *DB) ListDeleting(ctx context.Context, limit int) ([]*AppProject, error) {
	return all(ctx, db, scanAppProject, `SELECT `+appProjectColumns+appBuildColumns+appProjectFrom+`p.state = 'deleting' ORDER BY p.id LIMIT $1`, limit)
}

// ListAttention returns projects that need an operator.
func (db *DB) ListAttention(ctx context.Context, limit int) ([]*AppProject, error) {
	return all(ctx, db, scanAppProject, `SELECT `+appProjectColumns+appBuildColumns+appProjectFrom+`p.attention <> '' ORDER BY p.id LIMIT $1`, limit)
}

// CountAttention returns how many projects and intents need an operator.
func (db *DB) CountAttention(ctx context.Context) (projects, intents int, err error) {
	_, err = db.one(ctx, []any{&projects, &intents}, `SELECT (SELECT COUNT(*) FROM gateway_projects WHERE attention <> ''),
		(SELECT COUNT(*) FROM gateway_intents WHERE state = 'attention')`)
	return projects, intents, err
}

func (db *DB) findAppBuild(ctx context.Context, id, where string, args ...any) (*AppBuild, error) {
	if !previewd.IsID(id) {
		return nil, previewd.NotFound("build", id)
	}
	list, err := all(ctx, db, scanAppBuild, `SELECT `+appBuildColumns+` FROM gateway_builds b WHERE `+where, args...)
	if err == nil && len(list) == 0 {
		err = previewd.NotFound("build", id)
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// FindAppBuild returns an owner's build of a project that is not deleted. It
// returns CodeNotFound, for another's as for one that is not there.
func (db *DB) FindAppBuild(ctx context.Context, ownerID, id string) (*AppBuild, error) {
	return db.findAppBuild(ctx, id, `b.id = $1 AND b.owner_id = $2
		AND EXISTS (SELECT 1 FROM gateway_projects p WHERE p.id = b.project_id AND p.state <> 'deleted')`, id, ownerID)
}

// FindAnyAppBuild returns a build, whoever's it is, or nil.
func (db *DB) FindAnyAppBuild(ctx context.Context, id string) (*AppBuild, error) {
	b, err := db.findAppBuild(ctx, id, `b.id = $1`, id)
	if previewd.ErrorCode(err) == previewd.CodeNotFound {
		return nil, nil
	}
	return b, err
}

// ListAppBuilds returns a project's builds below a number, newest first.
func (db *DB) ListAppBuilds(ctx context.Context, projectID string, below int64, limit int) ([]*AppBuild, error) {
	return all(ctx, db, scanAppBuild, `SELECT `+appBuildColumns+` FROM gateway_builds b WHERE b.project_id = $1 AND b.seq < $2
		ORDER BY b.seq DESC LIMIT $3`, projectID, below, limit)
}

// ListOpenAppBuilds returns a project's builds that are not over.
func (db *DB) ListOpenAppBuilds(ctx context.Context, projectID string) ([]*AppBuild, error) {
	return all(ctx, db, scanAppBuild, `SELECT `+appBuildColumns+` FROM gateway_builds b WHERE b.project_id = $1 AND b.finished_at IS NULL ORDER BY b.seq`, projectID)
}

// ClaimComparisons returns builds that are not over and were last compared with
// the worker's before a moment, and counts them as compared now.
func (db *DB) ClaimComparisons(ctx context.Context, before time.Time, limit int) ([]*AppBuild, error) {
	list, err := all(ctx, db, scanAppBuild, `SELECT `+appBuildColumns+` FROM gateway_builds b
		WHERE b.finished_at IS NULL AND b.compared_at < $1 ORDER BY b.compared_at LIMIT $2`+db.engine.locking(skipLockedRow), micros(before), limit)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	args := []any{micros(db.now)}
	for _, b := range list {
		args = append(args, b.ID)
	}
	_, err = db.exec(ctx, `UPDATE gateway_builds SET compared_at = $1 WHERE id IN (`+parameters(2, len(list))+`)`, args...)
	return list, err
}

package store

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// NewProject is what InsertProject stores of a new project. Its first build
// has seq 1 and is stored in the same transaction.
type NewProject struct {
	ID               string
	OwnerID          string
	CreatePrincipal  string
	CreateKey        string // for ever unique per principal
	CreatedByService string
	IDSource         previewd.IDSource
	Events           int // how many events the transaction stores for it
}

// InsertProject stores a new project.
func (db *DB) InsertProject(ctx context.Context, p NewProject) error {
	_, err := db.exec(ctx, `
		INSERT INTO worker_projects (id, owner_id, create_principal, create_key, created_by_service, id_source,
			state, last_build_seq, last_event_seq, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, 'active', 1, $7, $8)`,
		p.ID, p.OwnerID, p.CreatePrincipal, p.CreateKey, p.CreatedByService, string(p.IDSource), p.Events, micros(db.now))
	return err
}

// InsertFirstEvents stores the events of a project that this transaction has
// inserted with room for exactly these.
func (db *DB) InsertFirstEvents(ctx context.Context, projectID string, events ...previewd.Event) error {
	for i, e := range events {
		e.ProjectID, e.Seq = projectID, int64(i+1)
		if err := db.insertEvent(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

const projectColumns = `p.id, p.owner_id, p.id_source, p.created_by_service, p.create_principal, p.create_key,
	COALESCE(cv.number, 0), p.pinned, p.created_at,`

// NoKey begins what stands for the key of a create that had none.
const NoKey = "none:"

const projectFrom = `
	FROM worker_projects p
	JOIN worker_builds b ON b.project_id = p.id AND b.seq = p.last_build_seq
	LEFT JOIN worker_versions v ON v.build_id = b.id
	LEFT JOIN worker_versions cv ON cv.id = p.current_version_id
	WHERE p.state = 'active'`

// Project is a project's row with that of its latest build.
type Project struct {
	previewd.Project
	Build *Build
}

func scanProject(r rows) (*Project, error) {
	p, b, s := new(Project), new(Build), buildScan{}
	var pinned, created int64
	dest := []any{
		&p.ID, &p.UserID, (*string)(&p.IDGenerationSource), &p.CreatedByService, &p.CreatePrincipal, &p.CreateKey,
		&p.CurrentVersion, &pinned, &created,
	}
	if err := r.Scan(append(dest, s.dest(b)...)...); err != nil {
		return nil, err
	}
	if err := s.fill(b); err != nil {
		return nil, err
	}
	if strings.HasPrefix(p.CreateKey, NoKey) {
		p.CreateKey = ""
	}
	p.Pinned, p.CreatedAt, p.LatestBuild, p.Build = pinned == 1, timeOf(&created), b.Build, b
	return p, nil
}

// FindProject returns CodeNotFound when there is no such project.
func (db *DB) FindProject(ctx context.Context, id string) (*Project, error) {
	list, err := all(ctx, db, scanProject, `SELECT `+projectColumns+buildColumns+projectFrom+` AND p.id = $1`, id)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, previewd.NotFound("project", id)
	}
	return list[0], nil
}

// ListProjects returns projects whose id is below the cursor, newest first.
func (db *DB) ListProjects(ctx context.Context, filter previewd.ProjectFilter, below string, limit int) ([]*Project, error) {
	conditions := ` AND p.id < $1`
	args := []any{below, limit}
	only := func(condition, value string) {
		if value != "" {
			args = append(args, value)
			conditions += ` AND ` + condition + ` $` + strconv.Itoa(len(args))
		}
	}
	only(`p.owner_id =`, filter.UserID)
	only(`p.created_by_service =`, filter.CreatedBy)
	only(`p.id >`, filter.After)
	query := `SELECT ` + projectColumns + buildColumns + projectFrom + conditions + ` ORDER BY p.id DESC LIMIT $2`
	return all(ctx, db, scanProject, query, args...)
}

// FindProjectByKey returns the id of the project that a key has made, or "", and
// when. A project remembers its key for ever, also when it is deleted.
func (db *DB) FindProjectByKey(ctx context.Context, principal, key string) (id string, created time.Time, err error) {
	var us int64
	found, err := db.one(ctx, []any{&id, &us}, `
		SELECT id, created_at FROM worker_projects WHERE create_principal = $1 AND create_key = $2`, principal, key)
	if found {
		created = timeOf(&us)
	}
	return id, created, err
}

// LockProject keeps others from changing the project or its builds until the
// transaction ends, and returns its owner. Whoever locks a project does it before
// any of its builds, and the audit chain last: so nobody waits in a circle. It
// returns CodeNotFound when there is no such project, or it is deleted.
func (db *DB) LockProject(ctx context.Context, id string) (ownerID string, err error) {
	locked, err := db.LockAnyProject(ctx, id)
	if err == nil && locked.Deleted {
		err = previewd.NotFound("project", id)
	}
	return locked.OwnerID, err
}

// LockedProject is what LockAnyProject tells of a project.
type LockedProject struct {
	OwnerID string
	Deleted bool
}

// LockAnyProject is LockProject for deleted projects too.
func (db *DB) LockAnyProject(ctx context.Context, id string) (p LockedProject, err error) {
	query := `SELECT p.owner_id, p.state FROM worker_projects p WHERE p.id = $1`
	if !fault.Off(fault.RowLock) {
		query += db.engine.locking(lockProject)
	}
	var state string
	found, err := db.one(ctx, []any{&p.OwnerID, &state}, query, id)
	if err == nil && !found {
		err = previewd.NotFound("project", id)
	}
	p.Deleted = state != "active"
	return p, err
}

// DeleteProject makes a project that this transaction has locked a deleted one,
// without its variables. Its key goes on naming it; a double click without a key
// makes a new one.
func (db *DB) DeleteProject(ctx context.Context, id string, locked LockedProject) error {
	err := changedOne(db.exec(ctx, `UPDATE worker_projects SET state = 'deleted', deleted_at = $2 WHERE id = $1 AND state = 'active'`,
		id, micros(db.now)))
	if err != nil {
		return err
	}
	if _, err := db.exec(ctx, `DELETE FROM worker_env WHERE project_id = $1`, id); err != nil {
		return err
	}
	_, err = db.exec(ctx, `DELETE FROM worker_create_guard WHERE owner_id = $1 AND project_id = $2`, locked.OwnerID, id)
	return err
}

// AllocateBuildSeq returns the number of the project's next build. It returns
// CodeNotFound when there is no such project.
func (db *DB) AllocateBuildSeq(ctx context.Context, projectID string) (seq int64, err error) {
	found, err := db.one(ctx, []any{&seq}, `
		UPDATE worker_projects SET last_build_seq = last_build_seq + 1
		WHERE id = $1 AND state = 'active' RETURNING last_build_seq`, projectID)
	if err == nil && !found {
		err = previewd.NotFound("project", projectID)
	}
	return seq, err
}

package store

import (
	"context"
	"time"

	"github.com/previewd/previewd"
)

// InsertReferences stores problems that were answered. Of one reference the
// first stays: a stored refusal is answered again under the same.
func (db *DB) InsertReferences(ctx context.Context, refs []previewd.Reference) error {
	return db.Tx(ctx, "reference", func(tx *DB) error {
		for _, r := range refs {
			_, err := tx.exec(ctx, `
				INSERT INTO reference_ids (reference_id, code, status, message, cause, method, path, request_id, trace_id,
					user_id, project_id, build_id, role, at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT (reference_id) DO NOTHING`,
				r.ID, string(r.Code), r.Status, r.Message, r.Cause, r.Method, r.Path, r.RequestID, r.TraceID,
				r.UserID, r.ProjectID, r.BuildID, string(r.Role), micros(r.At))
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// keepReferences is how long it is known what became of a reference id.
const keepReferences = 30 * 24 * time.Hour

// PruneReferences drops problems that are older than they are kept, at most limit
// of them, and returns how many.
func (db *DB) PruneReferences(ctx context.Context, limit int) (int64, error) {
	return db.exec(ctx, `DELETE FROM reference_ids WHERE reference_id IN (
		SELECT reference_id FROM reference_ids WHERE at < $1 ORDER BY at LIMIT $2)`, micros(db.now.Add(-keepReferences)), limit)
}

// FindReference returns what is known of a reference id: of a problem that was
// answered, and of the build or intent that bears it. It returns CodeNotFound when nothing is.
func (db *DB) FindReference(ctx context.Context, ref string) (*previewd.ReferenceInfo, error) {
	info := &previewd.ReferenceInfo{ID: ref}
	problems, err := all(ctx, db, scanReference, `
		SELECT reference_id, code, status, message, cause, method, path, request_id, trace_id, user_id, project_id, build_id, role, at
		FROM reference_ids WHERE reference_id = $1`, ref)
	if err != nil {
		return nil, err
	}
	if len(problems) > 0 {
		info.Problem = &problems[0]
	}
	builds, err := all(ctx, db, scanBuild, `SELECT `+buildColumns+buildFrom+`WHERE b.reference_id = $1`, ref)
	if err != nil {
		return nil, err
	}
	if len(builds) > 0 {
		b := builds[0]
		info.Build, info.UserID = &b.Build, b.OwnerID
		var one int
		info.ProjectDeleted, err = db.one(ctx, []any{&one}, `SELECT 1 FROM worker_projects WHERE id = $1 AND state <> 'active'`, b.ProjectID)
		if err != nil {
			return nil, err
		}
	}
	if err := db.findAppReference(ctx, info); err != nil {
		return nil, err
	}
	if info.Problem == nil && info.Build == nil && info.AppBuild == nil && info.Intent == nil {
		return nil, previewd.NotFound("reference", ref)
	}
	return info, nil
}

// findAppReference adds what the gateway's tables know of a reference.
func (db *DB) findAppReference(ctx context.Context, info *previewd.ReferenceInfo) error {
	in, err := db.findIntent(ctx, `reference_id = $1`, info.ID)
	if err != nil {
		return err
	}
	if in != nil {
		info.Intent, info.UserID = &in.Intent, in.UserID
	}
	builds, err := all(ctx, db, scanAppBuild, `SELECT `+appBuildColumns+` FROM gateway_builds b WHERE b.reference_id = $1`, info.ID)
	if err == nil && len(builds) > 0 {
		info.AppBuild, info.UserID = &builds[0].AppBuild, builds[0].OwnerID
	}
	return err
}

func scanReference(r rows) (ref previewd.Reference, err error) {
	var at int64
	err = r.Scan(&ref.ID, (*string)(&ref.Code), &ref.Status, &ref.Message, &ref.Cause, &ref.Method, &ref.Path, &ref.RequestID, &ref.TraceID,
		&ref.UserID, &ref.ProjectID, &ref.BuildID, (*string)(&ref.Role), &at)
	ref.At = timeOf(&at)
	return ref, err
}

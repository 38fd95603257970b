package store

import (
	"context"
	"math"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// NewVersion is what InsertVersion stores of a completed build.
type NewVersion struct {
	ID             string
	Build          *Build
	ManifestDigest previewd.Digest
	Files          int
	Bytes          int64
}

// InsertVersion stores the version of a build that this transaction has
// completed, and returns its number.
func (db *DB) InsertVersion(ctx context.Context, v NewVersion) (number int64, err error) {
	found, err := db.one(ctx, []any{&number}, `
		UPDATE worker_projects SET last_version_number = last_version_number + 1 WHERE id = $1 AND state = 'active'
		RETURNING last_version_number`, v.Build.ProjectID)
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, previewd.NotFound("project", v.Build.ProjectID)
	}
	_, err = db.exec(ctx, `
		INSERT INTO worker_versions (id, project_id, build_id, build_seq, build_epoch, number, manifest_digest, files, bytes, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		v.ID, v.Build.ProjectID, v.Build.ID, v.Build.Seq, v.Build.State.Epoch, number,
		string(v.ManifestDigest), v.Files, v.Bytes, micros(db.now))
	return number, err
}

// AdvanceVersion points the project at a newer version. It changes nothing and
// returns false when the project shows a newer build already or is pinned.
func (db *DB) AdvanceVersion(ctx context.Context, projectID, versionID string, buildSeq int64) (moved bool, err error) {
	newer := `current_build_seq < $3 AND pinned = 0`
	if fault.Off(fault.NewestWins) {
		newer = `pinned = 0`
	}
	n, err := db.exec(ctx, `
		UPDATE worker_projects SET current_version_id = $2, current_build_seq = $3
		WHERE id = $1 AND `+newer, projectID, versionID, buildSeq)
	return n == 1, err
}

// PinVersion points the project at any of its versions, and reports whether that
// pins it. The newest does not: builds to come move the pointer on from it.
func (db *DB) PinVersion(ctx context.Context, v *previewd.Version) (pinned bool, err error) {
	var n int
	found, err := db.one(ctx, []any{&n}, `
		UPDATE worker_projects SET current_version_id = $2, current_build_seq = $3,
			pinned = CASE WHEN last_version_number = $4 THEN 0 ELSE 1 END
		WHERE id = $1 AND state = 'active' RETURNING pinned`, v.ProjectID, v.ID, v.BuildSeq, v.Number)
	if err == nil && !found {
		err = previewd.NotFound("project", v.ProjectID)
	}
	return n == 1, err
}

const versionSelect = `
	SELECT v.id, v.project_id, v.number, v.build_id, v.build_seq, v.manifest_digest, v.files, v.bytes, v.created_at,
		CASE WHEN p.current_version_id = v.id THEN 1 ELSE 0 END
	FROM worker_versions v JOIN worker_projects p ON p.id = v.project_id
	WHERE p.state = 'active'`

func scanVersion(r rows) (*previewd.Version, error) {
	v := new(previewd.Version)
	var created, current int64
	err := r.Scan(&v.ID, &v.ProjectID, &v.Number, &v.BuildID, &v.BuildSeq, (*string)(&v.ManifestDigest),
		&v.Files, &v.Bytes, &created, &current)
	v.CreatedAt, v.Current = timeOf(&created), current == 1
	return v, err
}

func (db *DB) findVersion(ctx context.Context, where string, args ...any) (*previewd.Version, error) {
	list, err := all(ctx, db, scanVersion, versionSelect+where, args...)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// FindVersion returns CodeNotFound when the project has no such version.
func (db *DB) FindVersion(ctx context.Context, projectID string, number int64) (*previewd.Version, error) {
	v, err := db.findVersion(ctx, ` AND v.project_id = $1 AND v.number = $2`, projectID, number)
	if err == nil && v == nil {
		err = previewd.NotFound("version", projectID)
	}
	return v, err
}

// FindCurrentVersion returns nil when the project shows no version yet.
func (db *DB) FindCurrentVersion(ctx context.Context, projectID string) (*previewd.Version, error) {
	return db.findVersion(ctx, ` AND v.id = p.current_version_id AND p.id = $1`, projectID)
}

// FindBuildVersion returns nil when the build has made no version.
func (db *DB) FindBuildVersion(ctx context.Context, buildID string) (*previewd.Version, error) {
	return db.findVersion(ctx, ` AND v.build_id = $1`, buildID)
}

// ListVersions returns versions below a number (0: from the newest), newest first.
func (db *DB) ListVersions(ctx context.Context, projectID string, below int64, limit int) ([]*previewd.Version, error) {
	if below == 0 {
		below = math.MaxInt64
	}
	return all(ctx, db, scanVersion, versionSelect+` AND v.project_id = $1 AND v.number < $2
		ORDER BY v.number DESC LIMIT $3`, projectID, below, limit)
}

// BlobRef is a blob that a row refers to.
type BlobRef struct {
	Digest   previewd.Digest
	Manifest bool // it lists further blobs
}

// ListReferencedBlobs returns the source of every build and the manifest of
// every version. Those of a project that was deleted before a moment are not
// needed, unless a build is still on its way to its end.
func (db *DB) ListReferencedBlobs(ctx context.Context, deletedBefore time.Time) ([]BlobRef, error) {
	return all(ctx, db, func(r rows) (ref BlobRef, err error) {
		var manifest int64
		err = r.Scan((*string)(&ref.Digest), &manifest)
		ref.Manifest = manifest == 1
		return ref, err
	}, `
		SELECT b.source_digest, 0 FROM worker_builds b JOIN worker_projects p ON p.id = b.project_id
		WHERE p.deleted_at IS NULL OR p.deleted_at >= $1 OR b.state IN ('queued', 'building', 'canceling')
		UNION SELECT v.manifest_digest, 1 FROM worker_versions v JOIN worker_projects p ON p.id = v.project_id
		WHERE p.deleted_at IS NULL OR p.deleted_at >= $1`, micros(deletedBefore))
}

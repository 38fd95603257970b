package store

import (
	"context"

	"github.com/previewd/previewd"
)

// ArtifactRef is a row that needs a blob.
type ArtifactRef struct {
	BuildID string
	Digest  previewd.Digest
}

func listRefs(ctx context.Context, db *DB, query string, args ...any) ([]ArtifactRef, error) {
	return all(ctx, db.patient(), func(r rows) (ref ArtifactRef, err error) {
		err = r.Scan(&ref.BuildID, (*string)(&ref.Digest))
		return ref, err
	}, query, args...)
}

// ofActive leaves out what belonged to deleted projects: their files may be gone.
const ofActive = `EXISTS (SELECT 1 FROM worker_projects p WHERE p.id = v.project_id AND p.state = 'active')`

// SampleManifests returns the manifests of the newest versions and of as many
// that chance picks; some may be both.
func (db *DB) SampleManifests(ctx context.Context, each int) ([]ArtifactRef, error) {
	newest, err := listRefs(ctx, db, `
		SELECT v.build_id, v.manifest_digest FROM worker_versions v WHERE `+ofActive+` ORDER BY v.id DESC LIMIT $1`, each)
	if err != nil || len(newest) < each {
		return newest, err // these are all
	}
	random, err := listRefs(ctx, db, `
		SELECT build_id, manifest_digest FROM worker_versions WHERE id IN (
			SELECT v.id FROM worker_versions v WHERE `+ofActive+` ORDER BY random() LIMIT $1)`, each)
	return append(newest, random...), err
}

// ListManifests returns the manifests of versions by the ids of their builds,
// after one of them.
func (db *DB) ListManifests(ctx context.Context, after string, limit int) ([]ArtifactRef, error) {
	return listRefs(ctx, db, `
		SELECT v.build_id, v.manifest_digest FROM worker_versions v
		WHERE v.build_id > $1 AND `+ofActive+` ORDER BY v.build_id LIMIT $2`, after, limit)
}

// ListNeededSources returns the sources of builds that wait or run, by the ids
// of the builds, after one of them.
func (db *DB) ListNeededSources(ctx context.Context, after string, limit int) ([]ArtifactRef, error) {
	return listRefs(ctx, db, `
		SELECT id, source_digest FROM worker_builds
		WHERE state IN ('queued', 'building', 'canceling') AND id > $1 ORDER BY id LIMIT $2`, after, limit)
}

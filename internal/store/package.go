package store

import (
	"context"
	"encoding/json"

	"github.com/previewd/previewd"
)

// PutPackages stores what a build was made with, in place of what an earlier
// attempt of it has told.
func (db *DB) PutPackages(ctx context.Context, buildID string, packages []previewd.Package) error {
	raw, err := json.Marshal(packages)
	if err != nil {
		return err
	}
	_, err = db.exec(ctx, `
		INSERT INTO worker_build_packages (build_id, packages) VALUES ($1, $2)
		ON CONFLICT (build_id) DO UPDATE SET packages = excluded.packages`, buildID, string(raw))
	return err
}

// ListPackages returns what a build was made with.
func (db *DB) ListPackages(ctx context.Context, buildID string) (packages []previewd.Package, err error) {
	var raw string
	found, err := db.one(ctx, []any{&raw}, `SELECT packages FROM worker_build_packages WHERE build_id = $1`, buildID)
	if err != nil || !found {
		return nil, err
	}
	return packages, json.Unmarshal([]byte(raw), &packages)
}

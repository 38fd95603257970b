package store

import (
	"context"
	"fmt"
	"time"
)

// Repair is the one right way to mend a row.
type Repair struct {
	Check   string // the promise that it restores
	Subject string // what it changes, as in the audit log
	Text    string // what it does
	Data    map[string]any

	statement string
	args      []any
}

// repairBatch bounds how many repairs of a kind are listed at once.
const repairBatch = 1000

// counterRepair mends a counter that lags behind rows without a gap. One that
// is ahead of them is none: rows are missing, and nothing brings them back.
type counterRepair struct{ check, column, table, number string }

var counterRepairs = []counterRepair{
	{"build_numbers_with_gap", "last_build_seq", "worker_builds", "seq"},
	{"version_numbers_with_gap", "last_version_number", "worker_versions", "number"},
	{"event_numbers_with_gap", "last_event_seq", "worker_events", "seq"},
}

// ListRepairs returns repairs of rows whose right value the other rows tell.
// Keys are kept for keyAge.
func (db *DB) ListRepairs(ctx context.Context, keyAge time.Duration) ([]Repair, error) {
	now, err := db.clock(ctx)
	if err != nil {
		return nil, err
	}
	patient := db.patient()
	var list []Repair
	for _, c := range counterRepairs {
		found, err := patient.listCounterRepairs(ctx, c)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	for _, find := range []func(context.Context) ([]Repair, error){
		patient.listLogRepairs,
		func(ctx context.Context) ([]Repair, error) { return patient.listKeyRepairs(ctx, now.Add(-keyAge)) },
		func(ctx context.Context) ([]Repair, error) { return patient.listGuardRepairs(ctx, now) },
	} {
		found, err := find(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	return list, nil
}

// Repair does a repair; false when the row is no longer as it was listed. The
// caller writes the audit entry.
func (db *DB) Repair(ctx context.Context, r Repair) (done bool, err error) {
	n, err := db.exec(ctx, r.statement, r.args...)
	return n == 1, err
}

func (db *DB) listCounterRepairs(ctx context.Context, c counterRepair) ([]Repair, error) {
	return all(ctx, db, func(r rows) (Repair, error) {
		var id string
		var from, to int64
		err := r.Scan(&id, &from, &to)
		return Repair{
			Check: c.check, Subject: "project/" + id, Text: fmt.Sprintf("project %s: set %s from %d to %d", id, c.column, from, to),
			Data:      map[string]any{"column": c.column, "from": from, "to": to},
			statement: `UPDATE worker_projects SET ` + c.column + ` = $3 WHERE id = $1 AND ` + c.column + ` = $2`,
			args:      []any{id, from, to},
		}, err
	}, `
		SELECT p.id, p.`+c.column+`, n.top FROM worker_projects p
		JOIN (SELECT project_id, COUNT(*) AS n, MAX(`+c.number+`) AS top FROM `+c.table+` GROUP BY project_id) n ON n.project_id = p.id
		WHERE n.n = n.top AND p.`+c.column+` < n.top ORDER BY p.id LIMIT $1`, repairBatch)
}

func (db *DB) listLogRepairs(ctx context.Context) ([]Repair, error) {
	return all(ctx, db, func(r rows) (Repair, error) {
		var id string
		var from, to int64
		err := r.Scan(&id, &from, &to)
		return Repair{
			Check: "log_length_wrong", Subject: "build/" + id, Text: fmt.Sprintf("build %s: set log_bytes from %d to %d", id, from, to),
			Data:      map[string]any{"column": "log_bytes", "from": from, "to": to},
			statement: `UPDATE worker_builds SET log_bytes = $3 WHERE id = $1 AND log_bytes = $2`,
			args:      []any{id, from, to},
		}, err
	}, `
		SELECT b.id, b.log_bytes, COALESCE(l.n, 0) FROM worker_builds b
		LEFT JOIN (SELECT build_id, SUM(length(data)) AS n, MAX(start_offset + length(data)) AS top
			FROM worker_build_logs GROUP BY build_id) l ON l.build_id = b.id
		WHERE COALESCE(l.n, 0) = COALESCE(l.top, 0) AND b.log_bytes <> COALESCE(l.n, 0) ORDER BY b.id LIMIT $1`, repairBatch)
}

func (db *DB) listKeyRepairs(ctx context.Context, before time.Time) ([]Repair, error) {
	return all(ctx, db, func(r rows) (Repair, error) {
		var principal, key, resource string
		err := r.Scan(&principal, &key, &resource)
		return Repair{
			Check: "key_without_resource", Subject: "key/" + principal + "/" + key,
			Text:      fmt.Sprintf("key %s of %s: remove it, it is too old to be kept and %s is gone", key, principal, resource),
			Data:      map[string]any{"resource": resource},
			statement: `DELETE FROM worker_idempotency_keys WHERE principal = $1 AND key = $2 AND resource_id = $3`,
			args:      []any{principal, key, resource},
		}, err
	}, `
		SELECT k.principal, k.key, k.resource_id FROM worker_idempotency_keys k
		LEFT JOIN worker_projects p ON p.id = k.resource_id
		LEFT JOIN worker_builds b ON b.id = k.resource_id
		WHERE k.created_at < $1 AND k.resource_id IS NOT NULL AND p.id IS NULL AND b.id IS NULL
		ORDER BY k.created_at LIMIT $2`, micros(before), repairBatch)
}

func (db *DB) listGuardRepairs(ctx context.Context, now time.Time) ([]Repair, error) {
	return all(ctx, db, func(r rows) (Repair, error) {
		var owner, fingerprint, project string
		err := r.Scan(&owner, &fingerprint, &project)
		return Repair{
			Check: "guard_without_project", Subject: "guard/" + owner + "/" + fingerprint,
			Text:      fmt.Sprintf("guard of %s: remove it, its time is over and project %s is gone", owner, project),
			Data:      map[string]any{"project": project},
			statement: `DELETE FROM worker_create_guard WHERE owner_id = $1 AND fingerprint = $2 AND project_id = $3`,
			args:      []any{owner, fingerprint, project},
		}, err
	}, `
		SELECT g.owner_id, g.fingerprint, g.project_id FROM worker_create_guard g
		LEFT JOIN worker_projects p ON p.id = g.project_id
		WHERE g.expires_at < $1 AND p.id IS NULL ORDER BY g.expires_at LIMIT $2`, micros(now), repairBatch)
}

// Outdated is a project that does not show its newest version.
type Outdated struct {
	ProjectID string
	VersionID string
	BuildID   string
	BuildSeq  int64
	Number    int64
	Shown     int64 // the build that it shows; 0 for none
}

// ListOutdated returns projects that are not pinned and show an older version
// than their newest, or none.
func (db *DB) ListOutdated(ctx context.Context) ([]Outdated, error) {
	return all(ctx, db.patient(), func(r rows) (o Outdated, err error) {
		err = r.Scan(&o.ProjectID, &o.VersionID, &o.BuildID, &o.BuildSeq, &o.Number, &o.Shown)
		return o, err
	}, `
		SELECT p.id, v.id, v.build_id, v.build_seq, v.number, p.current_build_seq FROM worker_projects p
		JOIN (SELECT project_id, MAX(build_seq) AS newest FROM worker_versions GROUP BY project_id) n ON n.project_id = p.id
		JOIN worker_versions v ON v.project_id = p.id AND v.build_seq = n.newest
		JOIN worker_builds b ON b.id = v.build_id AND b.state = 'completed' AND b.project_id = p.id
		WHERE p.state = 'active' AND p.pinned = 0 AND p.current_build_seq < n.newest ORDER BY p.id LIMIT $1`, repairBatch)
}

package store

import "context"

// Violation is an invariant that does not hold, with some of the ids that break it.
type Violation struct {
	Name     string
	Count    int
	Examples []string
}

const maxExamples = 10

// invariants are queries that return the ids of what breaks a promise. Each
// must return nothing, at any moment, whatever died before.
var invariants = []struct{ name, query string }{
	{"project without its first build", `
		SELECT p.id FROM worker_projects p
		WHERE NOT EXISTS (SELECT 1 FROM worker_builds b WHERE b.project_id = p.id AND b.seq = 1)`},
	{"build numbers with a gap", `
		SELECT p.id FROM worker_projects p
		WHERE p.last_build_seq <> (SELECT COUNT(*) FROM worker_builds b WHERE b.project_id = p.id)
		   OR p.last_build_seq <> (SELECT MAX(b.seq) FROM worker_builds b WHERE b.project_id = p.id)`},
	{"completed build without a version", `
		SELECT b.id FROM worker_builds b
		WHERE b.state = 'completed' AND NOT EXISTS (SELECT 1 FROM worker_versions v WHERE v.build_id = b.id)`},
	{"version without a completed build of the same epoch", `
		SELECT v.id FROM worker_versions v JOIN worker_builds b ON b.id = v.build_id
		WHERE b.state <> 'completed' OR b.epoch <> v.build_epoch OR b.seq <> v.build_seq OR b.project_id <> v.project_id`},
	{"version numbers with a gap", `
		SELECT p.id FROM worker_projects p
		WHERE p.last_version_number <> (SELECT COUNT(*) FROM worker_versions v WHERE v.project_id = p.id)
		   OR p.last_version_number <> (SELECT COALESCE(MAX(v.number), 0) FROM worker_versions v WHERE v.project_id = p.id)`},
	{"current version not of this project or not of its build", `
		SELECT p.id FROM worker_projects p LEFT JOIN worker_versions v ON v.id = p.current_version_id
		WHERE p.current_version_id IS NOT NULL
		  AND (v.id IS NULL OR v.project_id <> p.id OR v.build_seq <> p.current_build_seq)`},
	{"current version older than a completed build, without a pin", `
		SELECT p.id FROM worker_projects p
		WHERE p.pinned = 0 AND p.current_build_seq <> (
			SELECT COALESCE(MAX(v.build_seq), 0) FROM worker_versions v WHERE v.project_id = p.id)`},
	{"two running builds", `
		SELECT project_id FROM worker_builds WHERE state IN ('building', 'canceling')
		GROUP BY project_id HAVING COUNT(*) > 1`},
	{"event numbers with a gap", `
		SELECT p.id FROM worker_projects p
		WHERE p.last_event_seq <> (SELECT COUNT(*) FROM worker_events e WHERE e.project_id = p.id)
		   OR p.last_event_seq <> (SELECT MAX(e.seq) FROM worker_events e WHERE e.project_id = p.id)`},
	{"feed positions with a gap", `
		SELECT f.name FROM worker_feed f
		WHERE f.position <> (SELECT COUNT(e.feed_pos) FROM worker_events e)
		   OR f.position <> (SELECT COALESCE(MAX(e.feed_pos), 0) FROM worker_events e)`},
	{"feed position before that of an earlier event of the project", `
		SELECT e.project_id FROM worker_events e JOIN worker_events b ON b.project_id = e.project_id AND b.seq = e.seq - 1
		WHERE e.feed_pos IS NOT NULL AND (b.feed_pos IS NULL OR b.feed_pos > e.feed_pos)`},
	{"build state that its events do not tell", `
		SELECT b.id FROM worker_builds b
		WHERE (SELECT e.type FROM worker_events e
			WHERE e.build_id = b.id AND e.type IN ('build.queued', 'build.retrying', 'build.building', 'build.canceling',
				'build.completed', 'build.failed', 'build.canceled', 'build.superseded')
			ORDER BY e.seq DESC LIMIT 1)
		<> CASE WHEN b.state = 'queued' AND b.epoch > 0 THEN 'build.retrying' ELSE 'build.' || b.state END`},
	{"key whose project or build is missing", `
		SELECT k.key FROM worker_idempotency_keys k
		WHERE k.resource_id IS NOT NULL
		  AND NOT EXISTS (SELECT 1 FROM worker_projects p WHERE p.id = k.resource_id)
		  AND NOT EXISTS (SELECT 1 FROM worker_builds b WHERE b.id = k.resource_id)`},
	{"key without an answer", `SELECT key FROM worker_idempotency_keys WHERE status = 0 OR body IS NULL AND body_pruned_at IS NULL`},
	{"superseded build without a newer successor", `
		SELECT b.id FROM worker_builds b LEFT JOIN worker_builds n ON n.id = b.superseded_by
		WHERE b.state = 'superseded' AND (n.id IS NULL OR n.project_id <> b.project_id OR n.seq <= b.seq)`},
	{"log longer or shorter than the build says", `
		SELECT b.id FROM worker_builds b
		WHERE b.log_bytes <> (SELECT COALESCE(SUM(length(l.data)), 0) FROM worker_build_logs l WHERE l.build_id = b.id)`},
	{"project or build without its audit entry", `
		SELECT b.id FROM worker_builds b
		WHERE NOT EXISTS (SELECT 1 FROM worker_audit a WHERE a.subject = CASE b.seq WHEN 1 THEN 'project/' || b.project_id ELSE 'build/' || b.id END)`},
}

// FindViolations checks every invariant that a query can check, and the audit
// chain. It returns those that do not hold.
func (db *DB) FindViolations(ctx context.Context) ([]Violation, error) {
	var violations []Violation
	for _, invariant := range invariants {
		ids, err := all(ctx, db, func(r rows) (id string, err error) {
			err = r.Scan(&id)
			return id, err
		}, invariant.query)
		if err != nil {
			return nil, err
		}
		if len(ids) > 0 {
			violations = append(violations, Violation{invariant.name, len(ids), ids[:min(len(ids), maxExamples)]})
		}
	}
	broken, err := db.FindAuditBreak(ctx)
	if err == nil && broken > 0 {
		violations = append(violations, Violation{Name: "audit chain broken", Count: 1})
	}
	return violations, err
}

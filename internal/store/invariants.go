package store

// The promises as queries: sets are joined and counted once, so that a million
// projects take seconds. Names stay for ever: dashboards know them.

var buildInvariants = []invariant{
	{name: "project_without_first_build", promise: "Every project has its first build.", query: `
		SELECT p.id FROM worker_projects p LEFT JOIN worker_builds b ON b.project_id = p.id AND b.seq = 1
		WHERE b.id IS NULL`},
	{name: "build_numbers_with_gap", promise: "The builds of a project count 1, 2, 3… up to the project's last number.", fixable: true, query: `
		SELECT p.id FROM worker_projects p
		JOIN (SELECT project_id, COUNT(*) AS n, MAX(seq) AS top FROM worker_builds GROUP BY project_id) b ON b.project_id = p.id
		WHERE b.n <> b.top OR b.top <> p.last_build_seq`},
	{name: "build_without_project", promise: "Every build belongs to a project.", query: `
		SELECT b.id FROM worker_builds b LEFT JOIN worker_projects p ON p.id = b.project_id WHERE p.id IS NULL`},
	{name: "build_of_another_owner", promise: "A build has the owner of its project.", query: `
		SELECT b.id FROM worker_builds b JOIN worker_projects p ON p.id = b.project_id WHERE b.owner_id <> p.owner_id`},
	{name: "two_running_builds", promise: "At most one build of a project runs.", query: `
		SELECT project_id AS id FROM worker_builds WHERE state IN ('building', 'canceling')
		GROUP BY project_id HAVING COUNT(*) > 1`},
	{name: "two_waiting_builds", promise: "At most one build of a project waits.", query: `
		SELECT project_id AS id FROM worker_builds WHERE state = 'queued' GROUP BY project_id HAVING COUNT(*) > 1`},
	{name: "build_lease_expired", promise: "No build runs whose lease has been over for five minutes.", fixable: true, age: DeadLease, query: `
		SELECT id FROM worker_builds WHERE state IN ('building', 'canceling') AND lease_until < $1`},
	{name: "queued_build_of_inactive_project", promise: "Builds wait for projects that are there.", query: `
		SELECT b.id FROM worker_builds b JOIN worker_projects p ON p.id = b.project_id
		WHERE b.state = 'queued' AND p.state <> 'active'`},
	{name: "running_build_of_deleted_project", promise: "No build of a deleted project runs, unless it is being canceled.", query: `
		SELECT b.id FROM worker_builds b JOIN worker_projects p ON p.id = b.project_id
		WHERE b.state = 'building' AND p.state <> 'active'`},
	{name: "superseded_without_successor", promise: "A superseded build names the newer build that took its place.", query: `
		SELECT b.id FROM worker_builds b LEFT JOIN worker_builds n ON n.id = b.superseded_by
		WHERE b.state = 'superseded' AND (n.id IS NULL OR n.project_id <> b.project_id OR n.seq <= b.seq)`},
	{name: "completed_build_without_version", promise: "Every completed build has its version.", query: `
		SELECT b.id FROM worker_builds b LEFT JOIN worker_versions v ON v.build_id = b.id
		WHERE b.state = 'completed' AND v.id IS NULL`},
	{name: "version_without_completed_build", promise: "Every version has its build, and that has completed.", query: `
		SELECT v.id FROM worker_versions v LEFT JOIN worker_builds b ON b.id = v.build_id
		WHERE b.id IS NULL OR b.state <> 'completed'`},
	{name: "version_differs_from_build", promise: "A version has the project, number and epoch of its build.", query: `
		SELECT v.id FROM worker_versions v JOIN worker_builds b ON b.id = v.build_id
		WHERE b.epoch <> v.build_epoch OR b.seq <> v.build_seq OR b.project_id <> v.project_id`},
	{name: "version_numbers_with_gap", promise: "The versions of a project count 1, 2, 3… up to the project's last number.", fixable: true, query: `
		SELECT p.id FROM worker_projects p
		LEFT JOIN (SELECT project_id, COUNT(*) AS n, MAX(number) AS top FROM worker_versions GROUP BY project_id) v ON v.project_id = p.id
		WHERE COALESCE(v.n, 0) <> COALESCE(v.top, 0) OR COALESCE(v.top, 0) <> p.last_version_number`},
	{name: "current_version_foreign", promise: "A project shows a version of its own, and names its build.", query: `
		SELECT p.id FROM worker_projects p LEFT JOIN worker_versions v ON v.id = p.current_version_id
		WHERE p.current_version_id IS NOT NULL
		  AND (v.id IS NULL OR v.project_id <> p.id OR v.build_seq <> p.current_build_seq)`},
	{name: "current_version_outdated", promise: "A project that is not pinned shows its newest version.", fixable: true, query: `
		SELECT p.id FROM worker_projects p
		JOIN (SELECT project_id, MAX(build_seq) AS newest FROM worker_versions GROUP BY project_id) v ON v.project_id = p.id
		WHERE p.pinned = 0 AND p.current_build_seq <> v.newest`},
	{name: "log_length_wrong", promise: "A build's log is as long as the build says, without a gap.", fixable: true, query: `
		SELECT b.id FROM worker_builds b
		LEFT JOIN (SELECT build_id, SUM(length(data)) AS n, MAX(start_offset + length(data)) AS top
			FROM worker_build_logs GROUP BY build_id) l ON l.build_id = b.id
		WHERE b.log_bytes <> COALESCE(l.n, 0) OR COALESCE(l.n, 0) <> COALESCE(l.top, 0)`},
}

// stateEvents are the events that tell of a build's state, and transitions
// those among them that come with an audit entry of the same name.
const (
	transitions = `'build.retrying', 'build.building', 'build.canceling', 'build.completed', 'build.failed',
		'build.canceled', 'build.superseded'`
	stateEvents = `'build.queued', ` + transitions
)

var eventInvariants = []invariant{
	{name: "event_numbers_with_gap", promise: "The events of a project count 1, 2, 3… up to the project's last number.", fixable: true, query: `
		SELECT p.id FROM worker_projects p
		LEFT JOIN (SELECT project_id, COUNT(*) AS n, MAX(seq) AS top FROM worker_events GROUP BY project_id) e ON e.project_id = p.id
		WHERE COALESCE(e.n, 0) <> COALESCE(e.top, 0) OR COALESCE(e.top, 0) <> p.last_event_seq`},
	{name: "build_state_not_as_events", promise: "A build's state is what its last event tells.", query: `
		SELECT b.id FROM worker_builds b
		LEFT JOIN (SELECT project_id, build_id, MAX(seq) AS seq FROM worker_events
			WHERE type IN (` + stateEvents + `) GROUP BY project_id, build_id) last
			ON last.project_id = b.project_id AND last.build_id = b.id
		LEFT JOIN worker_events e ON e.project_id = last.project_id AND e.seq = last.seq
		WHERE e.type IS NULL
		   OR e.type <> CASE WHEN b.state = 'queued' AND b.epoch > 0 THEN 'build.retrying' ELSE 'build.' || b.state END`},
	{name: "event_without_feed_position", promise: "Every event gets its place in the feed within a minute.", fixable: true, age: UnfedAge, query: `
		SELECT project_id || '/' || CAST(seq AS TEXT) AS id FROM worker_events WHERE feed_pos IS NULL AND at < $1`},
	{name: "feed_order_not_as_events", promise: "The feed has the events of a project in their order.", query: `
		SELECT e.project_id || '/' || CAST(e.seq AS TEXT) AS id
		FROM worker_events e JOIN worker_events b ON b.project_id = e.project_id AND b.seq = e.seq - 1
		WHERE e.feed_pos IS NOT NULL AND (b.feed_pos IS NULL OR b.feed_pos > e.feed_pos)`},
	{name: "feed_positions_with_gap", promise: "Feed positions count 1, 2, 3… up to the feed's own.", query: `
		SELECT 'count ' || CAST(e.n AS TEXT) || ', highest ' || CAST(e.top AS TEXT) || ', feed ' || CAST(f.position AS TEXT) AS id
		FROM worker_feed f CROSS JOIN (SELECT COUNT(feed_pos) AS n, COALESCE(MAX(feed_pos), 0) AS top FROM worker_events) e
		WHERE f.name = 'worker' AND (e.n <> e.top OR e.top <> f.position)`},
	{name: "creation_without_audit", promise: "The creation of every project and build is in the audit log.", query: `
		SELECT b.id FROM worker_builds b
		LEFT JOIN (SELECT DISTINCT subject FROM worker_audit WHERE action IN ('project.create', 'build.create')) a
			ON a.subject = CASE b.seq WHEN 1 THEN 'project/' || b.project_id ELSE 'build/' || b.id END
		WHERE a.subject IS NULL`},
	{name: "deletion_untold", promise: "The deletion of a project is told by one event and one audit entry.", query: `
		SELECT p.id FROM worker_projects p
		LEFT JOIN (SELECT project_id, COUNT(*) AS n FROM worker_events WHERE type = 'project.deleted' GROUP BY project_id) e
			ON e.project_id = p.id
		LEFT JOIN (SELECT subject, COUNT(*) AS n FROM worker_audit WHERE action = 'project.delete' GROUP BY subject) a
			ON a.subject = 'project/' || p.id
		WHERE COALESCE(e.n, 0) <> CASE p.state WHEN 'deleted' THEN 1 ELSE 0 END OR COALESCE(a.n, 0) <> COALESCE(e.n, 0)`},
	{name: "event_after_deletion", promise: "Of a deleted project nothing is queued, built or shown.", query: `
		SELECT e.project_id || '/' || CAST(e.seq AS TEXT) AS id
		FROM worker_events d JOIN worker_events e ON e.project_id = d.project_id AND e.seq > d.seq
		WHERE d.type = 'project.deleted'
		  AND e.type IN ('build.queued', 'build.building', 'build.retrying', 'build.completed', 'version.activated')`},
	{name: "transition_without_audit", promise: "Every change of a build's state is in the audit log, once.", query: `
		SELECT build AS id FROM (
			SELECT build_id AS build, 1 AS n FROM worker_events WHERE type IN (` + transitions + `)
			UNION ALL
			SELECT substr(subject, 7), -1 FROM worker_audit WHERE action IN (` + transitions + `)) told
		GROUP BY build HAVING SUM(n) <> 0`},
}

var keyInvariants = []invariant{
	{name: "key_without_resource", promise: "What an idempotency key has made is there.", fixable: true, query: `
		SELECT k.principal || '/' || k.key AS id FROM worker_idempotency_keys k
		LEFT JOIN worker_projects p ON p.id = k.resource_id
		LEFT JOIN worker_builds b ON b.id = k.resource_id
		WHERE k.resource_id IS NOT NULL AND p.id IS NULL AND b.id IS NULL`},
	{name: "key_without_answer", promise: "An idempotency key has its answer until that is too old to be kept.", query: `
		SELECT principal || '/' || key AS id FROM worker_idempotency_keys
		WHERE status = 0 OR body IS NULL AND body_pruned_at IS NULL`},
	{name: "project_without_key", promise: "A young project's idempotency key is there and names it.", age: keyMustRemain, query: `
		SELECT p.id FROM worker_projects p
		LEFT JOIN worker_idempotency_keys k ON k.principal = p.create_principal AND k.key = p.create_key AND k.resource_id = p.id
		WHERE p.created_at > $1 AND substr(p.create_key, 1, 5) <> 'none:' AND k.key IS NULL`},
	{name: "create_key_used_twice", promise: "One idempotency key makes one project.", query: `
		SELECT create_principal || '/' || create_key AS id FROM worker_projects
		GROUP BY create_principal, create_key HAVING COUNT(*) > 1`},
	{name: "guard_without_project", promise: "What an answer to a double click names is there.", fixable: true, query: `
		SELECT g.owner_id || '/' || g.fingerprint AS id FROM worker_create_guard g
		LEFT JOIN worker_projects p ON p.id = g.project_id WHERE p.id IS NULL`},
}

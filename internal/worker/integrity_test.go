package worker_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

// world is a database with one of everything, and names for what is in it.
type world struct {
	*fixture
	shell *testkit.Shell
	blobs string
	ids   map[string]string
}

func newWorld(t *testing.T, cfg store.Config) *world {
	t.Helper()
	db, err := store.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	w := &world{blobs: t.TempDir(), ids: map[string]string{}}
	folder, err := artifact.NewFolder(w.blobs)
	require.NoError(t, err)
	w.fixture = setup(t, db, func(cfg *worker.Config) { cfg.Artifacts = folder })

	deleted := w.create() // while its build ran
	doomed := w.claim()
	require.NoError(t, w.DeleteProject(t.Context(), previewd.DeleteProjectRequest{ProjectID: deleted.ProjectID, Caller: caller}))
	_, err = w.FinishBuild(t.Context(), doomed.Lease, previewd.Outcome{Kind: previewd.OutcomeCanceled})
	require.NoError(t, err)
	deployed := w.create() // one completed build, one failed
	_, err = w.finish(w.claim())
	require.NoError(t, err)
	failed := w.rebuild(deployed.ProjectID)
	claim := w.claim()
	err = w.AppendLog(t.Context(), claim.Lease, 0, []byte("hello"))
	require.NoError(t, err)
	_, err = w.FinishBuild(t.Context(), claim.Lease, previewd.Outcome{
		Kind: previewd.OutcomeFailed, Failure: &previewd.Failure{Class: previewd.FailureUser, Code: "x", Message: "x"},
	})
	require.NoError(t, err)
	running := w.create() // one build runs, one waits
	w.claim()
	_, err = w.CreateBuild(t.Context(), previewd.CreateBuildRequest{
		ProjectID: running.ProjectID, TemplateFiles: previewd.Files{"index.html": []byte("again")}, Caller: caller, Policy: previewd.PolicyQueue,
	})
	require.NoError(t, err)
	superseded := w.create()
	w.rebuild(superseded.ProjectID)
	queued := w.create()
	unguarded := request()
	unguarded.Prompt = "without a key"
	_, err = w.CreatePreview(t.Context(), unguarded)
	require.NoError(t, err)
	w.ids = map[string]string{
		"DEPLOYED": deployed.ProjectID, "COMPLETED": deployed.BuildID, "FAILED": failed.ID,
		"DELETED": deleted.ProjectID,
		"RUNNING": running.ProjectID, "SUPERSEDED": superseded.BuildID, "QUEUED": queued.ProjectID,
	}
	testkit.CheckInvariants(t, db)
	w.shell = testkit.OpenShell(t, cfg)
	return w
}

func (w *world) damage(script string) {
	w.t.Helper()
	for name, id := range w.ids {
		script = strings.ReplaceAll(script, "$"+name, "'"+id+"'")
	}
	w.shell.Do(script)
}

func (w *world) broken() []string {
	w.t.Helper()
	found, err := w.CheckIntegrity(w.t.Context())
	require.NoError(w.t, err)
	var names []string
	for _, c := range previewd.Broken(found.Checks) {
		require.NotEmpty(w.t, c.Examples, c.Name)
		require.NotEmpty(w.t, c.Description, c.Name)
		names = append(names, c.Name)
	}
	require.Equal(w.t, len(names) == 0, found.OK)
	slices.Sort(names)
	return names
}

// damages maps each check to what breaks it; " +" tells what else breaks by it.
var damages = map[string]string{
	"project_without_first_build":                   `DELETE FROM worker_builds WHERE project_id = $QUEUED`,
	"build_numbers_with_gap":                        `UPDATE worker_projects SET last_build_seq = 9 WHERE id = $QUEUED`,
	"build_without_project +key_without_resource":   `DELETE FROM worker_projects WHERE id = $QUEUED`,
	"build_of_another_owner":                        `UPDATE worker_builds SET owner_id = 'mallory' WHERE project_id = $QUEUED`,
	"two_running_builds +build_state_not_as_events": "DROP INDEX worker_builds_one_running\nUPDATE worker_builds SET state = 'building', runner_id = 'r', lease_until = 9000000000000000 WHERE project_id = $RUNNING AND seq = 2",
	"two_waiting_builds +build_state_not_as_events": "DROP INDEX worker_builds_one_queued\nUPDATE worker_builds SET state = 'queued', runner_id = NULL, lease_until = NULL WHERE project_id = $RUNNING AND seq = 1",
	"build_lease_expired":                           `UPDATE worker_builds SET lease_until = 1 WHERE state = 'building'`,
	"queued_build_of_inactive_project":              `UPDATE worker_projects SET state = 'deleting' WHERE id = $QUEUED`,
	"running_build_of_deleted_project +deletion_untold +queued_build_of_inactive_project": `UPDATE worker_projects SET state = 'deleted', deleted_at = 1 WHERE id = (SELECT project_id FROM worker_builds WHERE state = 'building')`,
	"superseded_without_successor":                               `UPDATE worker_builds SET superseded_by = id WHERE id = $SUPERSEDED`,
	"completed_build_without_version":                            "DELETE FROM worker_versions\nUPDATE worker_projects SET last_version_number = 0, current_version_id = NULL, current_build_seq = 0",
	"version_without_completed_build +build_state_not_as_events": `UPDATE worker_builds SET state = 'canceled', cancel_reason = 'user' WHERE id = $COMPLETED`,
	"version_differs_from_build":                                 `UPDATE worker_versions SET build_epoch = 7`,
	"version_numbers_with_gap":                                   `UPDATE worker_projects SET last_version_number = 5 WHERE id = $DEPLOYED`,
	"current_version_foreign":                                    `UPDATE worker_projects SET current_version_id = (SELECT id FROM worker_versions), current_build_seq = 1 WHERE id = $QUEUED`,
	"current_version_outdated":                                   `UPDATE worker_projects SET current_version_id = NULL, current_build_seq = 0 WHERE id = $DEPLOYED`,
	"log_length_wrong":                                           `UPDATE worker_builds SET log_bytes = 1000 WHERE id = $FAILED`,
	"event_numbers_with_gap":                                     `UPDATE worker_projects SET last_event_seq = last_event_seq + 5 WHERE id = $QUEUED`,
	"build_state_not_as_events":                                  `UPDATE worker_events SET type = 'build.step' WHERE project_id = $QUEUED AND type = 'build.queued'`,
	"event_without_feed_position":                                `UPDATE worker_events SET at = 1 WHERE project_id = $QUEUED AND seq = 2`,
	"feed_order_not_as_events":                                   "UPDATE worker_events SET feed_pos = 3 - seq WHERE project_id = $QUEUED\nUPDATE worker_feed SET position = 2",
	"feed_positions_with_gap":                                    `UPDATE worker_feed SET position = position + 3`,
	"creation_without_audit +audit_chain_broken":                 `UPDATE worker_audit SET subject = 'x' WHERE action = 'project.create' AND seq = 1`,
	"transition_without_audit +audit_chain_broken":               `UPDATE worker_audit SET action = 'x' WHERE action = 'build.failed'`,
	"deletion_untold":                                            `UPDATE worker_projects SET state = 'deleted', deleted_at = 1 WHERE id = $DEPLOYED`,
	"event_after_deletion":                                       "INSERT INTO worker_events (project_id, seq, type, data, request_id, at) SELECT id, last_event_seq + 1, 'version.activated', '{}', '', 9000000000000000 FROM worker_projects WHERE id = $DELETED\nUPDATE worker_projects SET last_event_seq = last_event_seq + 1 WHERE id = $DELETED",
	"key_without_resource":                                       `INSERT INTO worker_idempotency_keys (principal, key, operation, fp_version, fingerprint, state, status, resource_id, request_id, created_at, body_pruned_at) VALUES ('p', 'k', 'o', 1, 'f', 'done', 201, 'gone', 'r', 1, 1)`,
	"key_without_answer":                                         `UPDATE worker_idempotency_keys SET body = NULL WHERE resource_id = $QUEUED`,
	"project_without_key":                                        `DELETE FROM worker_idempotency_keys WHERE resource_id = $QUEUED`,
	"create_key_used_twice":                                      "sqlite:CREATE TABLE copy AS SELECT * FROM worker_projects\nsqlite:DROP TABLE worker_projects\nsqlite:ALTER TABLE copy RENAME TO worker_projects\npostgres:ALTER TABLE worker_projects DROP CONSTRAINT worker_projects_create_principal_create_key_key\nUPDATE worker_projects SET create_key = 'none:same'",
	"guard_without_project":                                      `UPDATE worker_create_guard SET project_id = 'gone'`,
	"audit_chain_broken":                                         `UPDATE worker_audit SET actor = 'mallory' WHERE seq = 2`,
}

var workerTables = []string{
	"worker_projects", "worker_builds", "worker_versions", "worker_events", "worker_build_logs", "worker_audit", "worker_audit_head",
	"worker_idempotency_keys", "worker_create_guard", "worker_feed",
}

func TestEachBrokenPromiseIsReported(t *testing.T) {
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		w := newWorld(t, cfg)
		w.shell.Do("UPDATE worker_events SET at = 9000000000000000") // none gets too old for the feed meanwhile
		for _, table := range workerTables {
			w.shell.Do("CREATE TABLE good_" + table + " AS SELECT * FROM " + table)
		}
		tested := map[string]bool{}
		for broken, script := range damages {
			want := strings.Split(broken, " +")
			tested[want[0]] = true
			slices.Sort(want)
			w.damage(script)
			require.Equal(t, want, w.broken())
			w.shell.Do("BEGIN")
			for _, table := range workerTables {
				w.shell.Do("DELETE FROM " + table + "\nINSERT INTO " + table + " SELECT * FROM good_" + table)
			}
			w.shell.Do("COMMIT")
			require.Empty(t, w.broken(), "as before")
		}
		for _, name := range []string{"artifact_manifest_unreadable", "artifact_file_missing", "artifact_bytes_altered", "build_source_missing"} {
			tested[name] = true // in TestBrokenFilesAreReported
		}
		for _, name := range store.GatewayChecks() {
			tested[name] = true // in the gateway's tests
		}
		found, err := w.CheckIntegrity(t.Context())
		require.NoError(t, err)
		for _, c := range found.Checks {
			require.True(t, tested[c.Name], "nothing breaks %s", c.Name)
		}
		require.Len(t, found.Checks, len(tested))
	})
}

func TestBrokenFilesAreReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Engines()[0].Config(t))
	version, err := w.FindBuild(t.Context(), w.ids["COMPLETED"], 0)
	require.NoError(t, err)
	page, err := w.ListVersions(t.Context(), version.ProjectID, previewd.Page{})
	require.NoError(t, err)
	manifest := page.Versions[0].ManifestDigest
	m, err := artifact.ReadManifest(t.Context(), w.Artifacts, manifest)
	require.NoError(t, err)
	waiting, err := w.FindProject(t.Context(), w.ids["QUEUED"])
	require.NoError(t, err)
	path := func(d previewd.Digest) string { return filepath.Join(w.blobs, "blobs", string(d[:2]), string(d)) }
	replace := func(d previewd.Digest, content []byte) {
		require.NoError(t, os.Remove(path(d)))
		if content != nil {
			require.NoError(t, os.WriteFile(path(d), content, 0o600))
		}
	}
	good, err := os.ReadFile(path(m.Files[0].Digest))
	require.NoError(t, err)

	replace(m.Files[0].Digest, make([]byte, len(good)))
	require.Equal(t, []string{"artifact_bytes_altered"}, w.broken())
	replace(m.Files[0].Digest, good[1:])
	require.Equal(t, []string{"artifact_file_missing"}, w.broken(), "another size is another file")
	replace(m.Files[0].Digest, good)
	require.Empty(t, w.broken())
	replace(manifest, []byte("{}"))
	require.Equal(t, []string{"artifact_manifest_unreadable"}, w.broken())
	replace(waiting.LatestBuild.Source.Digest, nil)
	require.Equal(t, []string{"artifact_manifest_unreadable", "build_source_missing"}, w.broken())
}

// What has one right repair is repaired and written down; the rest stays.
func TestRepairsRestorePromises(t *testing.T) {
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		w := newWorld(t, cfg)
		w.damage(`
			UPDATE worker_builds SET lease_until = 1 WHERE state = 'building'
			UPDATE worker_projects SET last_event_seq = 1, last_version_number = 0, current_version_id = NULL, current_build_seq = 0 WHERE id = $DEPLOYED
			UPDATE worker_projects SET last_build_seq = 1 WHERE id = $RUNNING
			UPDATE worker_builds SET log_bytes = 1000 WHERE id = $FAILED
			UPDATE worker_create_guard SET project_id = 'gone', expires_at = 1
			INSERT INTO worker_idempotency_keys (principal, key, operation, fp_version, fingerprint, state, status, resource_id, request_id, created_at, body_pruned_at) VALUES ('p', 'k', 'o', 1, 'f', 'done', 201, 'gone', 'r', 1, 1)
			UPDATE worker_projects SET last_build_seq = 9 WHERE id = $QUEUED`)
		require.Len(t, w.broken(), 8)
		fixed := map[string]int{}
		for again := true; again; {
			list, err := w.ListRepairs(t.Context())
			require.NoError(t, err)
			again = false
			for _, r := range list {
				require.NotEmpty(t, r.Text)
				done, err := w.Repair(t.Context(), r)
				require.NoError(t, err)
				if done {
					fixed[r.Check]++
					again = true
				}
			}
		}
		require.Equal(t, []string{"build_numbers_with_gap"}, w.broken(), "builds that are gone do not come back")
		require.Equal(t, map[string]int{
			"build_lease_expired": 1, "event_numbers_with_gap": 1, "version_numbers_with_gap": 1, "build_numbers_with_gap": 1,
			"log_length_wrong": 1, "guard_without_project": 1, "key_without_resource": 1, "current_version_outdated": 1,
		}, fixed)
		audited := w.shell.Texts("SELECT subject FROM worker_audit WHERE actor = 'operator/doctor' AND action = 'doctor.fix'")
		require.Len(t, audited, len(fixed))
		project, err := w.FindProject(t.Context(), w.ids["DEPLOYED"])
		require.NoError(t, err)
		require.Equal(t, int64(1), project.CurrentVersion)
	})
}

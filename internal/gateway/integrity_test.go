package gateway_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// world is a gateway with one of everything, names for what is in it, and a way to
// damage it.
type world struct {
	*fixture
	shell *testkit.Shell
	ids   map[string]string
}

func newWorld(t *testing.T, e testkit.Engine) *world {
	t.Helper()
	cfg := e.Config(t)
	e.Config = func(testing.TB) store.Config { return cfg }
	w := &world{fixture: setup(t, e, false, priced)}
	over := w.ended() // builds of every end
	deleted := w.create(ann)
	_, err := w.DeleteProject(t.Context(), as(ann), deleted.Project.ID)
	require.NoError(t, err)
	_, err = w.CreateBuild(t.Context(), as(ann, key+"-rejected"), gateway.CreateBuild{ProjectID: previewd.NewRowID()})
	require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
	w.follow()
	queued := w.create(bob) // and one that is not over
	w.faults.set(func(w *faultyWorker) { w.before = away })
	pending, err := w.CreateProject(t.Context(), as(bob, key), page())
	require.NoError(t, err)
	w.faults.set(func(w *faultyWorker) { w.before = nil })
	w.follow()
	builds, err := w.ListBuilds(t.Context(), ann, over.ID, previewd.Page{})
	require.NoError(t, err)
	first := builds.Builds[len(builds.Builds)-1]
	require.Equal(t, previewd.ProjectDeployed, first.Status)
	in, err := w.Store.FindIntentByWorkerKey(t.Context(), w.keyOf(over.ID))
	require.NoError(t, err)
	w.ids = map[string]string{
		"PROJECT": over.ID, "INTENT": in.ID, "DEPLOYED": first.ID, "DELETED": deleted.Project.ID, "QUEUED": queued.Build.ID,
		"PENDING": pending.Intent.ID, "USER": "user:" + ann,
	}
	require.Equal(t, previewd.ProjectQueued, w.project(bob, queued.Project.ID).Status)
	w.shell = testkit.OpenShell(t, cfg)
	require.Empty(t, w.broken())
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
	checks, err := w.Store.FindViolations(w.t.Context())
	require.NoError(w.t, err)
	agreement, err := w.Store.CheckAgreement(w.t.Context(), w.theirs)
	require.NoError(w.t, err)
	var names []string
	for _, c := range append(checks, previewd.Broken([]previewd.Check{agreement})...) {
		require.NotEmpty(w.t, c.Examples, c.Name)
		require.NotEmpty(w.t, c.Description, c.Name)
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return names
}

// damages maps each check to what breaks it; " +" tells what else breaks by it.
var damages = map[string]string{
	"intent_without_outcome":                             `UPDATE gateway_intents SET build_id = 'gone' WHERE id = $INTENT`,
	"app_project_without_intent":                         `UPDATE gateway_projects SET owner_id = 'mallory' WHERE id = $DELETED` + "\n" + `UPDATE gateway_builds SET owner_id = 'mallory' WHERE project_id = $DELETED`,
	"intent_overdue":                                     `UPDATE gateway_intents SET deadline_at = 1 WHERE id = $PENDING`,
	"intent_request_wrong":                               `DELETE FROM gateway_intent_requests WHERE intent_id = $PENDING`,
	"name_wrong":                                         `DELETE FROM gateway_names WHERE intent_id = $INTENT`,
	"app_project_without_newest_build":                   `UPDATE gateway_projects SET build_seq = 9 WHERE id = $PROJECT`,
	"app_build_of_another_owner":                         `UPDATE gateway_builds SET owner_id = 'mallory' WHERE id = $DEPLOYED`,
	"app_event_not_applied":                              `UPDATE gateway_projects SET last_event_seq = 1 WHERE id = $PROJECT`,
	"app_status_not_as_events":                           `UPDATE gateway_builds SET status = 'canceled' WHERE id = $DEPLOYED`,
	"app_positions_with_gap":                             `UPDATE gateway_feed SET position = position + 1`,
	"event_parked_too_long":                              `INSERT INTO gateway_parked_events (project_id, seq, event, state, parked_at) VALUES ($PROJECT, 99, '{}', 'parked', 1)`,
	"app_creation_without_audit +app_audit_chain_broken": `UPDATE gateway_audit SET subject = 'x' WHERE action = 'project.create' AND subject = 'project/' || $PROJECT`,
	"build_without_billing":                              `DELETE FROM gateway_billing_sessions WHERE build_id = $QUEUED`,
	"billing_open_too_long":                              `UPDATE gateway_builds SET finished_at = 1 WHERE project_id = $DELETED` + "\n" + `UPDATE gateway_billing_sessions SET state = 'open', closed_at = NULL WHERE project_id = $DELETED`,
	"billing_closed_too_soon":                            `UPDATE gateway_billing_sessions SET state = 'voided', closed_at = 1 WHERE build_id = $QUEUED`,
	"billed_for_our_fault":                               `UPDATE gateway_billing_sessions SET reason = 'failed_infra' WHERE build_id = $DEPLOYED`,
	"billing_amount_wrong":                               `UPDATE gateway_billing_sessions SET amount_micros = amount_micros + 1 WHERE build_id = $DEPLOYED`,
	"billing_entry_unbalanced +billing_balance_wrong":    `UPDATE gateway_billing_postings SET amount_micros = amount_micros + 1 WHERE account = $USER`,
	"billing_balance_wrong":                              `DELETE FROM gateway_billing_accounts WHERE account = $USER`,
	"app_audit_chain_broken":                             `UPDATE gateway_audit SET actor = 'mallory' WHERE seq = 2`,
	"app_differs_from_worker":                            `UPDATE gateway_builds SET worker_status = 'failed' WHERE id = $DEPLOYED`,
}

var gatewayTables = []string{
	"gateway_intents", "gateway_intent_requests", "gateway_names", "gateway_projects", "gateway_builds", "gateway_events", "gateway_feed",
	"gateway_parked_events", "gateway_billing_sessions", "gateway_billing_entries", "gateway_billing_postings", "gateway_billing_accounts",
	"gateway_audit", "gateway_audit_head",
}

func TestEachBrokenPromiseIsReported(t *testing.T) {
	t.Parallel()
	for _, e := range testkit.Engines() {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, e)
			w.shell.Do("UPDATE worker_builds SET finished_at = 1 WHERE finished_at IS NOT NULL") // a while ago
			w.shell.Do("sqlite:PRAGMA foreign_keys = 0")
			for _, table := range gatewayTables {
				w.shell.Do("CREATE TABLE good_" + table + " AS SELECT * FROM " + table)
			}
			tested := map[string]bool{"app_differs_from_worker": true}
			for broken, script := range damages {
				want := strings.Split(broken, " +")
				tested[want[0]] = true
				slices.Sort(want)
				w.damage(script)
				require.Equal(t, want, w.broken())
				w.shell.Do("BEGIN")
				for _, table := range gatewayTables {
					w.shell.Do("DELETE FROM " + table + "\nINSERT INTO " + table + " SELECT * FROM good_" + table)
				}
				w.shell.Do("COMMIT")
				require.Empty(t, w.broken(), "as before %s", broken)
			}
			for _, name := range store.GatewayChecks() {
				require.True(t, tested[name], "nothing breaks %s", name)
			}
			require.Len(t, tested, len(store.GatewayChecks())+1)
		})
	}
}

// What has one right repair is repaired and written down; the rest stays.
func TestRepairsRestorePromises(t *testing.T) {
	t.Parallel()
	for _, e := range testkit.Engines() {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, e)
			before := w.sessions(ann)
			balance, err := w.Store.FindBalance(t.Context(), w.ids["USER"])
			require.NoError(t, err)
			w.damage(`
				UPDATE gateway_builds SET finished_at = finished_at - 3600000000, started_at = started_at - 3600000000, queued_at = queued_at - 3600000000
				UPDATE gateway_billing_sessions SET state = 'open', closed_at = NULL, reason = '', amount_micros = 0 WHERE build_id = $DEPLOYED
				DELETE FROM gateway_billing_postings WHERE entry_key LIKE 'build:' || $DEPLOYED || '%'
				DELETE FROM gateway_billing_entries WHERE entry_key LIKE 'build:' || $DEPLOYED || '%'
				DELETE FROM gateway_billing_accounts WHERE account = $USER
				UPDATE gateway_billing_accounts SET balance_micros = 7
				INSERT INTO gateway_intent_requests (intent_id, body) SELECT $INTENT, body FROM gateway_intent_requests WHERE intent_id = $PENDING
				INSERT INTO gateway_names (user_id, name, intent_id) SELECT owner_id, 'of nothing', intent_id FROM gateway_projects WHERE id = $DELETED
				DELETE FROM gateway_names WHERE intent_id = $INTENT`)
			require.Equal(t, []string{"billing_balance_wrong", "billing_open_too_long", "intent_request_wrong", "name_wrong"}, w.broken())
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
			require.Equal(t, []string{"name_wrong"}, w.broken(), "a name that is gone does not come back")
			require.Equal(t, 1, fixed["billing_open_too_long"])
			require.Equal(t, 1, fixed["intent_request_wrong"])
			require.Equal(t, 1, fixed["name_wrong"])
			require.GreaterOrEqual(t, fixed["billing_balance_wrong"], 2)
			audited := w.shell.Texts("SELECT subject FROM gateway_audit WHERE actor = 'operator/doctor' AND action = 'doctor.fix'")
			require.Len(t, audited, 3+fixed["billing_balance_wrong"])
			after := w.sessions(ann)
			for i := range before {
				require.Equal(t, before[i].State, after[i].State)
				require.Equal(t, before[i].Reason, after[i].Reason)
				require.Equal(t, before[i].AmountMicros, after[i].AmountMicros, "as its last event would have closed it")
			}
			now, err := w.Store.FindBalance(t.Context(), w.ids["USER"])
			require.NoError(t, err)
			require.Equal(t, balance, now)
			w.shell.Do("INSERT INTO gateway_names (user_id, name, intent_id) SELECT owner_id, 'tea', intent_id FROM gateway_projects WHERE state <> 'deleted' AND intent_id NOT IN (SELECT intent_id FROM gateway_names)")
		})
	}
}

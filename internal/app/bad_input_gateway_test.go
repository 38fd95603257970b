package app_test

import (
	"encoding/json"
	"flag"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

var everyBadUser = flag.Int("every-bad-user", 300, "TestBadInputOfUsersGetsProblems sends one of so many bad requests; 1 sends all")

// As TestBadInputGetsProblems, for what users and operators send.
func TestBadInputOfUsersGetsProblems(t *testing.T) {
	t.Parallel()
	for _, e := range testkit.Engines() {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			cfg := e.Config(t)
			e.Config = func(testing.TB) store.Config { return cfg }
			f := startFront(t, e, false, func(c *config.Config) { c.Builds = -1 })
			if cfg.URL == "" {
				cfg.Path = f.Config.DatabasePath()
			}
			f.newBadInput(testkit.OpenShell(t, cfg)).run(*everyBadUser)
		})
	}
}

// newBadInput makes the cases for /api: about projects of one user, who is an
// operator too. No build runs.
func (f *front) newBadInput(shell *testkit.Shell) *badInput {
	f.t.Helper()
	token := f.token(eve)
	project, doomed, quiet := f.make(token), f.make(token), f.make(token)
	for range 3 { // by hand
		claim, err := f.Worker.ClaimBuild(f.t.Context(), "by-hand", 0)
		require.NoError(f.t, err)
		require.NoError(f.t, f.Worker.AppendLog(f.t.Context(), claim.Lease, 0, []byte("hello\n")))
		manifest, err := artifact.PutManifest(f.t.Context(), f.Worker.Artifacts, previewd.Manifest{})
		require.NoError(f.t, err)
		_, err = f.Worker.FinishBuild(f.t.Context(), claim.Lease, previewd.Outcome{Kind: previewd.OutcomeCompleted, Manifest: manifest, Runner: "static", Isolation: "process"})
		require.NoError(f.t, err)
	}
	for _, made := range []*previewd.AppCreation{project, doomed, quiet} {
		f.deployed(token, made.Project.ID)
	}
	shell.Do("UPDATE gateway_projects SET updated_at = 1 WHERE id = '" + quiet.Project.ID + "'") // its stream ends
	intents, err := f.Users.ListIntents(f.t.Context(), previewd.IntentConfirmed, "~", 10)
	require.NoError(f.t, err)

	b := &badInput{server: f.server, prefix: "/api", spec: "/api/openapi.json", elsewhere: (*badInput).addElsewhereOfUsers}
	b.tokenFor = func(operation string) string {
		if operation == "stream-events" {
			return f.token(previewd.NewID()) // whose stream never ends: a user may have twenty
		}
		return token
	}
	b.doomed = map[string]string{project.Project.ID: doomed.Project.ID}
	b.valid = map[string]string{
		"projectId": project.Project.ID, "buildId": project.Build.ID, "intentId": intents[0].ID, "referenceId": project.Build.ReferenceID,
		"stream-project-events.projectId": quiet.Project.ID, "delete-project.projectId": doomed.Project.ID, "number": "1", "kind": "user", "subject": "nobody",
		"wait": "1s", "after": "1", "offset": "1", "limit": "10", "cursor": project.Project.ID, "list-builds.cursor": "2", "list-versions.cursor": "2", "state": "confirmed",
		"status": "pending", "Idempotency-Key": goodKey + "-2", "Last-Event-ID": "1", "ticket": "x",
		"body.name": `"Tea"`, "update-project.body.name": `"Mine"`, "body.prompt": `"p"`, "body.template": `"landing"`, "body.templateFiles": `{"index.html":"y"}`, "body.metadata": `{"a":1}`,
		"body.remove": `["index.html"]`, "body.policy": `"supersede"`, "body.url": `"` + f.hookTo + `/x"`, "body.types": `["build.*"]`, "body.description": `"d"`, "body.active": "true",
		"name": "API_KEY", "body.value": `"hunter2-hunter2"`, "body.secret": "false", "body.scopes": `["install","build"]`,
		"body.kind": `"user"`, "body.subject": `"nobody"`, "body.reason": `"r"`,
	}
	b.baseline = map[string]int{
		"get-failure": http.StatusConflict, "repair-build": http.StatusConflict, // it has not failed
		"cancel-intent": http.StatusConflict, "retry-intent": http.StatusConflict, "create-project": http.StatusConflict, // names, once each
		"delete-project": http.StatusNotFound, "create-webhook": http.StatusConflict, "create-admin-webhook": http.StatusConflict, // twenty
	}
	for prefix, path := range map[string]string{"": "/api/webhooks", "admin-": "/api/admin/webhooks"} {
		hook := func() (id, delivery string) {
			var made struct{ ID string }
			r := f.ask(token, http.MethodPost, path, `{"url":"`+f.hookTo+`/hook"}`)
			require.Equal(f.t, http.StatusCreated, r.status, r.body)
			require.NoError(f.t, json.Unmarshal([]byte(r.body), &made))
			id = made.ID
			r = f.ask(token, http.MethodPost, path+"/"+id+"/test", "")
			require.NoError(f.t, json.Unmarshal([]byte(r.body), &made))
			return id, made.ID
		}
		id, delivery := hook()
		gone, _ := hook()
		b.doomed[id] = gone
		for _, op := range []string{"get-%webhook", "update-%webhook", "rotate-%webhook-secret", "test-%webhook", "list-%webhook-deliveries", "get-%webhook-delivery", "replay-%webhook-delivery"} {
			op = strings.Replace(op, "%", prefix, 1)
			b.valid[op+".webhookId"], b.valid[op+".deliveryId"] = id, delivery
		}
		b.valid["list-"+prefix+"webhook-deliveries.after"] = testkit.Base64URL([]byte("1 " + delivery))
		b.valid["delete-"+prefix+"webhook.webhookId"] = gone
		b.baseline["delete-"+prefix+"webhook"] = http.StatusNotFound
	}
	b.readDescription()
	return b
}

// addElsewhereOfUsers asks for what the description does not list.
func (b *badInput) addElsewhereOfUsers(add adder) {
	for _, target := range []string{"/api", "/api/", "/api/nothing", "/api//projects", "/api/projects/", "/api/admin", "/api/admin/", "/api/docs", "/api/openapi.json", "/api/openapi.yaml", "/api/openapi-3.0.json", "/api/schemas/Problem.json", "/api/%00", "/api/" + repeat("a/", 4000), "/API/projects", "/api/v1/projects", "/api/..%2fv1/projects"} {
		for _, method := range strings.Fields(badMethods) {
			add(badCase{group: "elsewhere", name: method + " " + target, broken: method == "CONNECT" || method == "PRI"}, wire{method: method, target: target, protocol: "HTTP/1.1"})
		}
	}
}

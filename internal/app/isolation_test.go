package app_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/testkit"
)

// row says how a route is called, and how its owner is answered.
type row struct {
	operation string
	body      string
	status    int
}

// rows are all routes, in an order in which the owner can call them. A route of
// the description that is not here fails the test.
func rows(hook string) []row {
	const files = `{"templateFiles":{"index.html":"<h1>next</h1>"}}`
	webhook := `{"url":"` + hook + `/more"}`
	list := []row{
		{"list-projects", "", 200}, {"get-project", "", 200}, {"update-project", `{"name":"Another"}`, 200}, {"list-builds", "", 200},
		{"list-versions", "", 200}, {"activate-version", "", 200}, {"stream-project-events", "", 200}, {"stream-events", "", 200},
		{"create-stream-ticket", "", 201}, {"get-build", "", 200}, {"read-build-log", "", 200}, {"cancel-build", "", 200},
		{"list-packages", "", 200}, {"get-failure", "", 409}, {"repair-build", files, 409},
		{"get-intent", "", 200}, {"cancel-intent", "", 409}, {"list-billing-sessions", "", 200}, {"list-templates", "", 200},
		{"set-env", `{"value":"hunter2-hunter2","secret":true}`, 200}, {"list-env", "", 200}, {"delete-env", "", 204},
		{"create-project", aPage, 201}, {"create-build", files, 201},
	}
	for _, prefix := range []string{"", "admin-"} {
		list = append(list, row{"list-" + prefix + "webhooks", "", 200}, row{"create-" + prefix + "webhook", webhook, 201},
			row{"get-" + prefix + "webhook", "", 200}, row{"update-" + prefix + "webhook", `{"description":"mine"}`, 200},
			row{"rotate-" + prefix + "webhook-secret", "", 200}, row{"test-" + prefix + "webhook", "", 200},
			row{"list-" + prefix + "webhook-deliveries", "", 200}, row{"get-" + prefix + "webhook-delivery", "", 200},
			row{"replay-" + prefix + "webhook-delivery", "", 200}, row{"delete-" + prefix + "webhook", "", 204})
	}
	return append(list, row{"list-intents", "", 200}, row{"retry-intent", "", 409}, row{"find-reference", "", 200}, row{"list-denied", "", 200}, row{"list-attention", "", 200}, row{"settle-attention", "", 204},
		row{"deny", `{"kind":"user","subject":"nobody","reason":"test"}`, 204}, row{"allow", "", 204}, row{"delete-project", "", 204})
}

// matrix calls every route as everybody.
type matrix struct {
	*front
	ids, missing map[string]string // by path parameter
	admin        map[string]string // of the operator's webhooks
	ours         *regexp.Regexp    // ids of the owner
}

func (f *front) newMatrix() *matrix {
	f.t.Helper()
	token := f.token(ann)
	made := f.make(token)
	f.deployed(token, made.Project.ID)
	intents, err := f.Users.ListIntents(f.t.Context(), previewd.IntentConfirmed, "~", 10)
	require.NoError(f.t, err)
	require.Len(f.t, intents, 1)
	hook := func(token, path string) map[string]string {
		ids := map[string]string{}
		var w struct{ ID string }
		r := f.ask(token, http.MethodPost, path, `{"url":"`+f.hookTo+`/hook"}`)
		require.Equal(f.t, http.StatusCreated, r.status, r.body)
		require.NoError(f.t, json.Unmarshal([]byte(r.body), &w))
		ids["webhookId"] = w.ID
		r = f.ask(token, http.MethodPost, path+"/"+w.ID+"/test", "")
		require.Equal(f.t, http.StatusOK, r.status, r.body)
		require.NoError(f.t, json.Unmarshal([]byte(r.body), &w))
		ids["deliveryId"] = w.ID
		return ids
	}
	m := &matrix{front: f, ids: hook(token, "/api/webhooks"), admin: hook(f.token(eve), "/api/admin/webhooks")}
	missing := "we_" + strings.Repeat("a", len(m.ids["webhookId"])-len("we_"))
	m.missing = map[string]string{
		"webhookId": missing, "deliveryId": missing + strings.TrimPrefix(m.ids["deliveryId"], m.ids["webhookId"]),
		"projectId": previewd.NewID(), "buildId": previewd.NewID(), "intentId": previewd.NewRowID(),
	}
	maps.Copy(m.ids, map[string]string{
		"projectId": made.Project.ID, "buildId": made.Build.ID, "intentId": intents[0].ID, "number": "1", "kind": "user", "subject": "nobody",
		"referenceId": made.Build.ReferenceID, "name": "API_KEY",
	})
	m.ours = regexp.MustCompile(strings.Join([]string{made.Project.ID, made.Build.ID, intents[0].ID, m.ids["webhookId"], m.ids["deliveryId"], ann}, "|"))
	return m
}

// path fills in ids; what has none in others is the owner's.
func (m *matrix) path(op apiOperation, others map[string]string) string {
	path := op.path
	for _, p := range op.Parameters {
		if p.In != "path" {
			continue
		}
		value := m.ids[p.Name]
		if v, ok := others[p.Name]; ok {
			value = v
		}
		require.NotEmpty(m.t, value, "say what %s is", p.Name)
		path = strings.Replace(path, "{"+p.Name+"}", value, 1)
	}
	return path
}

// call calls a route with a key of its own.
func (m *matrix) call(token string, op apiOperation, ids map[string]string, body string) reply {
	m.t.Helper()
	return m.ask(token, op.method, m.path(op, ids), body, "Idempotency-Key", previewd.NewRequestID())
}

// shape is an answer without what differs between two equal ones.
func (m *matrix) shape(r reply, ids map[string]string) string {
	m.t.Helper()
	var p map[string]any
	require.NoError(m.t, json.Unmarshal([]byte(r.body), &p), r.body)
	for _, name := range []string{"referenceId", "timestamp"} {
		require.NotEmpty(m.t, p[name])
		delete(p, name)
	}
	delete(p, "instance")
	text, err := json.Marshal(p)
	require.NoError(m.t, err)
	shape := http.StatusText(r.status) + " " + string(text)
	for _, name := range []string{"deliveryId", "webhookId", "projectId", "buildId", "intentId"} { // the longer first
		shape = strings.ReplaceAll(shape, ids[name], "<"+name+">")
	}
	parts := strings.Split(shape, "\n")
	for name := range r.header {
		if name != "Date" && name != "X-Request-Id" {
			parts = append(parts, name)
		}
	}
	slices.Sort(parts[1:])
	return strings.Join(parts, "\n")
}

// Every route, as everybody: what is another user's is answered like what is not
// there, operators' routes are operators' alone, and nobody is nobody.
func TestUsersAreKeptApart(t *testing.T) {
	eachLayout(t, func(t *testing.T, f *front) {
		m := f.newMatrix()
		routes, list := f.apiRoutes(), rows(f.hookTo)
		another := testkit.NewIssuer(t)
		var before, after previewd.AppProject
		f.get(f.token(ann), m.path(routes["get-project"], nil), &before)
		requests := 0
		for _, row := range list {
			op, ok := routes[row.operation]
			require.True(t, ok, "there is no route %s", row.operation)
			m.asNobody(op, row, another)
			m.asOthers(op, row)
			requests += 10
		}
		f.get(f.token(ann), m.path(routes["get-project"], nil), &after)
		require.Equal(t, before, after, "others have changed nothing")
		for _, row := range list {
			op := routes[row.operation]
			token, ids := f.token(ann), map[string]string(nil)
			if strings.HasPrefix(op.path, "/api/admin/") {
				token, ids = f.token(eve), m.admin
			}
			r := m.call(token, op, ids, row.body)
			require.Equal(t, row.status, r.status, "%s: %s", row.operation, r.body)
			delete(routes, row.operation)
		}
		require.Empty(t, routes, "the matrix has no row for them")
		t.Logf("%d routes, about %d requests", len(list), requests)
	})
}

// asNobody calls a route without a token, with a bad one, and by other methods.
func (m *matrix) asNobody(op apiOperation, row row, another *testkit.Issuer) {
	m.t.Helper()
	for _, token := range []string{
		"", "nonsense", m.Token, another.Token(ann), m.token(ann, func(c map[string]any) { c["exp"] = 1 }), m.token(ann, func(c map[string]any) { c["role"] = "anon" }),
	} {
		r := m.call(token, op, nil, row.body)
		require.Equal(m.t, http.StatusUnauthorized, r.status, "%s with %q: %s", row.operation, token, r.body)
		require.NotEmpty(m.t, r.header.Get("Www-Authenticate"))
		require.NotRegexp(m.t, m.ours, strings.ReplaceAll(r.body, m.path(op, nil), ""))
	}
	other := http.MethodPut // which few paths know
	if strings.HasSuffix(op.path, "/env/{name}") {
		other = http.MethodPost
	}
	for _, method := range []string{other, "PROPFIND"} {
		r := m.ask(m.token(ann), method, m.path(op, nil), "")
		require.Equal(m.t, http.StatusMethodNotAllowed, r.status, "%s %s", method, op.path)
	}
}

// asOthers calls a route as another user and as an operator: for what is the
// owner's, and for what is not there.
func (m *matrix) asOthers(op apiOperation, row row) {
	m.t.Helper()
	if strings.HasPrefix(op.path, "/api/admin/") {
		for _, user := range []string{ann, bob} {
			r := m.call(m.token(user), op, nil, row.body)
			require.Equal(m.t, http.StatusForbidden, r.status, "%s: %s", row.operation, r.body)
		}
		return
	}
	for _, user := range []string{bob, eve} {
		theirs := m.call(m.token(user), op, nil, row.body)
		if !strings.Contains(op.path, "Id}") {
			require.Less(m.t, theirs.status, 300, "%s: %s", row.operation, theirs.body)
			require.NotRegexp(m.t, m.ours, theirs.body, row.operation)
			continue
		}
		require.Equal(m.t, http.StatusNotFound, theirs.status, "%s: %s", row.operation, theirs.body)
		nothing := m.call(m.token(user), op, m.missing, row.body)
		require.Equal(m.t, m.shape(nothing, m.missing), m.shape(theirs, m.ids), row.operation)
	}
}

package app_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/worker"
)

// apiScopes are the scopes that the API's description names, by method and path.
// A route without one is for anyone, and listed here by hand.
func (s *server) apiScopes() map[string]previewd.Scope {
	s.t.Helper()
	_, _, text := s.call(http.MethodGet, "/openapi.json", "")
	var doc struct {
		Paths map[string]map[string]struct {
			Security []map[string][]string
		}
	}
	require.NoError(s.t, json.Unmarshal([]byte(text), &doc))
	scopes := map[string]previewd.Scope{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			route := strings.ToUpper(method) + " " + path
			if route == "GET /v1/templates" {
				require.Empty(s.t, op.Security, route)
				continue
			}
			require.Len(s.t, op.Security, 1, "%s: say who may call it", route)
			require.Len(s.t, op.Security[0]["service"], 1, "%s: one scope", route)
			scopes[route] = previewd.Scope(op.Security[0]["service"][0])
		}
	}
	require.NotEmpty(s.t, scopes)
	return scopes
}

// Every route takes tokens of its one scope, and tells others what they lack.
func TestRoutesTakeTheirScopeOnly(t *testing.T) {
	t.Parallel()
	s := startWith(t, config.Config{Builds: -1})
	secrets := map[previewd.Scope]string{}
	for _, scope := range previewd.AllScopes() {
		_, secret, err := s.Worker.CreateToken(t.Context(), worker.NewToken{
			Name: strings.ReplaceAll(string(scope), ":", "-"), Scopes: previewd.Scopes{scope},
		})
		require.NoError(t, err)
		secrets[scope] = secret
	}
	used := map[previewd.Scope]bool{}
	for route, needs := range s.apiScopes() {
		require.Contains(t, secrets, needs, "%s: no such scope", route)
		used[needs] = true
		method, path, _ := strings.Cut(route, " ")
		path = strings.NewReplacer("{projectId}", previewd.NewID(), "{buildId}", previewd.NewID(), "{number}", "1", "{name}", "API_URL").Replace(path)
		if path == "/v1/events" {
			path += "?wait=0s"
		}
		body := ""
		if method == http.MethodPost || method == http.MethodPut {
			body = "{}"
		}
		for scope, secret := range secrets {
			status, header, text := s.call(method, path, body, "Authorization", "Bearer "+secret)
			if scope == needs {
				require.NotContains(t, []int{401, 403}, status, "%s by %s: %s", route, scope, text)
				continue
			}
			require.Equal(t, http.StatusForbidden, status, "%s by %s: %s", route, scope, text)
			require.Contains(t, text, `"code":"forbidden"`)
			require.Contains(t, text, "lacks the scope "+string(needs))
			require.Equal(t, `Bearer error="insufficient_scope", scope="`+string(needs)+`"`, header.Get("WWW-Authenticate"))
		}
	}
	for _, scope := range previewd.AllScopes() {
		require.True(t, used[scope], "%s allows nothing", scope)
	}
}

// A project's key is told to the principal that sent it, and to nobody else.
func TestKeyIsToldToItsPrincipalOnly(t *testing.T) {
	t.Parallel()
	s := startWith(t, config.Config{Builds: -1})
	bearer := func(name, principal string) []string {
		_, secret, err := s.Worker.CreateToken(t.Context(), worker.NewToken{Name: name, Principal: principal, Service: "gateway"})
		require.NoError(t, err)
		return []string{"Authorization", "Bearer " + secret}
	}
	one, heir, other := bearer("one", "ours"), bearer("heir", "ours"), bearer("other", "theirs")
	const body = `{"userId":"u","templateFiles":{"index.html":"x"}}`
	p := s.create(body, append(one, "Idempotency-Key", goodKey)...)
	for _, path := range []string{"/v1/projects/" + p.ProjectID, "/v1/projects?createdBy=gateway"} {
		for _, from := range [][]string{one, heir} {
			_, _, text := s.call(http.MethodGet, path, "", from...)
			require.Contains(t, text, `"idempotencyKey":"`+goodKey+`"`)
		}
		status, _, text := s.call(http.MethodGet, path, "", other...)
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, text, p.ProjectID)
		require.NotContains(t, text, goodKey)
	}
	for principal, key := range map[string]string{"ours": goodKey, "theirs": ""} { // the same within the process
		near := s.Worker.For(principal)
		found, err := near.FindProject(t.Context(), p.ProjectID)
		require.NoError(t, err)
		require.Equal(t, key, found.CreateKey)
		page, err := near.ListProjects(t.Context(), previewd.ProjectFilter{})
		require.NoError(t, err)
		require.Equal(t, key, page.Projects[0].CreateKey)
	}
	require.Equal(t, p.ProjectID, s.create(body, append(heir, "Idempotency-Key", goodKey)...).ProjectID, "one principal, one set of keys")
	again := s.create(body, append(other, "Idempotency-Key", goodKey)...)
	require.NotEqual(t, p.ProjectID, again.ProjectID)
}

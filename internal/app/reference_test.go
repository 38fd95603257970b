package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

// refusal is a request that must fail, and how.
type refusal struct {
	name, method, path, body string
	header                   []string
	status                   int
}

const secretQuery, secretBody = "query-nobody-may-keep", "body-nobody-may-keep"

// refusals are what every route refuses.
func (s *server) refusals(weak string) (list []refusal) {
	s.t.Helper()
	for route, scope := range s.apiScopes() {
		method, path, _ := strings.Cut(route, " ")
		path = strings.NewReplacer("{projectId}", previewd.NewID(), "{buildId}", previewd.NewID(), "{number}", "1", "{name}", "API_KEY").Replace(path)
		body := ""
		if method == http.MethodPost {
			body = `{"userId":"u","templateFiles":{"index.html":"` + secretBody + `"}}`
			if strings.HasSuffix(path, "/builds") || strings.HasSuffix(path, "/repair") {
				body = `{"templateFiles":{"index.html":"` + secretBody + `"}}`
			}
		}
		if method == http.MethodPut {
			body = `{"value":"` + secretBody + `"}`
		}
		add := func(name string, status int, change func(*refusal)) {
			r := refusal{
				name: route + " " + name, method: method, path: path + "?secret=" + secretQuery, body: body,
				header: []string{"Idempotency-Key", previewd.NewRequestID()}, status: status,
			}
			change(&r)
			list = append(list, r)
		}
		add("without a token", 401, func(r *refusal) { r.header = append(r.header, "Authorization", "") })
		add("with a wrong token", 401, func(r *refusal) { r.header = append(r.header, "Authorization", "Bearer "+previewd.NewTokenSecret()) })
		if scope != previewd.ScopeOperate {
			add("without the scope", 403, func(r *refusal) { r.header = append(r.header, "Authorization", "Bearer "+weak) })
		}
		add("by a wrong method", 405, func(r *refusal) { r.method = "PATCH" })
		add("beside the route", 404, func(r *refusal) { r.path = "/v1/nothing" + path })
		add("with two slashes", 404, func(r *refusal) { r.path = "/" + path })
		if strings.Contains(route, "{") && body == "" {
			add("of nobody", 404, func(*refusal) {})
		}
		if !strings.HasPrefix(body, `{`) || strings.HasSuffix(path, "/cancel") || strings.HasSuffix(path, "/activate") {
			continue
		}
		add("with no JSON", 400, func(r *refusal) { r.body = secretBody })
		add("with another media type", 415, func(r *refusal) { r.header = append(r.header, "Content-Type", "text/plain") })
		if method == http.MethodPut {
			add("of nobody", 404, func(*refusal) {})
			continue // safe to repeat without a key
		}
		add("with a bad key", 400, func(r *refusal) { r.header = []string{"Idempotency-Key", "x"} })
	}
	return list
}

// Every problem that is answered is found again under its reference, with what
// it was about and with nothing that was sent.
func TestEveryProblemIsFoundByItsReference(t *testing.T) {
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		s := startWith(t, config.Config{DatabaseURL: cfg.URL, Builds: -1})
		_, weak, err := s.Worker.CreateToken(t.Context(), worker.NewToken{Name: "weak", Scopes: previewd.Scopes{previewd.ScopeOperate}})
		require.NoError(t, err)
		all := s.refusals(weak)
		const files = `"templateFiles":{"index.html":"x"}`
		p := s.create(`{"userId":"ann",`+files+`}`, "Idempotency-Key", goodKey)
		builds := "/v1/projects/" + p.ProjectID + "/builds"
		all = append(all,
			refusal{"a key of another request", http.MethodPost, create, `{"userId":"bob",` + files + `}`, []string{"Idempotency-Key", goodKey}, 422},
			refusal{"an active build", http.MethodPost, builds, `{"policy":"reject",` + files + `}`, []string{"Idempotency-Key", goodKey + "-2"}, 409},
			refusal{"the same again", http.MethodPost, builds, `{"policy":"reject",` + files + `}`, []string{"Idempotency-Key", goodKey + "-2"}, 409},
			refusal{"too long a prompt", http.MethodPost, create, `{"userId":"u","prompt":"` + strings.Repeat("x", 33<<10) + `",` + files + `}`, nil, 413},
			refusal{"too large a body", http.MethodPost, "/v1/builds/" + p.BuildID + "/cancel", strings.Repeat(" ", 97<<20), nil, 413},
		)
		answered := map[string]refusal{}
		for _, r := range all {
			if r.name == "too large a body" {
				r.path = create
			}
			status, header, text := s.call(r.method, r.path, r.body, append(r.header, "traceparent", trace, "X-Request-Id", "req-of-the-crawl")...)
			require.Equal(t, r.status, status, "%s: %s", r.name, text)
			require.Equal(t, "application/problem+json", header.Get("Content-Type"))
			var problem struct{ ReferenceID string }
			require.NoError(t, json.Unmarshal([]byte(text), &problem))
			answered[problem.ReferenceID] = r
		}
		require.Len(t, answered, len(all)-1, "each has its own, but for a stored refusal")
		for ref, r := range answered {
			var found *previewd.ReferenceInfo
			testkit.Eventually(t, r.name+" is stored", func() (ok bool) {
				found, err = s.Store.FindReference(t.Context(), ref)
				return err == nil
			})
			s.checkReference(r, found)
		}
		found, err := s.Store.FindReference(t.Context(), p.ReferenceID)
		require.NoError(t, err)
		require.Equal(t, p.BuildID, found.Build.ID)
		require.Equal(t, "ann", found.UserID)
		require.Nil(t, found.Problem)
		require.NoError(t, s.Worker.DeleteProject(t.Context(), previewd.DeleteProjectRequest{ProjectID: p.ProjectID}))
		found, err = s.Store.FindReference(t.Context(), p.ReferenceID)
		require.NoError(t, err)
		require.True(t, found.ProjectDeleted)
		require.Equal(t, previewd.CancelDeleted, found.Build.CancelReason)
	})
}

const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func (s *server) checkReference(r refusal, found *previewd.ReferenceInfo) {
	s.t.Helper()
	p := found.Problem
	require.Nil(s.t, found.Build)
	require.Equal(s.t, r.status, p.Status, r.name)
	require.NotEmpty(s.t, p.Code)
	require.NotEmpty(s.t, p.Message)
	require.False(s.t, p.At.IsZero())
	path, _, _ := strings.Cut(r.path, "?")
	require.Equal(s.t, r.method+" "+path, p.Method+" "+p.Path, r.name)
	require.Equal(s.t, "req-of-the-crawl", p.RequestID)
	require.Equal(s.t, trace[3:35], p.TraceID)
	require.Equal(s.t, previewd.RoleWorker, p.Role)
	if _, id, ok := strings.Cut(path, "/projects/"); ok {
		require.Equal(s.t, id[:36], p.ProjectID, r.name)
	}
	if _, id, ok := strings.Cut(path, "/builds/"); ok {
		require.Equal(s.t, id[:36], p.BuildID, r.name)
	}
	if r.status == http.StatusUnprocessableEntity {
		require.Equal(s.t, "bob", p.UserID)
	}
	for _, secret := range []string{secretQuery, secretBody, s.Token, "pvd_", goodKey} {
		require.NotContains(s.t, fmt.Sprintf("%+v", *p), secret, r.name)
	}
}

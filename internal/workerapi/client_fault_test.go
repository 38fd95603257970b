package workerapi_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/workerapi"
)

// script is a worker that answers each request by the next of its steps, and
// the last for ever.
type script struct {
	steps []http.HandlerFunc

	mu       sync.Mutex
	requests []*http.Request
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	step := s.steps[min(len(s.requests), len(s.steps)-1)]
	s.requests = append(s.requests, r)
	s.mu.Unlock()
	_, _ = io.Copy(io.Discard, r.Body)
	step(w, r)
}

// seen returns the requests so far.
func (s *script) seen() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func (s *script) play(steps ...http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps, s.requests = steps, nil
}

const (
	aProject = "01930f4e-5a7b-7c3d-8e9f-0a1b2c3d4e5f"
	aBuild   = "01930f4e-5a7b-7c3d-8e9f-0a1b2c3d4e60"
	other    = "01930f4e-5a7b-7c3d-8e9f-0a1b2c3d4e61"
)

type object = map[string]any

func aPreview(change ...func(object)) object {
	o := object{
		"projectId": aProject, "buildId": aBuild, "status": "queued", "userId": "ann", "idGenerationSource": "server",
		"createdByService": "svc", "referenceId": "ref_x",
	}
	for _, c := range change {
		c(o)
	}
	return o
}

func buildOf(change ...func(object)) object {
	o := object{"id": aBuild, "projectId": aProject, "seq": 1, "status": "queued", "queuedAt": "2026-01-02T03:04:05Z", "referenceId": "ref_x"}
	for _, c := range change {
		c(o)
	}
	return o
}

func set(name string, value any) func(object) {
	return func(o object) { o[name] = value }
}

// answers writes a body: JSON, or a string as it is.
func answers(status int, body any, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		if text, ok := body.(string); ok {
			_, _ = io.WriteString(w, text)
			return
		}
		_ = json.NewEncoder(w).Encode(body)
	}
}

func html(status int, headers ...string) http.HandlerFunc {
	return answers(status, "<html>An error page</html>", append([]string{"Content-Type", "text/html"}, headers...)...)
}

func problem(status int, code previewd.Code, headers ...string) http.HandlerFunc {
	body := object{"code": code, "detail": "It is so.", "referenceId": "ref_y", "status": status}
	return answers(status, body, append([]string{"Content-Type", "application/problem+json"}, headers...)...)
}

func created(change ...func(object)) http.HandlerFunc { return answers(201, aPreview(change...)) }

// reset breaks the connection as a network does.
func reset(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

// cut says that more comes, and breaks.
func cut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "10000")
	_, _ = io.WriteString(w, `{"projectId":`)
}

func noJitter(time.Duration) time.Duration { return 0 }

type faultCase struct {
	name  string
	steps []http.HandlerFunc
	code  previewd.Code // "" for success
	tries int
	bad   int64
}

func steps(list ...http.HandlerFunc) []http.HandlerFunc { return list }

func creatingFaults(elsewhere string) []faultCase {
	huge := strings.Repeat(" ", 9<<20) + "{}"
	return []faultCase{
		{"OK", steps(created()), "", 1, 0},
		{"UnknownStatus", steps(created(set("status", "exploding"))), "", 1, 0},
		{"UnknownMember", steps(created(set("new", 1))), "", 1, 0},
		{"ErrorsThenOK", steps(problem(500, previewd.CodeInternal), problem(503, previewd.CodeUnavailable), html(502), created()), "", 4, 0},
		{"ErrorsForEver", steps(problem(500, previewd.CodeInternal)), previewd.CodeInternal, 4, 0},
		{"AwayForEver", steps(problem(503, previewd.CodeUnavailable)), previewd.CodeUnavailable, 4, 0},
		{"ProxysErrors", steps(html(500)), previewd.CodeUnavailable, 4, 0},
		{"ResetsThenOK", steps(reset, reset, created()), "", 3, 0},
		{"ResetsForEver", steps(reset), previewd.CodeUnavailable, 4, 0},
		{"CutThenOK", steps(cut, created()), "", 2, 0},
		{"InFlightThenOK", steps(problem(409, previewd.CodeKeyInFlight), created()), "", 2, 0},
		{"FullThenOK", steps(problem(429, previewd.CodeQueueFull), created()), "", 2, 0},
		{"FullForEver", steps(problem(429, previewd.CodeQueueFull)), previewd.CodeQueueFull, 4, 0},
		{"Later", steps(problem(429, previewd.CodeQueueFull, "Retry-After", "3600")), previewd.CodeQueueFull, 1, 0},
		{"ProxysLater", steps(html(503, "Retry-After", "3600")), previewd.CodeUnavailable, 1, 0},
		{"KeyReused", steps(problem(422, previewd.CodeKeyReused)), previewd.CodeKeyReused, 1, 0},
		{"NewCode", steps(problem(409, "unheard_of")), "unheard_of", 1, 0},
		{"OurTokenRefused", steps(problem(401, previewd.CodeUnauthorized)), previewd.CodeUnavailable, 1, 0},
		{"OurTokenForbidden", steps(problem(403, previewd.CodeForbidden)), previewd.CodeUnavailable, 1, 0},

		{"Page", steps(html(200)), previewd.CodeInternal, 1, 1},
		{"PageNotFound", steps(html(404)), previewd.CodeInternal, 1, 1},
		{"Redirect", steps(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere, http.StatusTemporaryRedirect)
		}), previewd.CodeInternal, 1, 1},
		{"RedirectBack", steps(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/v1/projects", http.StatusSeeOther) }), previewd.CodeInternal, 1, 1},
		{"Huge", steps(answers(201, huge)), previewd.CodeInternal, 1, 1},
		{"HugeProblem", steps(answers(400, huge)), previewd.CodeInternal, 1, 1},
		{"NoContent", steps(answers(204, "")), previewd.CodeInternal, 1, 1},
		{"Empty", steps(answers(201, "")), previewd.CodeInternal, 1, 1},
		{"Null", steps(answers(201, "null")), previewd.CodeInternal, 1, 1},
		{"List", steps(answers(201, "[]")), previewd.CodeInternal, 1, 1},
		{"NoMembers", steps(answers(201, "{}")), previewd.CodeInternal, 1, 1},
		{"MoreBehind", steps(answers(201, `{"projectId":"`+aProject+`"}{}`)), previewd.CodeInternal, 1, 1},
		{"WrongType", steps(created(set("projectId", 1))), previewd.CodeInternal, 1, 1},
		{"ProjectMissing", steps(created(set("projectId", ""))), previewd.CodeInternal, 1, 1},
		{"BuildMissing", steps(created(set("buildId", nil))), previewd.CodeInternal, 1, 1},
		{"NotCanonical", steps(created(set("projectId", strings.ToUpper(aProject)))), previewd.CodeInternal, 1, 1},
		{"OneIDForBoth", steps(created(set("buildId", aProject))), previewd.CodeInternal, 1, 1},
		{"StatusMissing", steps(created(set("status", ""))), previewd.CodeInternal, 1, 1},
		{"OtherUser", steps(created(set("userId", "bob"))), previewd.CodeInternal, 1, 1},
		{"IDOfAClient", steps(created(set("idGenerationSource", "client"))), previewd.CodeInternal, 1, 1},
		{"Scripted", steps(created(set("projectId", `"><script>`))), previewd.CodeInternal, 1, 1},
	}
}

func TestCreatingFromAMisbehavingWorker(t *testing.T) {
	t.Parallel()
	var strayed atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
	t.Cleanup(elsewhere.Close)
	t.Cleanup(func() { require.Zero(t, strayed.Load(), "redirects are not followed") })
	for _, c := range creatingFaults(elsewhere.URL) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			worker := &script{steps: c.steps}
			server := httptest.NewServer(worker)
			t.Cleanup(server.Close)
			far, err := workerapi.NewClient(workerapi.ClientConfig{
				URL: server.URL, Token: token, Jitter: noJitter,
				Transport: &http.Transport{DisableKeepAlives: true}, // on a connection that was kept net/http itself tries again
			})
			require.NoError(t, err)
			preview, err := far.CreatePreview(t.Context(), request())
			require.Equal(t, c.code, previewd.ErrorCode(err), "%v", err)
			seen := worker.seen()
			require.Len(t, seen, c.tries)
			for _, r := range seen {
				require.NotEmpty(t, r.Header.Get("Idempotency-Key"))
				require.Equal(t, seen[0].Header.Get("Idempotency-Key"), r.Header.Get("Idempotency-Key"), "one key for all tries")
				require.Equal(t, "req_contract", r.Header.Get("X-Request-Id"))
			}
			require.EqualValues(t, c.tries, far.Counts().Tries.Load())
			require.EqualValues(t, c.tries-1, far.Counts().Retries.Load())
			require.Equal(t, c.bad, far.Counts().BadAnswers.Load())
			if c.code == "" {
				require.Equal(t, aProject, preview.ProjectID)
				return
			}
			require.Nil(t, preview)
			var e *previewd.Error
			require.ErrorAs(t, err, &e)
			require.NotContains(t, e.Message, server.URL, "users are not told where the worker is")
		})
	}
}

func eventOf(change ...func(object)) object {
	e := object{"id": "1", "cursor": "1-1", "seq": 1, "type": "build.queued", "projectId": aProject, "buildId": aBuild, "at": "2026-01-02T03:04:05Z"}
	for _, c := range change {
		c(e)
	}
	return object{"events": []any{e}, "next": "1-1"}
}

func projectOf(change ...func(object)) object {
	p := object{"id": aProject, "userId": "ann", "status": "queued", "createdAt": "2026-01-02T03:04:05Z", "latestBuild": buildOf()}
	for _, c := range change {
		c(p)
	}
	return p
}

func versionOf(number int) object {
	return object{"id": other, "projectId": aProject, "number": number, "buildId": aBuild, "manifestDigest": "sha256:x"}
}

func askBuild(ctx context.Context, w previewd.Worker) error {
	_, err := w.FindBuild(ctx, aBuild, 0)
	return err
}

func askNext(ctx context.Context, w previewd.Worker) error {
	_, err := w.CreateBuild(ctx, nextOf(&previewd.Preview{ProjectID: aProject}))
	return err
}

func askProject(ctx context.Context, w previewd.Worker) error {
	_, err := w.FindProject(ctx, aProject)
	return err
}

func askProjects(ctx context.Context, w previewd.Worker) error {
	_, err := w.ListProjects(ctx, previewd.ProjectFilter{UserID: "ann"})
	return err
}

func askEvents(ctx context.Context, w previewd.Worker) error {
	_, err := w.ListEvents(ctx, previewd.EventFilter{})
	return err
}

func askActivate(ctx context.Context, w previewd.Worker) error {
	_, err := w.ActivateVersion(ctx, previewd.ActivateVersionRequest{ProjectID: aProject, Number: 1})
	return err
}

func askOperation(ctx context.Context, w previewd.Worker) error {
	_, err := w.FindOperation(ctx, caller, "key-0123456789abcdef")
	return err
}

func askDelete(ctx context.Context, w previewd.Worker) error {
	return w.DeleteProject(ctx, previewd.DeleteProjectRequest{ProjectID: aProject})
}

func askEnv(ctx context.Context, w previewd.Worker) error {
	_, err := w.ListEnv(ctx, aProject)
	return err
}

func askSetEnv(ctx context.Context, w previewd.Worker) error {
	_, err := w.SetEnv(ctx, previewd.SetEnvRequest{ProjectID: aProject, Name: "A", Secret: true})
	return err
}

func askLog(ctx context.Context, w previewd.Worker) error {
	_, err := w.ReadLog(ctx, aBuild, 0, 10)
	return err
}

var readingCases = []struct {
	name string
	ask  func(context.Context, previewd.Worker) error
	body any
	good bool
}{
	{"Build", askBuild, buildOf(), true},
	{"BuildOfUnknownStatus", askBuild, buildOf(set("status", "hibernating")), true},
	{"OtherBuild", askBuild, buildOf(set("id", other)), false},
	{"BuildWithoutProject", askBuild, buildOf(set("projectId", "")), false},
	{"BuildWithoutSeq", askBuild, buildOf(set("seq", 0)), false},
	{"BuildWithoutStatus", askBuild, buildOf(set("status", "")), false},
	{"BuildSupersededByNothing", askBuild, buildOf(set("supersededBy", "x")), false},
	{"NextBuild", askNext, buildOf(), true},
	{"NextBuildOfAnother", askNext, buildOf(set("projectId", other)), false},
	{"Project", askProject, projectOf(), true},
	{"ProjectOfUnknownStatus", askProject, projectOf(set("status", "hibernating")), true},
	{"OtherProject", askProject, projectOf(set("id", other)), false},
	{"ProjectOfNobody", askProject, projectOf(set("userId", "")), false},
	{"ProjectWithAnothersBuild", askProject, projectOf(set("latestBuild", buildOf(set("projectId", other)))), false},
	{"Projects", askProjects, object{"projects": []any{projectOf()}}, true},
	{"ProjectsOfAnother", askProjects, object{"projects": []any{projectOf(set("userId", "bob"))}}, false},
	{"Events", askEvents, eventOf(), true},
	{"EventOfUnknownType", askEvents, eventOf(set("type", "build.hibernated")), true},
	{"EventWithoutProject", askEvents, eventOf(set("projectId", nil)), true},
	{"EventWithoutSeq", askEvents, eventOf(set("seq", 0)), true},
	{"EventWithoutType", askEvents, eventOf(set("type", "")), true},
	{"EventOfNoBuild", askEvents, eventOf(set("buildId", "x")), true},
	{"EventWithoutCursor", askEvents, eventOf(set("cursor", "")), false},
	{"EventsWithoutNext", askEvents, object{"events": []any{}}, false},
	{"MoreEventsThanAsked", askEvents, object{"events": make([]any, 101), "next": "1-1"}, false},
	{"Version", askActivate, versionOf(1), true},
	{"OtherVersion", askActivate, versionOf(2), false},
	{"OtherKey", askOperation, object{"idempotencyKey": "another", "operation": "x", "status": 201}, false},
	{"DeletedWithAPage", askDelete, "<html>", false},
	{"LogAsJSON", askLog, object{}, false},
	{"Env", askEnv, object{"variables": []any{object{"name": "A", "value": "a", "secret": false, "scopes": []string{"build"}}, object{"name": "B", "secret": true}}}, true},
	{"EnvThatTellsASecret", askEnv, object{"variables": []any{object{"name": "B", "value": "hunter2", "secret": true}}}, false},
	{"EnvWithoutAName", askEnv, object{"variables": []any{object{"secret": true}}}, false},
	{"Variable", askSetEnv, object{"name": "A", "secret": true}, true},
	{"OtherVariable", askSetEnv, object{"name": "B", "secret": true}, false},
}

func TestReadingFromAMisbehavingWorker(t *testing.T) {
	t.Parallel()
	for _, c := range readingCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(&script{steps: steps(answers(200, c.body))})
			t.Cleanup(server.Close)
			far, err := workerapi.NewClient(workerapi.ClientConfig{URL: server.URL, Token: token, Jitter: noJitter})
			require.NoError(t, err)
			err = c.ask(t.Context(), far)
			if c.good {
				require.NoError(t, err)
				return
			}
			require.Equal(t, previewd.CodeInternal, previewd.ErrorCode(err), "%v", err)
			require.EqualValues(t, 1, far.Counts().BadAnswers.Load())
			require.EqualValues(t, 1, far.Counts().Tries.Load(), "it would be the same again")
		})
	}
	t.Run("TooMuchLog", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(answers(200, strings.Repeat("x", 11), "Content-Type", "text/plain; charset=utf-8"))
		t.Cleanup(server.Close)
		far, err := workerapi.NewClient(workerapi.ClientConfig{URL: server.URL})
		require.NoError(t, err)
		require.Equal(t, previewd.CodeInternal, previewd.ErrorCode(askLog(t.Context(), far)))
	})
}

func TestCreatingNeedsAKey(t *testing.T) {
	t.Parallel()
	far, err := workerapi.NewClient(workerapi.ClientConfig{URL: "http://127.0.0.1:1"})
	require.NoError(t, err)
	req := request()
	req.IdempotencyKey = ""
	_, err = far.CreatePreview(t.Context(), req)
	require.Equal(t, previewd.CodeKeyMissing, previewd.ErrorCode(err))
	_, err = far.CreateBuild(t.Context(), previewd.CreateBuildRequest{ProjectID: aProject})
	require.Equal(t, previewd.CodeKeyMissing, previewd.ErrorCode(err))
	require.Zero(t, far.Counts().Tries.Load())
	_, err = workerapi.NewClient(workerapi.ClientConfig{URL: "worker"})
	require.Error(t, err)
}

// What cannot be written is nobody's fault but ours.
func TestWhatCannotBeAsked(t *testing.T) {
	t.Parallel()
	far, err := workerapi.NewClient(workerapi.ClientConfig{URL: "http://127.0.0.1:1"})
	require.NoError(t, err)
	req := request()
	req.Metadata = object{"x": make(chan int)}
	_, err = far.CreatePreview(t.Context(), req)
	require.Equal(t, previewd.CodeInternal, previewd.ErrorCode(err))
	require.Zero(t, far.Counts().Tries.Load())
}

package app_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/client"
	"github.com/previewd/previewd/internal/app"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/testkit"
)

func TestMain(m *testing.M) { testkit.MainWithChild(m) }

// server is a whole server and ways to call it.
type server struct {
	*testkit.App
	t    *testing.T
	http *http.Client
}

func start(t *testing.T) *server {
	t.Helper()
	return startWith(t, config.Config{})
}

func startWith(t *testing.T, cfg config.Config) *server {
	t.Helper()
	return &server{App: testkit.StartApp(t, cfg), t: t, http: &http.Client{Transport: client.NewTransport()}}
}

func (s *server) client() *client.Client {
	s.t.Helper()
	c, err := client.New(client.Config{URL: s.Config.BaseURL, Token: s.Token, Retries: -1})
	require.NoError(s.t, err)
	return c
}

// call sends a request as it is and returns status, headers and body.
func (s *server) call(method, path, body string, header ...string) (int, http.Header, string) {
	s.t.Helper()
	url := path
	if strings.HasPrefix(path, "/") {
		url = s.Config.BaseURL + path
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
	require.NoError(s.t, err)
	req.Header.Set("Authorization", "Bearer "+s.Token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	response, err := s.http.Do(req)
	require.NoError(s.t, err)
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	return response.StatusCode, response.Header, string(raw)
}

const create = "/v1/create-preview-for-new-project"

func (s *server) create(body string, header ...string) previewd.Preview {
	s.t.Helper()
	status, _, text := s.call(http.MethodPost, create, body, header...)
	require.Equal(s.t, http.StatusCreated, status, text)
	var p previewd.Preview
	require.NoError(s.t, json.Unmarshal([]byte(text), &p))
	return p
}

// wait waits for a build's end.
func (s *server) wait(buildID string) {
	s.t.Helper()
	for {
		b, err := s.client().FindBuild(s.t.Context(), buildID, 10*time.Second)
		require.NoError(s.t, err)
		if b.Status.Terminal() {
			return
		}
	}
}

// The main job as a user sees it: create, follow, look.
func TestMainJobForEveryTemplate(t *testing.T) {
	t.Parallel()
	s := start(t)
	titles := map[string]string{"landing": "Neap", "app": "Longwave", "site": "Ostler Yard"}
	templates, err := s.client().ListTemplates(t.Context())
	require.NoError(t, err)
	require.Len(t, templates, len(titles))
	for _, template := range templates {
		p := s.create(fmt.Sprintf(`{"userId":"u","prompt":"hello there","templateFiles":{},"metadata":{"template":%q}}`, template.Name))
		require.True(t, previewd.IsID(p.ProjectID))
		var types []previewd.EventType
		err := s.client().WatchBuild(t.Context(), p.BuildID, client.Watch{Event: func(e previewd.Event) error {
			types = append(types, e.Type)
			return nil
		}})
		require.NoError(t, err)
		require.Equal(t, previewd.EventProjectCreated, types[0])
		require.Contains(t, types, previewd.EventBuildCompleted)
		require.Equal(t, previewd.EventVersionActivated, types[len(types)-1])

		status, header, page := s.call(http.MethodGet, p.PreviewURL, "")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, p.BuildID, header.Get("X-Build-Id"))
		require.Contains(t, page, titles[template.Name])
		log, err := s.client().ReadLog(t.Context(), p.BuildID, 0, 0)
		require.NoError(t, err)
		require.True(t, log.Complete)
		require.Contains(t, string(log.Data), "published")
	}
	_, _, lost := s.call(http.MethodGet, s.projectOf("site").PreviewURL+"no/such/page", "")
	require.Contains(t, lost, "This room was never built.")
}

func (s *server) projectOf(template string) previewd.Project {
	s.t.Helper()
	page, err := s.client().ListProjects(s.t.Context(), previewd.ProjectFilter{})
	require.NoError(s.t, err)
	for _, p := range page.Projects {
		if p.LatestBuild.Template == template {
			return p
		}
	}
	s.t.Fatalf("no project of template %s", template)
	return previewd.Project{}
}

func TestErrorsAreProblems(t *testing.T) {
	t.Parallel()
	s := start(t)
	id := previewd.NewID()
	for name, c := range map[string]struct {
		method, path, body string
		header             []string
		status             int
		code               string
		details            string
	}{
		"NoToken":        {"GET", "/v1/projects", "", []string{"Authorization", ""}, 401, "unauthorized", ""},
		"WrongToken":     {"GET", "/v1/projects", "", []string{"Authorization", "Bearer nope"}, 401, "unauthorized", ""},
		"NoRoute":        {"GET", "/v1/nothing", "", nil, 404, "not_found", ""},
		"WrongMethod":    {"DELETE", "/v1/templates", "", nil, 405, "method_not_allowed", ""},
		"NoProject":      {"GET", "/v1/projects/" + id, "", nil, 404, "not_found", id},
		"BadID":          {"GET", "/v1/projects/x", "", nil, 404, "not_found", "x"},
		"NoBuild":        {"GET", "/v1/builds/" + id, "", nil, 404, "not_found", id},
		"NoBuildEvents":  {"GET", "/v1/builds/" + id + "/events", "", nil, 404, "not_found", id},
		"NoBuildLog":     {"GET", "/v1/builds/" + id + "/log", "", nil, 404, "not_found", id},
		"EmptySegment":   {"GET", "/v1//projects", "", nil, 404, "not_found", ""},
		"Dots":           {"GET", "/v1/builds/../projects", "", nil, 404, "not_found", ""},
		"NULInFilter":    {"GET", "/v1/projects?userId=%00", "", nil, 400, "invalid_request", "userId"},
		"NoUTF8InFilter": {"GET", "/v1/projects?userId=%ff", "", nil, 400, "invalid_request", "userId"},
		"OddAccept":      {"GET", "/v1/projects/x", "", []string{"Accept", ";;;,,,"}, 404, "not_found", "x"},
		"BadWait":        {"GET", "/v1/builds/" + id + "?wait=soon", "", nil, 400, "invalid_request", "wait"},
		"BadCursor":      {"GET", "/v1/projects?cursor=x", "", nil, 400, "invalid_request", "x"},
		"BadLimit":       {"GET", "/v1/projects?limit=1000", "", nil, 400, "invalid_request", "limit"},
		"NoJSON":         {"POST", create, "hello", nil, 400, "invalid_request", "body"},
		"Empty":          {"POST", create, "{}", nil, 400, "invalid_request", "userId"},
		"WrongType":      {"POST", create, `{"userId":1}`, nil, 400, "invalid_request", "body.userId"},
		"UnknownField":   {"POST", create, `{"userId":"u","ownerId":"x"}`, nil, 400, "invalid_request", "ownerId"},
		"DuplicateName":  {"POST", create, `{"userId":"u","templateFiles":{"a.txt":"1","a.txt":"2"}}`, nil, 400, "invalid_request", "a.txt"},
		"InvalidUTF8":    {"POST", create, "{\"userId\":\"\xff\"}", nil, 400, "invalid_request", "UTF-8"},
		"LoneSurrogate":  {"POST", create, `{"userId":"u","prompt":"\ud800"}`, nil, 400, "invalid_request", ""},
		"NUL":            {"POST", create, `{"userId":"u","prompt":"a\u0000b","templateFiles":{"index.html":"x"}}`, nil, 400, "invalid_request", "prompt"},
		"DeepJSON":       {"POST", create, `{"userId":"u","metadata":{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}}`, nil, 400, "invalid_request", ""},
		"BadPath":        {"POST", create, `{"userId":"u","templateFiles":{"../x":"y"}}`, nil, 400, "invalid_path", `"../x"`},
		"BadValue":       {"POST", create, `{"userId":"u","templateFiles":{"src/a.ts":12}}`, nil, 400, "invalid_request", "src/a.ts"},
		"NothingToBuild": {"POST", create, `{"userId":"u","templateFiles":{}}`, nil, 400, "invalid_request", "landing"},
		"ClientID":       {"POST", create, `{"userId":"u","projectId":"` + id + `","templateFiles":{"a":"b"}}`, nil, 400, "client_id_not_allowed", ""},
		"BadKey":         {"POST", create, `{"userId":"u","templateFiles":{"a":"b"}}`, []string{"Idempotency-Key", "short"}, 400, "idempotency_key_invalid", ""},
		"LongPrompt":     {"POST", create, `{"userId":"u","prompt":"` + strings.Repeat("x", 33<<10) + `","templateFiles":{"a":"b"}}`, nil, 413, "too_large", "prompt"},
		"WrongMediaType": {"POST", create, `userId=u`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "invalid_request", ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, header, text := s.call(c.method, c.path, c.body, c.header...)
			require.Equal(t, c.status, status, text)
			require.Equal(t, "application/problem+json", header.Get("Content-Type"))
			require.NotEmpty(t, header.Get("X-Request-Id"))
			var p map[string]any
			require.NoError(t, json.Unmarshal([]byte(text), &p))
			require.Equal(t, c.code, p["code"], text)
			require.Regexp(t, `^ref_[0-9a-z]{16}$`, p["referenceId"])
			require.Equal(t, p["detail"], p["error"], "the seed's word for it")
			require.NotEmpty(t, p["timestamp"])
			require.NotEmpty(t, p["title"])
			require.InDelta(t, c.status, p["status"], 0)
			require.Contains(t, text, strings.Trim(jsonText(c.details), `"`))
		})
	}
	page, err := s.client().ListProjects(t.Context(), previewd.ProjectFilter{})
	require.NoError(t, err)
	require.Empty(t, page.Projects, "what was refused is not there")
}

func jsonText(s string) string {
	raw, _ := json.Marshal(s)
	return string(raw)
}

func TestCreateReplaysAKey(t *testing.T) {
	t.Parallel()
	s := start(t)
	const body = `{"userId":"u","prompt":"p","templateFiles":{"index.html":"hi","data.json":{"a":[1]}}}`
	key := []string{"Idempotency-Key", `"0123456789abcdef-A"`}
	first := s.create(body, key...)
	status, header, text := s.call(http.MethodPost, create, body, "Idempotency-Key", "0123456789abcdef-A")
	require.Equal(t, http.StatusCreated, status)
	require.Equal(t, "true", header.Get("Idempotent-Replayed"))
	require.Contains(t, text, first.ProjectID)
	status, _, text = s.call(http.MethodPost, create, strings.Replace(body, `"p"`, `"q"`, 1), key...)
	require.Equal(t, http.StatusUnprocessableEntity, status)
	require.Contains(t, text, "idempotency_key_reused")
	s.wait(first.BuildID)
}

func TestRequestIDIsHonoured(t *testing.T) {
	t.Parallel()
	s := start(t)
	_, header, _ := s.call(http.MethodGet, "/v1/templates", "", "X-Request-Id", "mine-1")
	require.Equal(t, "mine-1", header.Get("X-Request-Id"))
	_, header, _ = s.call(http.MethodGet, "/v1/templates", "", "X-Request-Id", "not\tharmless")
	require.Regexp(t, "^req_", header.Get("X-Request-Id"))
}

func TestHostsAreKeptApart(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.create(`{"userId":"u","templateFiles":{"index.html":"site","v1/projects":"mine"}}`)
	s.wait(p.BuildID)
	_, _, text := s.call(http.MethodGet, p.PreviewURL+"v1/projects", "")
	require.Equal(t, "mine", text, "no API under a preview's host")
	status, _, text := s.call(http.MethodGet, p.PreviewURL+"openapi.json", "")
	require.Equal(t, http.StatusNotFound, status, text)
	status, _, _ = s.call(http.MethodGet, "/healthz", "")
	require.Equal(t, http.StatusOK, status)
	status, _, text = s.call(http.MethodGet, "/readyz", "")
	require.Equal(t, "ready\n", text)
	require.Equal(t, http.StatusOK, status)
}

// A stream that breaks anywhere is taken up again without a gap or a repeat.
func TestEventsResume(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.create(`{"userId":"u","metadata":{"template":"app"}}`)
	s.wait(p.BuildID)
	ids := func(query string, header ...string) (list []string) {
		_, h, text := s.call(http.MethodGet, "/v1/builds/"+p.BuildID+"/events"+query, "", header...)
		require.Equal(t, "text/event-stream", h.Get("Content-Type"))
		require.Equal(t, "no", h.Get("X-Accel-Buffering"))
		lines := bufio.NewScanner(strings.NewReader(text))
		for lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				list = append(list, id)
			}
		}
		return list
	}
	all := ids("?after=0")
	require.GreaterOrEqual(t, len(all), 7)
	for cut := range len(all) - 1 {
		require.Equal(t, all[cut+1:], ids("?after="+all[cut]))
		require.Equal(t, all[cut+1:], ids("?after=1", "Last-Event-ID", all[cut]), "the header goes before")
	}
	status, _, _ := s.call(http.MethodGet, "/v1/builds/"+p.BuildID+"/events?after="+all[len(all)-1], "")
	require.Equal(t, http.StatusNoContent, status)
	for _, cursor := range []string{"999", "1-999", "2-1"} {
		_, _, reset := s.call(http.MethodGet, "/v1/builds/"+p.BuildID+"/events?after="+cursor, "")
		require.Regexp(t, `(?s)^retry: \d{4}\n\nevent: reset\ndata: .*\n\nid: `+all[len(all)-1]+`\nevent: snapshot\ndata: .*\n\nevent: end\n`, reset,
			"a cursor of another log is not believed")
	}
	for _, cursor := range []string{"x", "-1", "1-", "-", "1-2-3", "0-1", "1-+1"} {
		status, _, text := s.call(http.MethodGet, "/v1/builds/"+p.BuildID+"/events?after="+url.QueryEscape(cursor), "")
		require.Equal(t, http.StatusBadRequest, status, text)
	}

	var log bytes.Buffer
	err := s.client().WatchBuild(t.Context(), p.BuildID, client.Watch{
		Event: func(previewd.Event) error { return nil },
		Log:   func(_ int64, text string) error { _, err := log.WriteString(text); return err },
	})
	require.NoError(t, err)
	chunk, err := s.client().ReadLog(t.Context(), p.BuildID, 0, 0)
	require.NoError(t, err)
	require.Equal(t, string(chunk.Data), log.String(), "the stream's log is the log")
	tail, err := s.client().ReadLog(t.Context(), p.BuildID, 10, 0)
	require.NoError(t, err)
	require.Equal(t, string(chunk.Data[10:]), string(tail.Data))
}

// The service and its client keep one contract.
func TestWorkerContract(t *testing.T) {
	t.Parallel()
	for name, worker := range map[string]func(*server) previewd.Worker{
		"service": func(s *server) previewd.Worker { return s.Worker },
		"client":  func(s *server) previewd.Worker { return s.client() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			contract(t, worker(s))
		})
	}
}

func contract(t *testing.T, w previewd.Worker) {
	ctx := t.Context()
	caller := previewd.Caller{Principal: "local", Service: "local"}
	finished := func(id string) *previewd.Build {
		for {
			b, err := w.FindBuild(ctx, id, 10*time.Second)
			require.NoError(t, err)
			if b.Status.Terminal() {
				return b
			}
		}
	}
	p, err := w.CreatePreview(ctx, previewd.CreatePreviewRequest{
		UserID: "u", Prompt: "Ünï", TemplateFiles: previewd.Files{"index.html": []byte("one"), "x.bin": {0xff, 0}}, Caller: caller,
	})
	require.NoError(t, err)
	require.Equal(t, previewd.IDSourceServer, p.IDGenerationSource)
	require.Equal(t, "local", p.CreatedByService)
	b := finished(p.BuildID)
	require.Equal(t, previewd.BuildCompleted, b.Status, "%+v", b.Failure)
	require.Equal(t, "Ünï", b.Prompt)
	require.Equal(t, int64(1), b.Version)
	integrity, err := w.CheckIntegrity(ctx)
	require.NoError(t, err)
	require.True(t, integrity.OK, "%v", previewd.Broken(integrity.Checks))
	require.Greater(t, len(integrity.Checks), 30)

	second, err := w.CreateBuild(ctx, previewd.CreateBuildRequest{ProjectID: p.ProjectID, TemplateFiles: previewd.Files{"index.html": []byte("two")}, Caller: caller})
	require.NoError(t, err)
	require.Equal(t, int64(2), second.Seq)
	finished(second.ID)
	broken, err := w.CreateBuild(ctx, previewd.CreateBuildRequest{ProjectID: p.ProjectID, TemplateFiles: previewd.Files{"a.txt": []byte("no page")}, Caller: caller})
	require.NoError(t, err)
	require.Equal(t, previewd.FailNoIndex, finished(broken.ID).Failure.Code)

	versions, err := w.ListVersions(ctx, p.ProjectID, previewd.Page{Limit: 1})
	require.NoError(t, err)
	require.Len(t, versions.Versions, 1)
	require.True(t, versions.Versions[0].Current)
	require.NotEmpty(t, versions.Next)
	v, err := w.ActivateVersion(ctx, previewd.ActivateVersionRequest{ProjectID: p.ProjectID, Number: 1, Caller: caller})
	require.NoError(t, err)
	require.True(t, v.Current)
	project, err := w.FindProject(ctx, p.ProjectID)
	require.NoError(t, err)
	require.Equal(t, "failed", project.Status, "the newest build's")
	require.Equal(t, int64(1), project.CurrentVersion)
	require.True(t, project.Pinned)
	page, err := w.ListProjects(ctx, previewd.ProjectFilter{UserID: "u"})
	require.NoError(t, err)
	require.Len(t, page.Projects, 1)
	log, err := w.ReadLog(ctx, p.BuildID, 0, 0)
	require.NoError(t, err)
	require.True(t, log.Complete)

	for range 2 {
		require.NoError(t, w.DeleteProject(ctx, previewd.DeleteProjectRequest{ProjectID: p.ProjectID, Caller: caller}))
	}
	_, err = w.FindBuild(ctx, p.BuildID, 0)
	require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
	err = w.DeleteProject(ctx, previewd.DeleteProjectRequest{ProjectID: previewd.NewID(), Caller: caller})
	require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
	_, err = w.FindProject(ctx, previewd.NewID())
	require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
	_, err = w.CreatePreview(ctx, previewd.CreatePreviewRequest{UserID: "u", TemplateFiles: previewd.Files{"../x": nil}, Caller: caller})
	require.Equal(t, previewd.CodeInvalidPath, previewd.ErrorCode(err))
	require.ErrorContains(t, err, `"../x"`)
}

func TestRollbackShowsTheOldFiles(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.create(`{"userId":"u","templateFiles":{"index.html":"one"}}`)
	s.wait(p.BuildID)
	_, _, text := s.call(http.MethodPost, "/v1/projects/"+p.ProjectID+"/builds", `{"templateFiles":{"index.html":"two"}}`,
		"Idempotency-Key", previewd.NewRequestID())
	var second previewd.Build
	require.NoError(t, json.Unmarshal([]byte(text), &second))
	s.wait(second.ID)
	_, _, page := s.call(http.MethodGet, p.PreviewURL, "")
	require.Equal(t, "two", page)
	status, _, text := s.call(http.MethodPost, "/v1/projects/"+p.ProjectID+"/versions/1/activate", "")
	require.Equal(t, http.StatusOK, status, text)
	_, _, page = s.call(http.MethodGet, p.PreviewURL, "")
	require.Equal(t, "one", page, "at once")
	_, _, page = s.call(http.MethodGet, second.PreviewURL, "")
	require.Equal(t, "two", page, "a build's own host stays")
}

func TestSecondServerIsKeptOut(t *testing.T) {
	t.Parallel()
	s := start(t)
	cfg := s.Config
	cfg.Addr = "127.0.0.1:0"
	_, err := app.New(context.Background(), app.Options{Config: cfg})
	require.ErrorContains(t, err, fmt.Sprintf("in use by another previewd (pid %d)", os.Getpid()))
}

func TestConfigurationErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]config.Config{
		"is not HOST:PORT":             {Addr: "8080", Data: t.TempDir()},
		"set PREVIEWD_SERVICE_TOKEN":   {Addr: "0.0.0.0:0", Data: t.TempDir()},
		"openssl rand":                 {Addr: "127.0.0.1:0", Data: t.TempDir(), ServiceToken: "short"},
		"name a folder":                {Addr: "127.0.0.1:0"},
		"share the registrable domain": {Addr: "127.0.0.1:0", Data: t.TempDir(), BaseURL: "https://api.example.com", PreviewDomain: "preview.example.com"},
		"needs --base-url":             {Addr: "127.0.0.1:0", Data: t.TempDir(), PreviewDomain: "preview.example.com"},
		"is not a URL":                 {Addr: "127.0.0.1:0", Data: t.TempDir(), BaseURL: "example.com"},
		"name another address":         {Addr: "192.0.2.1:80", Data: t.TempDir(), ServiceToken: "0123456789abcdef"},
	} {
		_, err := app.New(context.Background(), app.Options{Config: cfg})
		require.ErrorContains(t, err, want)
	}
	for _, pair := range [][2]string{
		{"https://API.Example.com", "preview.example.com"}, {"https://api.example.com.", "preview.example.com"},
		{"https://api.example.com", "preview.example.com."}, {"http://corp", "p.corp"}, {"http://corp", "corp"},
	} {
		cfg := config.Config{Addr: "127.0.0.1:0", Data: "x", BaseURL: pair[0], PreviewDomain: pair[1]}
		require.ErrorContains(t, cfg.Validate(), "registrable domain", pair)
	}
	ok := config.Config{Addr: "127.0.0.1:0", Data: "x", BaseURL: "https://api.example.com", PreviewDomain: "previews.example.net"}
	require.NoError(t, ok.Validate())
	ok.PreviewDomain, ok.AllowSharedDomain = "previews.example.com", true
	require.NoError(t, ok.Validate())
}

// A server that was killed while it started a child is survived by the child's
// first moment, which has its lock.
func TestStartOutwaitsADyingServer(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	cfg := config.Config{Addr: "127.0.0.1:0", Data: data}
	held := flock.New(cfg.LockPath())
	// The lock may be held for longer on a busy machine than a start waits. One that
	// does not wait fails each time.
	var a *app.App
	var err error
	for try := 0; a == nil && try < 5; try++ {
		require.NoError(t, held.Lock())
		time.AfterFunc(200*time.Millisecond, func() { _ = held.Unlock() })
		a, err = app.New(t.Context(), app.Options{Config: cfg, Version: "test"})
	}
	require.NoError(t, err)
	require.NoError(t, a.Close())
}

package app_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

const (
	ann = "6e2f9a34-77c1-4c66-9f0a-0d5b8f6a0001"
	bob = "6e2f9a34-77c1-4c66-9f0a-0d5b8f6a0002"
	eve = "6e2f9a34-77c1-4c66-9f0a-0d5b8f6a0003" // an operator
)

// front is a gateway whose users bring tokens of an issuer, and the worker behind
// it: in the same process, or in another with a database of its own.
type front struct {
	*server
	worker *server
	issuer *testkit.Issuer
	hooked atomic.Int64 // webhooks that have come in
	hookTo string
}

// eachLayout runs a test on each engine, near and far.
func eachLayout(t *testing.T, test func(t *testing.T, f *front)) {
	t.Helper()
	t.Parallel()
	for _, e := range testkit.Engines() {
		for _, far := range testkit.Layouts(e) {
			name := e.Name + "/Near"
			if far {
				name = e.Name + "/Far"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, startFront(t, e, far))
			})
		}
	}
}

// startNear is a front that is a worker too, on SQLite.
func startNear(t *testing.T) *front {
	t.Helper()
	return startFront(t, testkit.Engines()[0], false)
}

func startFront(t *testing.T, e testkit.Engine, far bool, change ...func(*config.Config)) *front {
	t.Helper()
	f := &front{issuer: testkit.NewIssuer(t)}
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { f.hooked.Add(1) }))
	t.Cleanup(receiver.Close)
	f.hookTo = receiver.URL
	at, err := url.Parse(receiver.URL)
	require.NoError(t, err)
	port, err := strconv.ParseUint(at.Port(), 10, 16)
	require.NoError(t, err)

	cfg := config.Config{DatabaseURL: e.Config(t).URL, SecretsKey: strings.Repeat("07", worker.SecretsKeySize)}
	for _, c := range change {
		c(&cfg)
	}
	if far {
		theirs := cfg
		theirs.Roles = []config.Role{config.RoleWorker, config.RoleRunner, config.RolePreview}
		f.worker = startWith(t, theirs)
		cfg.Roles = []config.Role{config.RoleGateway}
		cfg.DatabaseURL, cfg.GatewayDatabaseURL = "", e.Config(t).URL
		cfg.WorkerURL, cfg.WorkerToken = f.worker.Config.BaseURL, f.worker.Token
	}
	cfg.JWTProvider, cfg.JWKSURL, cfg.JWTIssuer, cfg.OperatorRole = "supabase", f.issuer.JWKSURL, f.issuer.URL, "app_metadata.role=operator"
	cfg.WebhookAllow, cfg.WebhookPorts = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []uint16{uint16(port)}
	f.server = startWith(t, cfg)
	if f.worker == nil {
		f.worker = f.server
	}
	return f
}

// token is a user's; eve's makes her an operator.
func (f *front) token(user string, change ...func(map[string]any)) string {
	if user == eve {
		change = append(change, func(claims map[string]any) { claims["app_metadata"] = map[string]any{"role": "operator"} })
	}
	return f.issuer.Token(user, change...)
}

// reply is an answer; of a stream only the first frames.
type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends a request with a token, or without one when it is "".
func (f *front) ask(token, method, path, body string, header ...string) reply {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.Config.BaseURL+path, strings.NewReader(body))
	require.NoError(f.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	response, err := f.http.Do(req)
	require.NoError(f.t, err)
	defer response.Body.Close()
	if response.Header.Get("Content-Type") == "text/event-stream" {
		lines, text := bufio.NewReader(response.Body), ""
		for !strings.Contains(text, "data: ") {
			line, err := lines.ReadString('\n')
			if text += line; err != nil {
				break
			}
		}
		return reply{response.StatusCode, response.Header, text}
	}
	raw, err := io.ReadAll(response.Body)
	require.NoError(f.t, err)
	return reply{response.StatusCode, response.Header, string(raw)}
}

// get reads an answer that must be a success.
func (f *front) get(token, path string, v any) {
	f.t.Helper()
	r := f.ask(token, http.MethodGet, path, "")
	require.Equal(f.t, http.StatusOK, r.status, r.body)
	require.NoError(f.t, json.Unmarshal([]byte(r.body), v))
}

const aPage = `{"prompt":"a page about tea","templateFiles":{"index.html":"<h1>hi</h1>"}}`

// make has a user make a project.
func (f *front) make(token string) *previewd.AppCreation {
	f.t.Helper()
	r := f.ask(token, http.MethodPost, "/api/projects", aPage, "Idempotency-Key", previewd.NewRequestID())
	require.Equal(f.t, http.StatusCreated, r.status, r.body)
	made := new(previewd.AppCreation)
	require.NoError(f.t, json.Unmarshal([]byte(r.body), made))
	return made
}

// deployed waits for the end of a project's newest build.
func (f *front) deployed(token, projectID string) {
	f.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		p := new(previewd.AppProject)
		f.get(token, "/api/projects/"+projectID, p)
		if p.Status == previewd.ProjectDeployed && p.CurrentVersion > 0 {
			return
		}
		require.True(f.t, time.Now().Before(deadline), "it is %s", p.Status)
		f.ask(token, http.MethodGet, "/api/builds/"+p.Build.ID+"?wait=1s", "")
	}
}

// apiRoutes are the routes of the gateway's description: method, path, operation.
func (f *front) apiRoutes() map[string]apiOperation {
	f.t.Helper()
	r := f.ask("", http.MethodGet, "/api/openapi.json", "")
	require.Equal(f.t, http.StatusOK, r.status)
	var doc apiDoc
	require.NoError(f.t, json.Unmarshal([]byte(r.body), &doc))
	routes := map[string]apiOperation{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			op.method, op.path = strings.ToUpper(method), path
			routes[op.OperationID] = op
		}
	}
	require.Greater(f.t, len(routes), 40)
	return routes
}

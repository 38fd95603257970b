package gateway_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
	"github.com/previewd/previewd/internal/workerapi"
)

var quiet = slog.New(slog.DiscardHandler)

// fixture is a gateway and its worker on real databases. Runners are played by
// the test; nothing runs in the background unless the test says so.
type fixture struct {
	*gateway.Service
	t      testing.TB
	worker *worker.Service
	faults *faultyWorker
	theirs *store.DB // the worker's database
	relay  *event.Relay
	cfg    gateway.Config
}

const (
	ann = "6e2f9a34-77c1-4c66-9f0a-0d5b8f6a0001"
	bob = "6e2f9a34-77c1-4c66-9f0a-0d5b8f6a0002"
)

// each runs a test on each engine, with the worker in the same process and
// database, and with one behind HTTP that has a database of its own.
func each(t *testing.T, test func(t *testing.T, f *fixture), change ...func(*gateway.Config)) {
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
				test(t, setup(t, e, far, change...))
			})
		}
	}
}

func setup(t testing.TB, e testkit.Engine, far bool, change ...func(*gateway.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, theirs: testkit.Open(t, e.Config(t))}
	ours := f.theirs
	if far {
		ours = testkit.Open(t, e.Config(t))
	}
	hub := &event.Hub{}
	f.relay = &event.Relay{Feed: f.theirs, Hub: hub, Holder: "relay", Wake: worker.EventTopic, Grown: worker.FeedTopic}
	artifacts, err := artifact.NewFolder(t.TempDir())
	require.NoError(t, err)
	f.worker, err = worker.New(worker.Config{
		Store: f.theirs, Artifacts: artifacts, Changes: hub, Log: quiet, Retry: func(int) time.Duration { return 0 },
		PreviewURL: func(label string) string { return "http://" + label + ".preview.test/" },
	})
	require.NoError(t, err)
	f.faults = &faultyWorker{Worker: f.worker.For("gateway")}
	if far {
		f.faults.Worker = behindHTTP(t, f.worker)
	}
	f.cfg = gateway.Config{
		Store: ours, Worker: f.faults, Changes: hub, Log: quiet, Holder: "gateway-1", Patience: 20 * time.Second,
		Backoff: func(int) time.Duration { return 0 },
	}
	for _, c := range change {
		c(&f.cfg)
	}
	f.Service = gateway.New(f.cfg)
	runPart(t, f.relay.Run)
	return f
}

// behindHTTP returns the client of a real HTTP server of the worker.
func behindHTTP(t testing.TB, w *worker.Service) previewd.Worker {
	t.Helper()
	mux := http.NewServeMux()
	workerapi.Register(mux, workerapi.Config{
		Worker: w, Callers: httpx.Tokens{{Secret: "test-token-0123456789", Caller: previewd.Caller{Principal: "gateway", Service: "gateway"}}},
	})
	server := httptest.NewServer(httpx.WithRequest(quiet, mux))
	t.Cleanup(server.Close)
	client, err := workerapi.NewClient(workerapi.ClientConfig{URL: server.URL, Token: "test-token-0123456789"})
	require.NoError(t, err)
	return client
}

// runPart runs a part of the server until the test ends.
func runPart(t testing.TB, run func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})
}

// another returns a second gateway on the same databases.
func (f *fixture) another(change ...func(*gateway.Config)) *gateway.Service {
	cfg := f.cfg
	cfg.Holder = "gateway-2"
	for _, c := range change {
		c(&cfg)
	}
	return gateway.New(cfg)
}

func as(user string, key ...string) gateway.Request {
	req := gateway.Request{User: previewd.User{ID: user}, RequestID: "req_test"}
	if len(key) > 0 {
		req.IdempotencyKey = key[0]
	}
	return req
}

func page(change ...func(*gateway.CreateProject)) gateway.CreateProject {
	want := gateway.CreateProject{Prompt: "a page about tea", TemplateFiles: previewd.Files{"index.html": []byte("<h1>hi</h1>")}}
	for _, c := range change {
		c(&want)
	}
	return want
}

// create makes a project of the user's, which is nobody else's request.
func (f *fixture) create(user string) *previewd.AppCreation {
	f.t.Helper()
	made, err := f.CreateProject(f.t.Context(), as(user, previewd.NewRequestID()), page())
	require.NoError(f.t, err)
	require.NotNil(f.t, made.Project)
	return made
}

// placed waits until the relay has given every event its place.
func (f *fixture) placed() {
	f.t.Helper()
	testkit.Eventually(f.t, "every event has its place", func() bool {
		waiting, err := f.theirs.CountUnfed(f.t.Context(), time.Now().Add(time.Hour))
		require.NoError(f.t, err)
		return waiting == 0
	})
}

// follow applies all events that there are.
func (f *fixture) follow() {
	f.t.Helper()
	f.placed()
	for {
		before, err := f.Store.FindAppFeed(f.t.Context())
		require.NoError(f.t, err)
		require.NoError(f.t, f.FollowOnce(f.t.Context(), 0))
		after, err := f.Store.FindAppFeed(f.t.Context())
		require.NoError(f.t, err)
		if before.Cursor == after.Cursor {
			break
		}
	}
	require.NoError(f.t, f.ApplyParked(f.t.Context()))
}

func (f *fixture) claim() *previewd.Claim {
	f.t.Helper()
	c, err := f.worker.ClaimBuild(f.t.Context(), "runner-1", 0)
	require.NoError(f.t, err)
	require.NotNil(f.t, c, "a build is there to claim")
	return c
}

// build runs the next build to the end that the test wants.
func (f *fixture) build(out previewd.Outcome) {
	f.t.Helper()
	c := f.claim()
	if out.Kind == previewd.OutcomeCompleted {
		out.Manifest = f.manifest()
	}
	_, err := f.worker.FinishBuild(f.t.Context(), c.Lease, out)
	require.NoError(f.t, err)
}

func (f *fixture) manifest() previewd.Digest {
	f.t.Helper()
	blob, err := f.worker.Artifacts.Put(context.Background(), bytes.NewReader([]byte("<h1>built</h1>")))
	require.NoError(f.t, err)
	digest, err := artifact.PutManifest(context.Background(), f.worker.Artifacts, previewd.Manifest{
		Files: []previewd.ManifestFile{{Path: "index.html", Blob: blob}},
	})
	require.NoError(f.t, err)
	return digest
}

func (f *fixture) project(user, id string) *previewd.AppProject {
	f.t.Helper()
	p, err := f.FindProject(f.t.Context(), user, id)
	require.NoError(f.t, err)
	return p
}

// inWorker counts the projects that the worker has made.
func (f *fixture) inWorker() int {
	f.t.Helper()
	found, err := f.worker.ListProjects(f.t.Context(), previewd.ProjectFilter{Page: previewd.Page{Limit: 200}})
	require.NoError(f.t, err)
	return len(found.Projects)
}

// faultyWorker is the real worker, to which the way can be broken.
type faultyWorker struct {
	previewd.Worker
	mu     sync.Mutex
	before func() error // of a create: the request is lost
	after  func() error // of a create: the answer is lost
	list   func() error // of a look at the feed
	listed int
	events func(*previewd.EventPage)
	asked  int
}

func (w *faultyWorker) set(change func(w *faultyWorker)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

func (w *faultyWorker) hooks() (before, after func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	before, after = w.before, w.after
	if before == nil {
		before = func() error { return nil }
	}
	if after == nil {
		after = func() error { return nil }
	}
	return before, after
}

var errAway = &previewd.Error{Code: previewd.CodeUnavailable, Message: "The worker is away."}

func away() error { return errAway }

func (w *faultyWorker) CreatePreview(ctx context.Context, req previewd.CreatePreviewRequest) (*previewd.Preview, error) {
	before, after := w.hooks()
	if err := before(); err != nil {
		return nil, err
	}
	p, err := w.Worker.CreatePreview(ctx, req)
	if lost := after(); lost != nil {
		return nil, lost
	}
	return p, err
}

func (w *faultyWorker) CreateBuild(ctx context.Context, req previewd.CreateBuildRequest) (*previewd.Build, error) {
	before, after := w.hooks()
	if err := before(); err != nil {
		return nil, err
	}
	b, err := w.Worker.CreateBuild(ctx, req)
	if lost := after(); lost != nil {
		return nil, lost
	}
	return b, err
}

func (w *faultyWorker) ListEvents(ctx context.Context, filter previewd.EventFilter) (*previewd.EventPage, error) {
	w.mu.Lock()
	w.listed++
	list := w.list
	w.mu.Unlock()
	if list != nil {
		if err := list(); err != nil {
			return nil, err
		}
	}
	found, err := w.Worker.ListEvents(ctx, filter)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && w.events != nil {
		w.events(found)
	}
	return found, err
}

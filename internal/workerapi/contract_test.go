package workerapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
	"github.com/previewd/previewd/internal/workerapi"
)

const token = "service-token-0123456789"

var (
	quiet  = slog.New(slog.NewTextHandler(io.Discard, nil))
	caller = previewd.Caller{Principal: "svc", Service: "tests", RequestID: "req_contract"}
)

// contract is a worker as its callers have it, near or far, and the service
// behind it.
type contract struct {
	previewd.Worker
	t       *testing.T
	service *worker.Service
	folder  artifact.Store
}

// newService returns a worker on a real database whose runners are the test.
func newService(t *testing.T, db *store.DB) (*worker.Service, artifact.Store) {
	t.Helper()
	folder, err := artifact.NewFolder(t.TempDir())
	require.NoError(t, err)
	hub := &event.Hub{}
	service, err := worker.New(worker.Config{
		Store: db, Artifacts: folder, Changes: hub, Log: quiet,
		PreviewURL: func(label string) string { return "http://" + label + ".preview.test/" },
		SecretsKey: func(bool) ([]byte, error) { return make([]byte, worker.SecretsKeySize), nil },
	})
	require.NoError(t, err)
	relay := &event.Relay{Feed: db, Hub: hub, Holder: "test", Wake: worker.EventTopic, Grown: worker.FeedTopic}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- relay.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-stopped)
	})
	return service, folder
}

// farFrom serves the service and returns a client of it.
func farFrom(t *testing.T, service *worker.Service) *workerapi.Client {
	t.Helper()
	mux := http.NewServeMux()
	workerapi.Register(mux, workerapi.Config{
		Worker: service, Version: "1", Callers: httpx.Tokens{{Secret: token, Caller: caller}},
	})
	mux.Handle("/", httpx.Fallback(mux))
	server := httptest.NewServer(httpx.WithRequest(quiet, httpx.WithBodyLimit(httpx.WithExactPath(mux))))
	t.Cleanup(server.Close)
	far, err := workerapi.NewClient(workerapi.ClientConfig{URL: server.URL, Token: token})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.Zero(t, far.Counts().BadAnswers.Load())
		require.Zero(t, far.Counts().NotFoundAfterCreate.Load())
		require.Zero(t, far.Counts().Retries.Load())
	})
	return far
}

// The service and its client do the same.
func TestContract(t *testing.T) {
	t.Parallel()
	parts := map[string]func(*contract){
		"Create": (*contract).create, "NextBuild": (*contract).nextBuild, "Cancel": (*contract).cancel,
		"Delete": (*contract).remove, "Repair": (*contract).repair, "Projects": (*contract).projects, "Wait": (*contract).wait,
		"Built": (*contract).built, "Events": (*contract).events, "Operations": (*contract).operations,
		"Integrity": (*contract).integrity, "Env": (*contract).env, "NotThere": (*contract).notThere, "Invalid": (*contract).invalid,
	}
	for name, part := range parts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
				service, folder := newService(t, db)
				part(&contract{Worker: service, t: t, service: service, folder: folder})
			})
		})
		t.Run("Far"+name, func(t *testing.T) {
			t.Parallel()
			testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
				service, folder := newService(t, db)
				part(&contract{Worker: farFrom(t, service), t: t, service: service, folder: folder})
			})
		})
	}
}

func request() previewd.CreatePreviewRequest {
	return previewd.CreatePreviewRequest{
		UserID: "ann", Prompt: "a page", TemplateFiles: previewd.Files{"index.html": []byte("<h1>hi</h1>"), "x.bin": {0xff, 0}},
		Metadata: map[string]any{"from": "test"}, IdempotencyKey: previewd.NewRequestID(), Caller: caller,
	}
}

func (c *contract) made(change ...func(*previewd.CreatePreviewRequest)) *previewd.Preview {
	c.t.Helper()
	req := request()
	for _, f := range change {
		f(&req)
	}
	p, err := c.CreatePreview(c.t.Context(), req)
	require.NoError(c.t, err)
	return p
}

func nextOf(p *previewd.Preview) previewd.CreateBuildRequest {
	return previewd.CreateBuildRequest{
		ProjectID: p.ProjectID, TemplateFiles: previewd.Files{"index.html": []byte("again")},
		IdempotencyKey: previewd.NewRequestID(), Caller: caller,
	}
}

func (c *contract) fails(code previewd.Code, err error) *previewd.Error {
	c.t.Helper()
	require.Equal(c.t, code, previewd.ErrorCode(err), "%v", err)
	var e *previewd.Error
	require.ErrorAs(c.t, err, &e)
	require.NotEmpty(c.t, e.Message)
	return e
}

// same compares what was read with what the service itself says.
func (c *contract) same(got any, gotErr error) func(want any, wantErr error) {
	return func(want any, wantErr error) {
		c.t.Helper()
		require.NoError(c.t, gotErr)
		require.NoError(c.t, wantErr)
		g, err := json.Marshal(got)
		require.NoError(c.t, err)
		w, err := json.Marshal(want)
		require.NoError(c.t, err)
		require.JSONEq(c.t, string(w), string(g))
	}
}

func (c *contract) create() {
	ctx, req := c.t.Context(), request()
	first, err := c.CreatePreview(ctx, req)
	require.NoError(c.t, err)
	require.True(c.t, previewd.IsID(first.ProjectID) && previewd.IsID(first.BuildID))
	require.Equal(c.t, previewd.BuildQueued, first.Status)
	require.Equal(c.t, 1, first.QueuePosition)
	require.Equal(c.t, previewd.IDSourceServer, first.IDGenerationSource)
	require.Equal(c.t, "tests", first.CreatedByService)
	require.Empty(c.t, first.Replayed)

	again := req
	again.Caller.RequestID = "req_again"
	replay, err := c.CreatePreview(ctx, again)
	require.NoError(c.t, err)
	require.Equal(c.t, previewd.Replay{Replayed: previewd.ReplayedKey, OriginalRequestID: "req_contract"}, replay.Replay)
	replay.Replay = previewd.Replay{}
	c.same(replay, nil)(first, nil)

	again.Prompt = "another page"
	_, err = c.CreatePreview(ctx, again)
	c.fails(previewd.CodeKeyReused, err)
	page, err := c.ListProjects(ctx, previewd.ProjectFilter{UserID: "ann"})
	require.NoError(c.t, err)
	require.Len(c.t, page.Projects, 1)
}

func (c *contract) nextBuild() {
	ctx, p := c.t.Context(), c.made()
	req := nextOf(p)
	build, err := c.CreateBuild(ctx, req)
	require.NoError(c.t, err)
	require.Equal(c.t, p.ProjectID, build.ProjectID)
	require.EqualValues(c.t, 2, build.Seq)
	replay, err := c.CreateBuild(ctx, req)
	require.NoError(c.t, err)
	require.Equal(c.t, previewd.ReplayedKey, replay.Replayed)
	require.Equal(c.t, build.ID, replay.ID)
	req.Prompt = "another"
	_, err = c.CreateBuild(ctx, req)
	c.fails(previewd.CodeKeyReused, err)
	old, err := c.FindBuild(ctx, p.BuildID, 0)
	require.NoError(c.t, err)
	require.Equal(c.t, previewd.BuildSuperseded, old.Status)
	require.Equal(c.t, build.ID, old.SupersededBy)

	refused := nextOf(p)
	refused.Policy = previewd.PolicyReject
	_, err = c.CreateBuild(ctx, refused)
	one := c.fails(previewd.CodeBuildActive, err)
	require.NotEmpty(c.t, one.ReferenceID)
	_, err = c.CreateBuild(ctx, refused)
	two := c.fails(previewd.CodeBuildActive, err)
	require.Equal(c.t, previewd.ReplayedKey, two.Replayed)
	require.Equal(c.t, one.ReferenceID, two.ReferenceID, "a refusal is repeated as it was")
	refused.IdempotencyKey, refused.Policy = previewd.NewRequestID(), "unheard of"
	_, err = c.CreateBuild(ctx, refused)
	c.fails(previewd.CodeInvalid, err)
}

func (c *contract) cancel() {
	ctx, p := c.t.Context(), c.made()
	for range 2 {
		build, err := c.CancelBuild(ctx, previewd.CancelBuildRequest{BuildID: p.BuildID, Caller: caller})
		require.NoError(c.t, err)
		require.Equal(c.t, previewd.BuildCanceled, build.Status)
		require.Equal(c.t, previewd.CancelUser, build.CancelReason)
	}
}

func (c *contract) remove() {
	ctx, p := c.t.Context(), c.made()
	for range 2 {
		require.NoError(c.t, c.DeleteProject(ctx, previewd.DeleteProjectRequest{ProjectID: p.ProjectID, Caller: caller}))
	}
	_, err := c.FindProject(ctx, p.ProjectID)
	c.fails(previewd.CodeNotFound, err)
	_, err = c.FindBuild(ctx, p.BuildID, 0)
	c.fails(previewd.CodeNotFound, err)
	_, err = c.CreateBuild(ctx, nextOf(p))
	c.fails(previewd.CodeNotFound, err)
}

func (c *contract) projects() {
	ctx := c.t.Context()
	byAnn := c.made()
	byBob := c.made(func(r *previewd.CreatePreviewRequest) { r.UserID = "bob" })
	byAnnToo := c.made(func(r *previewd.CreatePreviewRequest) { r.Prompt = "two" })
	c.same(c.FindProject(ctx, byBob.ProjectID))(c.service.FindProject(ctx, byBob.ProjectID))
	c.same(c.ListProjects(ctx, previewd.ProjectFilter{}))(c.service.ListProjects(ctx, previewd.ProjectFilter{}))
	filter := previewd.ProjectFilter{UserID: "ann", Page: previewd.Page{Limit: 1}}
	for _, want := range []string{byAnnToo.ProjectID, byAnn.ProjectID} {
		page, err := c.ListProjects(ctx, filter)
		require.NoError(c.t, err)
		require.Len(c.t, page.Projects, 1)
		require.Equal(c.t, want, page.Projects[0].ID)
		filter.Cursor = page.Next
	}
	require.Empty(c.t, filter.Cursor)
	c.same(c.ListTemplates(ctx))(c.service.ListTemplates(ctx))
}

func (c *contract) wait() {
	ctx, p := c.t.Context(), c.made()
	build, err := c.FindBuild(ctx, p.BuildID, time.Millisecond)
	require.NoError(c.t, err)
	require.Equal(c.t, previewd.BuildQueued, build.Status, "the wait has passed")
	done := make(chan *previewd.Build, 1)
	go func() {
		build, err := c.FindBuild(ctx, p.BuildID, time.Minute)
		if err != nil {
			c.t.Error(err)
		}
		done <- build
	}()
	claim, err := c.service.ClaimBuild(ctx, "runner", 0)
	require.NoError(c.t, err)
	require.NotNil(c.t, claim)
	select { // the wait has begun before the claim, or after it, and then the cancel ends it
	case build = <-done:
	case <-time.After(100 * time.Millisecond):
		_, err := c.CancelBuild(ctx, previewd.CancelBuildRequest{BuildID: p.BuildID, Caller: caller})
		require.NoError(c.t, err)
		build = <-done
	}
	require.NotEqual(c.t, previewd.BuildQueued, build.Status)
}

var aPackage = []previewd.Package{{Name: "@a/b", Version: "1.0.0", Bytes: 7, Integrity: "sha512-x", Cached: true}}

// build plays the runner to the end.
func (c *contract) build() {
	ctx := c.t.Context()
	claim, err := c.service.ClaimBuild(ctx, "runner", 0)
	require.NoError(c.t, err)
	require.NotNil(c.t, claim)
	require.NoError(c.t, c.service.AppendLog(ctx, claim.Lease, 0, []byte("one\ntwö\n")))
	blob, err := c.folder.Put(ctx, bytes.NewReader([]byte(claim.BuildID)))
	require.NoError(c.t, err)
	manifest, err := artifact.PutManifest(ctx, c.folder, previewd.Manifest{Files: []previewd.ManifestFile{{Path: "index.html", Blob: blob}}})
	require.NoError(c.t, err)
	_, err = c.service.FinishBuild(ctx, claim.Lease, previewd.Outcome{
		Kind: previewd.OutcomeCompleted, Manifest: manifest, Runner: "static", Isolation: "process", Packages: aPackage,
	})
	require.NoError(c.t, err)
}

func (c *contract) built() {
	ctx, p := c.t.Context(), c.made()
	c.build()
	_, err := c.CreateBuild(ctx, nextOf(p))
	require.NoError(c.t, err)
	c.build()
	c.same(c.FindBuild(ctx, p.BuildID, time.Minute))(c.service.FindBuild(ctx, p.BuildID, 0))
	c.same(c.FindProject(ctx, p.ProjectID))(c.service.FindProject(ctx, p.ProjectID))
	for _, page := range []previewd.Page{{}, {Limit: 1}, {Cursor: "2"}} {
		c.same(c.ListVersions(ctx, p.ProjectID, page))(c.service.ListVersions(ctx, p.ProjectID, page))
	}
	c.same(c.ListPackages(ctx, p.BuildID))(c.service.ListPackages(ctx, p.BuildID))
	list, err := c.ListPackages(ctx, p.BuildID)
	require.NoError(c.t, err)
	require.Equal(c.t, &previewd.PackageList{BuildID: p.BuildID, Bytes: 7, Packages: aPackage}, list)
	for _, limit := range []int{0, 5, 1 << 20} {
		c.same(c.ReadLog(ctx, p.BuildID, 4, limit))(c.service.ReadLog(ctx, p.BuildID, 4, limit))
	}
	chunk, err := c.ReadLog(ctx, p.BuildID, 0, 0)
	require.NoError(c.t, err)
	require.Equal(c.t, "one\ntwö\n", string(chunk.Data))
	require.True(c.t, chunk.Complete)
	_, err = c.ReadLog(ctx, p.BuildID, 1000, 0)
	c.fails(previewd.CodeInvalid, err)

	version, err := c.ActivateVersion(ctx, previewd.ActivateVersionRequest{ProjectID: p.ProjectID, Number: 1, Caller: caller})
	require.NoError(c.t, err)
	require.True(c.t, version.Current)
	project, err := c.FindProject(ctx, p.ProjectID)
	require.NoError(c.t, err)
	require.True(c.t, project.Pinned)
	for _, number := range []int64{-1, 0, 3} {
		_, err = c.ActivateVersion(ctx, previewd.ActivateVersionRequest{ProjectID: p.ProjectID, Number: number, Caller: caller})
		c.fails(previewd.CodeNotFound, err)
	}
}

func (c *contract) events() {
	ctx := c.t.Context()
	waiting := make(chan *previewd.EventPage, 1)
	go func() {
		page, err := c.ListEvents(ctx, previewd.EventFilter{Wait: time.Minute})
		if err != nil {
			c.t.Error(err)
		}
		waiting <- page
	}()
	p := c.made()
	require.NotEmpty(c.t, (<-waiting).Events)
	var seen []previewd.Event
	for cursor := ""; len(seen) < 2; {
		page, err := c.ListEvents(ctx, previewd.EventFilter{After: cursor, Limit: 1, Wait: time.Minute})
		require.NoError(c.t, err)
		require.Len(c.t, page.Events, 1)
		seen, cursor = append(seen, page.Events...), page.Next
	}
	require.Equal(c.t, previewd.EventProjectCreated, seen[0].Type)
	require.Equal(c.t, previewd.EventBuildQueued, seen[1].Type)
	require.Equal(c.t, p.ProjectID, seen[1].ProjectID)
	require.Equal(c.t, "req_contract", seen[1].RequestID, "who asked is told all the way")
	c.same(c.ListEvents(ctx, previewd.EventFilter{}))(c.service.ListEvents(ctx, previewd.EventFilter{}))
	ahead, err := c.ListEvents(ctx, previewd.EventFilter{After: "1000000"})
	require.NoError(c.t, err)
	require.True(c.t, ahead.Reset)
	_, err = c.ListEvents(ctx, previewd.EventFilter{After: "no cursor"})
	c.fails(previewd.CodeInvalid, err)
	_, err = c.ListEvents(ctx, previewd.EventFilter{Limit: 501})
	c.fails(previewd.CodeInvalid, err)
}

func (c *contract) operations() {
	ctx, req := c.t.Context(), request()
	p, err := c.CreatePreview(ctx, req)
	require.NoError(c.t, err)
	op, err := c.FindOperation(ctx, caller, req.IdempotencyKey)
	require.NoError(c.t, err)
	require.Equal(c.t, p.ProjectID, op.ProjectID)
	require.Equal(c.t, "req_contract", op.RequestID)
	next := nextOf(p)
	_, err = c.CreateBuild(ctx, next)
	require.NoError(c.t, err)
	c.same(c.FindOperation(ctx, caller, next.IdempotencyKey))(c.service.FindOperation(ctx, caller, next.IdempotencyKey))
	_, err = c.FindOperation(ctx, caller, "free-0123456789abcdef")
	c.fails(previewd.CodeNotFound, err)
}

func (c *contract) integrity() {
	c.made()
	found, err := c.CheckIntegrity(c.t.Context())
	require.NoError(c.t, err)
	require.True(c.t, found.OK, "%v", previewd.Broken(found.Checks))
}

func (c *contract) notThere() {
	ctx := c.t.Context()
	for _, id := range []string{previewd.NewID(), "", "x", "..", "a/b", strings.ToUpper(previewd.NewID()), "%00"} {
		_, err := c.FindProject(ctx, id)
		c.fails(previewd.CodeNotFound, err)
		_, err = c.FindBuild(ctx, id, time.Second)
		c.fails(previewd.CodeNotFound, err)
		_, err = c.CancelBuild(ctx, previewd.CancelBuildRequest{BuildID: id, Caller: caller})
		c.fails(previewd.CodeNotFound, err)
		err = c.DeleteProject(ctx, previewd.DeleteProjectRequest{ProjectID: id, Caller: caller})
		c.fails(previewd.CodeNotFound, err)
		_, err = c.ListVersions(ctx, id, previewd.Page{})
		c.fails(previewd.CodeNotFound, err)
		_, err = c.ReadLog(ctx, id, 0, 0)
		c.fails(previewd.CodeNotFound, err)
		_, err = c.ActivateVersion(ctx, previewd.ActivateVersionRequest{ProjectID: id, Number: 1, Caller: caller})
		c.fails(previewd.CodeNotFound, err)
		next := nextOf(&previewd.Preview{ProjectID: id})
		_, err = c.CreateBuild(ctx, next)
		c.fails(previewd.CodeNotFound, err)
	}
}

func (c *contract) invalid() {
	ctx := c.t.Context()
	for name, change := range map[string]func(*previewd.CreatePreviewRequest) previewd.Code{
		"NoUser": func(r *previewd.CreatePreviewRequest) previewd.Code { r.UserID = ""; return previewd.CodeInvalid },
		"OwnID": func(r *previewd.CreatePreviewRequest) previewd.Code {
			r.ProjectID = previewd.NewID()
			return previewd.CodeClientIDNotAllowed
		},
		"Path": func(r *previewd.CreatePreviewRequest) previewd.Code {
			r.TemplateFiles["../x"] = nil
			return previewd.CodeInvalidPath
		},
		"Template": func(r *previewd.CreatePreviewRequest) previewd.Code {
			r.Metadata["template"] = "unheard of"
			return previewd.CodeInvalid
		},
	} {
		req := request()
		want := change(&req)
		_, err := c.CreatePreview(ctx, req)
		require.Equal(c.t, want, previewd.ErrorCode(err), "%s: %v", name, err)
	}
	for _, page := range []previewd.Page{{Limit: -1}, {Limit: 201}, {Cursor: "x"}} {
		_, err := c.ListProjects(ctx, previewd.ProjectFilter{Page: page})
		c.fails(previewd.CodeInvalid, err)
	}
}

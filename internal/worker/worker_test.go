package worker_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

var caller = previewd.Caller{Principal: "svc", Service: "tests", RequestID: "req_test"}

// fixture is a worker on a real database and a real folder, with runners
// played by the test.
type fixture struct {
	*worker.Service
	t        testing.TB
	db       *store.DB
	mu       sync.Mutex // guards switched
	switched []string
}

// hub counts the looks of those who have begun to wait.
type hub struct {
	event.Hub
	looks atomic.Int64
}

func (h *hub) Wait(ctx context.Context, topic string, wait time.Duration, look func() (bool, error)) error {
	return h.Hub.Wait(ctx, topic, wait, func() (bool, error) {
		h.looks.Add(1)
		return look()
	})
}

func setup(t testing.TB, db *store.DB, change ...func(*worker.Config)) *fixture {
	t.Helper()
	artifacts, err := artifact.NewFolder(t.TempDir())
	require.NoError(t, err)
	f := &fixture{t: t, db: db}
	cfg := worker.Config{
		Store: db, Artifacts: artifacts, Changes: &hub{},
		Log:        slog.New(slog.NewTextHandler(io.Discard, nil)),
		PreviewURL: func(label string) string { return "http://" + label + ".preview.test/" },
		Switched: func(id string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.switched = append(f.switched, id)
		},
		Retry: func(int) time.Duration { return 0 },
	}
	for _, c := range change {
		c(&cfg)
	}
	f.Service, err = worker.New(cfg)
	require.NoError(t, err)
	return f
}

func each(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) { test(t, setup(t, db)) })
}

func request() previewd.CreatePreviewRequest {
	return previewd.CreatePreviewRequest{
		UserID: "user-1", Prompt: "a page", TemplateFiles: previewd.Files{"index.html": []byte("<h1>hi</h1>")}, Caller: caller,
	}
}

func (f *fixture) create() *previewd.Preview {
	f.t.Helper()
	req := request()
	req.IdempotencyKey = previewd.NewRequestID()
	p, err := f.CreatePreview(f.t.Context(), req)
	require.NoError(f.t, err)
	return p
}

func (f *fixture) rebuild(projectID string) *previewd.Build {
	f.t.Helper()
	b, err := f.CreateBuild(f.t.Context(), previewd.CreateBuildRequest{
		ProjectID: projectID, TemplateFiles: previewd.Files{"index.html": []byte("again")}, Caller: caller,
	})
	require.NoError(f.t, err)
	return b
}

func (f *fixture) claim() *previewd.Claim {
	f.t.Helper()
	c, err := f.ClaimBuild(f.t.Context(), "runner-1", 0)
	require.NoError(f.t, err)
	require.NotNil(f.t, c, "a build is there to claim")
	return c
}

// manifest stores a site of one page and returns its manifest's digest.
func (f *fixture) manifest() previewd.Digest {
	f.t.Helper()
	blob, err := f.Artifacts.Put(context.Background(), reader("<h1>built</h1>"))
	require.NoError(f.t, err)
	digest, err := artifact.PutManifest(context.Background(), f.Artifacts, previewd.Manifest{
		Files: []previewd.ManifestFile{{Path: "index.html", Blob: blob}},
	})
	require.NoError(f.t, err)
	return digest
}

func (f *fixture) finish(c *previewd.Claim) (previewd.BuildStatus, error) {
	f.t.Helper()
	return f.FinishBuild(f.t.Context(), c.Lease, previewd.Outcome{
		Kind: previewd.OutcomeCompleted, Manifest: f.manifest(), Runner: "static", Isolation: "process",
	})
}

func (f *fixture) status(buildID string) previewd.BuildStatus {
	f.t.Helper()
	b, err := f.FindBuild(f.t.Context(), buildID, 0)
	require.NoError(f.t, err)
	return b.Status
}

func (f *fixture) versions(projectID string) []previewd.Version {
	f.t.Helper()
	page, err := f.ListVersions(f.t.Context(), projectID, previewd.Page{})
	require.NoError(f.t, err)
	return page.Versions
}

func (f *fixture) events(buildID string) (types []previewd.EventType) {
	f.t.Helper()
	events, err := f.ListBuildEvents(f.t.Context(), buildID, 0, 100)
	require.NoError(f.t, err)
	for _, e := range events {
		types = append(types, e.Type)
	}
	return types
}

func TestMainJob(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		require.True(t, previewd.IsID(p.ProjectID))
		require.Equal(t, previewd.BuildQueued, p.Status)
		require.Equal(t, 1, p.QueuePosition)
		require.Equal(t, previewd.IDSourceServer, p.IDGenerationSource)
		require.Equal(t, "tests", p.CreatedByService)
		require.Empty(t, f.versions(p.ProjectID), "a version is born when the build completes")

		c := f.claim()
		require.Equal(t, int64(1), c.Epoch)
		require.NoError(t, f.StartStep(t.Context(), c.Lease, previewd.StepBuild))
		require.NoError(t, f.AppendLog(t.Context(), c.Lease, 0, []byte("hello\n")))
		canceling, err := f.HeartbeatBuild(t.Context(), c.Lease)
		require.NoError(t, err)
		require.False(t, canceling)
		status, err := f.finish(c)
		require.NoError(t, err)
		require.Equal(t, previewd.BuildCompleted, status)

		project, err := f.FindProject(t.Context(), p.ProjectID)
		require.NoError(t, err)
		require.Equal(t, "deployed", project.Status)
		require.Equal(t, int64(1), project.CurrentVersion)
		require.Len(t, f.versions(p.ProjectID), 1)
		require.Equal(t, []string{p.ProjectID}, f.switched)
		require.Equal(t, []previewd.EventType{
			previewd.EventProjectCreated, previewd.EventBuildQueued, previewd.EventBuildBuilding,
			previewd.EventBuildStep, previewd.EventBuildCompleted, previewd.EventVersionActivated,
		}, f.events(p.BuildID))
		log, err := f.ReadLog(t.Context(), p.BuildID, 0, 0)
		require.NoError(t, err)
		require.Equal(t, "hello\n", string(log.Data))
		require.True(t, log.Complete)
	})
}

func TestCreateRefusesAClientsID(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		req := request()
		req.ProjectID = previewd.NewID()
		_, err := f.CreatePreview(t.Context(), req)
		require.Equal(t, previewd.CodeClientIDNotAllowed, previewd.ErrorCode(err))
	})
}

// One key makes one project, however many ask at once.
func TestCreateRace(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for round := range 5 {
			key := fmt.Sprintf("the-same-key-%04d", round)
			ids := make([]string, 200)
			var wg sync.WaitGroup
			for i := range ids {
				wg.Go(func() {
					req := request()
					req.IdempotencyKey = key
					p, err := f.CreatePreview(context.Background(), req)
					for previewd.ErrorCode(err) == previewd.CodeKeyInFlight {
						p, err = f.CreatePreview(context.Background(), req) // as it says
					}
					if err != nil {
						t.Error(err)
						return
					}
					ids[i] = p.ProjectID
				})
			}
			wg.Wait()
			for _, id := range ids {
				require.Equal(t, ids[0], id)
			}
			page, err := f.ListProjects(t.Context(), previewd.ProjectFilter{})
			require.NoError(t, err)
			require.Len(t, page.Projects, round+1)
		}
	})
}

func TestKeyIsBoundToItsRequest(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		req := request()
		req.IdempotencyKey = "key-0123456789abcdef"
		first, err := f.CreatePreview(t.Context(), req)
		require.NoError(t, err)
		again, err := f.CreatePreview(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, previewd.ReplayedKey, again.Replayed)
		require.Equal(t, first.ProjectID, again.ProjectID)
		require.Equal(t, first.BuildID, again.BuildID)

		changes := map[string]func(*previewd.CreatePreviewRequest){
			"Prompt": func(r *previewd.CreatePreviewRequest) { r.Prompt += "!" },
			"User":   func(r *previewd.CreatePreviewRequest) { r.UserID = "user-2" },
			"Files": func(r *previewd.CreatePreviewRequest) {
				r.TemplateFiles = previewd.Files{"index.html": []byte("other")}
			},
			"Metadata": func(r *previewd.CreatePreviewRequest) { r.Metadata = map[string]any{"a": 1} },
		}
		for name, change := range changes {
			other := req
			change(&other)
			_, err := f.CreatePreview(t.Context(), other)
			require.Equal(t, previewd.CodeKeyReused, previewd.ErrorCode(err), name)
		}
		// The same key of another principal is another key.
		req.Caller.Principal = "somebody else"
		theirs, err := f.CreatePreview(t.Context(), req)
		require.NoError(t, err)
		require.NotEqual(t, first.ProjectID, theirs.ProjectID)

		_, err = f.CreateBuild(t.Context(), previewd.CreateBuildRequest{
			ProjectID: first.ProjectID, TemplateFiles: req.TemplateFiles, IdempotencyKey: req.IdempotencyKey, Caller: caller,
		})
		require.Equal(t, previewd.CodeKeyReused, previewd.ErrorCode(err), "another operation")
	})
}

func TestCreateBuildReplaysItsKey(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		req := previewd.CreateBuildRequest{
			ProjectID: p.ProjectID, TemplateFiles: previewd.Files{"index.html": []byte("2")}, IdempotencyKey: "build-key-0123456789", Caller: caller,
		}
		first, err := f.CreateBuild(t.Context(), req)
		require.NoError(t, err)
		again, err := f.CreateBuild(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, first.ID, again.ID)
		require.Equal(t, int64(2), again.Seq)
		req.ProjectID = previewd.NewID()
		req.IdempotencyKey = ""
		_, err = f.CreateBuild(t.Context(), req)
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err), "an unknown project is never made")
	})
}

func TestFindBuildWaitsForAChange(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		got := make(chan previewd.BuildStatus)
		go func() {
			b, err := f.FindBuild(context.Background(), p.BuildID, 20*time.Second)
			if err != nil {
				t.Error(err)
			}
			got <- b.Status
		}()
		testkit.Eventually(t, "somebody waits", func() bool { return f.Changes.(*hub).looks.Load() > 0 })
		f.claim()
		require.Equal(t, previewd.BuildBuilding, <-got)
	})
}

func TestListPages(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		var want []string
		for range 7 {
			want = append([]string{f.create().ProjectID}, want...)
		}
		var got []string
		page := previewd.Page{Limit: 3}
		for {
			list, err := f.ListProjects(t.Context(), previewd.ProjectFilter{UserID: "user-1", Page: page})
			require.NoError(t, err)
			for _, p := range list.Projects {
				got = append(got, p.ID)
			}
			if page.Cursor = list.Next; page.Cursor == "" {
				break
			}
		}
		require.Equal(t, want, got)
		none, err := f.ListProjects(t.Context(), previewd.ProjectFilter{UserID: "nobody"})
		require.NoError(t, err)
		require.Empty(t, none.Projects)
		_, err = f.ListProjects(t.Context(), previewd.ProjectFilter{Page: previewd.Page{Cursor: "'; DROP TABLE"}})
		require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err))
	})
}

func TestSweepKeepsWhatIsReferenced(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		_, err := f.finish(f.claim())
		require.NoError(t, err)
		garbage, err := f.Artifacts.Put(t.Context(), reader("left by a crash"))
		require.NoError(t, err)
		require.NoError(t, f.Sweep(t.Context(), time.Now().Add(-time.Hour)), "young garbage may be somebody's")
		there, err := f.Artifacts.Has(t.Context(), garbage)
		require.NoError(t, err)
		require.True(t, there)

		require.NoError(t, f.Sweep(t.Context(), time.Now().Add(time.Hour)))
		there, err = f.Artifacts.Has(t.Context(), garbage)
		require.NoError(t, err)
		require.False(t, there)
		manifest, err := artifact.ReadManifest(t.Context(), f.Artifacts, f.versions(p.ProjectID)[0].ManifestDigest)
		require.NoError(t, err)
		for _, blob := range manifest.Blobs() {
			there, err := f.Artifacts.Has(t.Context(), blob)
			require.NoError(t, err)
			require.True(t, there)
		}
	})
}

package worker_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

var caller = previewd.Caller{Principal: "svc", Service: "tests", RequestID: "req_test"}

// fixture is a worker on a real database and a real folder, with runners
// played by the test.
type fixture struct {
	*worker.Service
	t        *testing.T
	db       *store.DB
	switched []string
}

// hub is the smallest Changes: it wakes everybody at once.
type hub struct {
	mu   sync.Mutex
	subs map[chan struct{}]bool
}

func (h *hub) Notify(string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.subs {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (h *hub) Subscribe(string) (<-chan struct{}, func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := make(chan struct{}, 1)
	h.subs[c] = true
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs, c)
	}
}

func setup(t *testing.T, db *store.DB, change ...func(*worker.Config)) *fixture {
	t.Helper()
	artifacts, err := artifact.NewFolder(t.TempDir())
	require.NoError(t, err)
	f := &fixture{t: t, db: db}
	cfg := worker.Config{
		Store: db, Artifacts: artifacts, Changes: &hub{subs: map[chan struct{}]bool{}},
		Log:        slog.New(slog.NewTextHandler(io.Discard, nil)),
		PreviewURL: func(label string) string { return "http://" + label + ".preview.test/" },
		Switched:   func(id string) { f.switched = append(f.switched, id) },
		Retry:      func(int) time.Duration { return 0 },
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
	p, err := f.CreatePreview(f.t.Context(), request())
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
		require.True(t, again.Replayed)
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

func TestNewerBuildSupersedes(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		running := f.claim()
		second := f.rebuild(p.ProjectID)
		require.Equal(t, previewd.BuildCanceling, f.status(p.BuildID), "a running build is asked to stop")
		c, err := f.ClaimBuild(t.Context(), "runner-2", 0)
		require.NoError(t, err)
		require.Nil(t, c, "one build of a project runs at a time")

		third := f.rebuild(p.ProjectID)
		require.Equal(t, previewd.BuildSuperseded, f.status(second.ID), "a waiting build is superseded at once")
		old, err := f.FindBuild(t.Context(), second.ID, 0)
		require.NoError(t, err)
		require.Equal(t, third.ID, old.SupersededBy)

		canceling, err := f.HeartbeatBuild(t.Context(), running.Lease)
		require.NoError(t, err)
		require.True(t, canceling)
		_, err = f.finish(running)
		require.Equal(t, previewd.CodeBuildCanceling, previewd.ErrorCode(err), "cancel beats a success that has not committed")
		status, err := f.FinishBuild(t.Context(), running.Lease, previewd.Outcome{Kind: previewd.OutcomeCanceled})
		require.NoError(t, err)
		require.Equal(t, previewd.BuildSuperseded, status)

		c = f.claim()
		require.Equal(t, third.ID, c.BuildID)
		_, err = f.finish(c)
		require.NoError(t, err)
		require.Len(t, f.versions(p.ProjectID), 1, "superseded builds leave no version")
	})
}

// What a runner says of a claim that it has lost changes nothing.
func TestLostEpochIsFenced(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		zombie := f.claim()
		require.NoError(t, f.Recover(t.Context(), "runner-1")) // its lease is taken away
		current := f.claim()
		require.Equal(t, zombie.BuildID, current.BuildID)
		require.Equal(t, zombie.Epoch+1, current.Epoch)

		_, err := f.HeartbeatBuild(t.Context(), zombie.Lease)
		require.Equal(t, previewd.CodeLeaseLost, previewd.ErrorCode(err))
		require.Equal(t, previewd.CodeLeaseLost, previewd.ErrorCode(f.StartStep(t.Context(), zombie.Lease, previewd.StepBuild)))
		require.Equal(t, previewd.CodeLeaseLost, previewd.ErrorCode(f.AppendLog(t.Context(), zombie.Lease, 0, []byte("zombie"))))
		for _, kind := range []previewd.OutcomeKind{previewd.OutcomeFailed, previewd.OutcomeCanceled, previewd.OutcomeReleased} {
			_, err = f.FinishBuild(t.Context(), zombie.Lease, previewd.Outcome{Kind: kind, Failure: &previewd.Failure{Class: previewd.FailureUser}})
			require.Equal(t, previewd.CodeLeaseLost, previewd.ErrorCode(err), kind)
		}
		_, err = f.finish(zombie)
		require.Equal(t, previewd.CodeLeaseLost, previewd.ErrorCode(err))
		require.Equal(t, previewd.BuildBuilding, f.status(p.BuildID))

		_, err = f.finish(current)
		require.NoError(t, err)
		_, err = f.finish(zombie)
		require.Equal(t, previewd.CodeLeaseLost, previewd.ErrorCode(err), "also after the build is over")
		require.Len(t, f.versions(p.ProjectID), 1)
	})
}

func TestFinishMayBeRepeated(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		c := f.claim()
		for range 3 {
			status, err := f.finish(c)
			require.NoError(t, err)
			require.Equal(t, previewd.BuildCompleted, status)
		}
		require.Len(t, f.versions(p.ProjectID), 1)
	})
}

func TestFinishNeedsItsFiles(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		c := f.claim()
		missing, err := artifact.PutManifest(t.Context(), f.Artifacts, previewd.Manifest{
			Files: []previewd.ManifestFile{{Path: "index.html", Blob: previewd.Blob{Digest: previewd.DigestOf([]byte("never stored")), Size: 12}}},
		})
		require.NoError(t, err)
		_, err = f.FinishBuild(t.Context(), c.Lease, previewd.Outcome{Kind: previewd.OutcomeCompleted, Manifest: missing})
		require.ErrorContains(t, err, "is missing")
		require.Equal(t, previewd.BuildBuilding, f.status(p.BuildID), "nothing is announced that cannot be served")
	})
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		c := f.claim()
		failure := &previewd.Failure{Class: previewd.FailureUser, Code: previewd.FailBundle, Step: previewd.StepBuild, Message: "no", File: "a.ts", Line: 3}
		status, err := f.FinishBuild(t.Context(), c.Lease, previewd.Outcome{Kind: previewd.OutcomeFailed, Failure: failure, Runner: "bundle"})
		require.NoError(t, err)
		require.Equal(t, previewd.BuildFailed, status)
		b, err := f.FindBuild(t.Context(), p.BuildID, 0)
		require.NoError(t, err)
		require.Equal(t, failure, b.Failure)
		require.Equal(t, p.ReferenceID, b.ReferenceID, "one reference from creation to the last poll")
		require.Empty(t, f.versions(p.ProjectID))
		require.Empty(t, f.switched)
	})
}

func TestInfrastructureFaultsAreTriedThreeTimes(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		failure := &previewd.Failure{Class: previewd.FailureInfra, Code: previewd.FailInfra, Message: "disk"}
		for attempt := 1; attempt <= 3; attempt++ {
			c := f.claim()
			require.Equal(t, p.BuildID, c.BuildID, "a retry is an attempt of the same build")
			_, err := f.FinishBuild(t.Context(), c.Lease, previewd.Outcome{Kind: previewd.OutcomeFailed, Failure: failure})
			require.NoError(t, err)
		}
		require.Equal(t, previewd.BuildFailed, f.status(p.BuildID))
	})
}

func TestReleaseCostsNoAttempt(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		for range 5 {
			status, err := f.FinishBuild(t.Context(), f.claim().Lease, previewd.Outcome{Kind: previewd.OutcomeReleased})
			require.NoError(t, err)
			require.Equal(t, previewd.BuildQueued, status)
		}
		_, err := f.finish(f.claim())
		require.NoError(t, err)
		require.Equal(t, previewd.BuildCompleted, f.status(p.BuildID))
	})
}

func TestRollbackPins(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		build := func() {
			_, err := f.finish(f.claim())
			require.NoError(t, err)
		}
		build()
		f.rebuild(p.ProjectID)
		build()
		activate := func(n int64) {
			_, err := f.ActivateVersion(t.Context(), previewd.ActivateVersionRequest{ProjectID: p.ProjectID, Number: n, Caller: caller})
			require.NoError(t, err)
		}
		current := func() int64 {
			project, err := f.FindProject(t.Context(), p.ProjectID)
			require.NoError(t, err)
			return project.CurrentVersion
		}
		require.Equal(t, int64(2), current())
		activate(1)
		require.Equal(t, int64(1), current())
		f.rebuild(p.ProjectID)
		build()
		require.Equal(t, int64(1), current(), "a pinned project stays where it was put")
		activate(3)
		f.rebuild(p.ProjectID)
		build()
		require.Equal(t, int64(4), current(), "the newest version is not pinned")
		_, err := f.ActivateVersion(t.Context(), previewd.ActivateVersionRequest{ProjectID: p.ProjectID, Number: 9, Caller: caller})
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
	})
}

func TestReaperTakesBackLostBuilds(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db, func(c *worker.Config) { c.Lease = time.Microsecond })
		p := f.create()
		for range 3 {
			f.claim()
			testkit.Eventually(t, "the reaper has seen the lease expire", func() bool {
				require.NoError(t, f.Reap(t.Context()))
				return f.status(p.BuildID) != previewd.BuildBuilding
			})
		}
		b, err := f.FindBuild(t.Context(), p.BuildID, 0)
		require.NoError(t, err)
		require.Equal(t, previewd.BuildFailed, b.Status)
		require.Equal(t, previewd.FailWorkerLost, b.Failure.Code)
	})
}

func TestReaperEndsWhatNobodyTakes(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db, func(c *worker.Config) { c.Timeouts = worker.Timeouts{Queue: time.Nanosecond, Build: time.Minute} })
		p := f.create()
		testkit.Eventually(t, "the build is too old", func() bool {
			require.NoError(t, f.Reap(t.Context()))
			return f.status(p.BuildID) == previewd.BuildFailed
		})
	})
}

func TestReaperEndsACancelThatNobodyAcknowledges(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db, func(c *worker.Config) {
			c.Timeouts = worker.Timeouts{Queue: time.Hour, Build: time.Minute, Cancel: time.Nanosecond}
		})
		p := f.create()
		zombie := f.claim()
		f.rebuild(p.ProjectID)
		testkit.Eventually(t, "the cancel is past its deadline", func() bool {
			require.NoError(t, f.Reap(t.Context()))
			return f.status(p.BuildID) == previewd.BuildSuperseded
		})
		_, err := f.finish(zombie)
		require.Equal(t, previewd.CodeLeaseLost, previewd.ErrorCode(err))
	})
}

// A cancel and a success race: one of them wins, and a version is there if and
// only if the success did.
func TestCancelRacesFinish(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		outcomes := map[previewd.BuildStatus]int{}
		for range 200 {
			p := f.create()
			c := f.claim()
			digest := f.manifest()
			var wg sync.WaitGroup
			wg.Go(func() {
				_, _ = f.FinishBuild(context.Background(), c.Lease, previewd.Outcome{Kind: previewd.OutcomeCompleted, Manifest: digest})
			})
			wg.Go(func() {
				_, err := f.CreateBuild(context.Background(), previewd.CreateBuildRequest{
					ProjectID: p.ProjectID, TemplateFiles: previewd.Files{"index.html": []byte("x")}, Caller: caller,
				})
				if err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			status := f.status(p.BuildID)
			outcomes[status]++
			require.Equal(t, status == previewd.BuildCompleted, len(f.versions(p.ProjectID)) == 1)
			if status == previewd.BuildCanceling {
				_, err := f.FinishBuild(t.Context(), c.Lease, previewd.Outcome{Kind: previewd.OutcomeCanceled})
				require.NoError(t, err)
			}
			_, err := f.finish(f.claim())
			require.NoError(t, err)
		}
		t.Logf("outcomes: %v", outcomes)
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

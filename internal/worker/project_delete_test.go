package worker_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

var deletions = flag.Int("deletions", 100, "how many projects TestDeleteRacesEverything deletes, per engine")

func (f *fixture) remove(projectID string) {
	f.t.Helper()
	require.NoError(f.t, f.DeleteProject(f.t.Context(), previewd.DeleteProjectRequest{ProjectID: projectID, Caller: caller}))
}

// gone checks that readers find nothing of a project any more.
func (f *fixture) gone(p *previewd.Preview) {
	f.t.Helper()
	ctx := f.t.Context()
	notFound := func(err error) {
		f.t.Helper()
		require.Equal(f.t, previewd.CodeNotFound, previewd.ErrorCode(err), "%v", err)
	}
	_, err := f.FindProject(ctx, p.ProjectID)
	notFound(err)
	_, err = f.FindBuild(ctx, p.BuildID, time.Minute)
	notFound(err)
	_, err = f.ReadLog(ctx, p.BuildID, 0, 0)
	notFound(err)
	_, err = f.ListVersions(ctx, p.ProjectID, previewd.Page{})
	notFound(err)
	_, err = f.ActivateVersion(ctx, previewd.ActivateVersionRequest{ProjectID: p.ProjectID, Number: 1, Caller: caller})
	notFound(err)
	_, err = f.CancelBuild(ctx, previewd.CancelBuildRequest{BuildID: p.BuildID, Caller: caller})
	notFound(err)
	_, err = f.CreateBuild(ctx, previewd.CreateBuildRequest{
		ProjectID: p.ProjectID, TemplateFiles: previewd.Files{"index.html": []byte("again")}, Caller: caller,
	})
	notFound(err)
	_, err = f.FindSite(ctx, p.ProjectID, "")
	notFound(err)
	_, err = f.FindSite(ctx, "", p.BuildID)
	notFound(err)
	page, err := f.ListProjects(ctx, previewd.ProjectFilter{})
	require.NoError(f.t, err)
	for _, other := range page.Projects {
		require.NotEqual(f.t, p.ProjectID, other.ID)
	}
}

// told returns the types of all events of a project, in order.
func (f *fixture) told(projectID string) (types []previewd.EventType) {
	f.t.Helper()
	events, err := f.db.ListProjectEvents(f.t.Context(), projectID, 0, 100)
	require.NoError(f.t, err)
	for _, e := range events {
		types = append(types, e.Type)
	}
	return types
}

func TestDeletedProjectIsGone(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		var deleted []string
		f.Deleted = func(id string) { deleted = append(deleted, id) }
		p := f.create()
		_, err := f.finish(f.claim())
		require.NoError(t, err)
		f.remove(p.ProjectID)
		require.Equal(t, []string{p.ProjectID}, deleted)
		f.gone(p)
		f.remove(p.ProjectID) // stays so
		require.Equal(t, []string{p.ProjectID}, deleted, "once")
		types := f.told(p.ProjectID)
		require.Equal(t, previewd.EventProjectDeleted, types[len(types)-1])
		for _, id := range []string{previewd.NewID(), "x"} {
			err := f.DeleteProject(t.Context(), previewd.DeleteProjectRequest{ProjectID: id, Caller: caller})
			require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
		}
	})
}

func TestDeleteEndsBuilds(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		waiting := f.create()
		f.remove(waiting.ProjectID)
		require.Equal(t, []previewd.EventType{"project.created", "build.queued", "build.canceled", "project.deleted"}, f.told(waiting.ProjectID))

		running := f.create()
		claim := f.claim()
		require.Equal(t, running.BuildID, claim.BuildID, "what was deleted is not claimed")
		_, err := f.CreateBuild(t.Context(), previewd.CreateBuildRequest{
			ProjectID: running.ProjectID, TemplateFiles: previewd.Files{"index.html": []byte("again")}, Caller: caller, Policy: previewd.PolicyQueue,
		})
		require.NoError(t, err)
		f.remove(running.ProjectID)
		f.gone(running)
		row, err := f.db.FindAnyBuild(t.Context(), running.BuildID)
		require.NoError(t, err)
		require.Equal(t, previewd.BuildCanceling, row.Status)
		require.Equal(t, previewd.CancelDeleted, row.CancelReason)

		canceling, err := f.AwaitCancel(t.Context(), claim.Lease, time.Minute)
		require.NoError(t, err)
		require.True(t, canceling, "its runner is told")
		require.NoError(t, f.AppendLog(t.Context(), claim.Lease, 0, []byte("killed")))
		_, err = f.finish(claim)
		require.Equal(t, previewd.CodeBuildCanceling, previewd.ErrorCode(err), "it makes no version any more")
		status, err := f.FinishBuild(t.Context(), claim.Lease, previewd.Outcome{Kind: previewd.OutcomeCanceled})
		require.NoError(t, err)
		require.Equal(t, previewd.BuildCanceled, status)
		types := f.told(running.ProjectID)
		require.Equal(t, []previewd.EventType{"build.canceling", "build.canceled", "project.deleted", "build.canceled"}, types[len(types)-4:])
		next, err := f.ClaimBuild(t.Context(), "runner-1", 0)
		require.NoError(t, err)
		require.Nil(t, next)
	})
}

func TestReaperEndsTheBuildOfADeletedProject(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db, func(cfg *worker.Config) {
			cfg.Timeouts = worker.Timeouts{Build: time.Hour, Queue: time.Hour, Cancel: -time.Second}
		})
		p := f.create()
		f.claim()
		f.remove(p.ProjectID)
		require.NoError(t, f.Reap(t.Context()))
		row, err := db.FindAnyBuild(t.Context(), p.BuildID)
		require.NoError(t, err)
		require.Equal(t, previewd.BuildCanceled, row.Status)
	})
}

func TestKeyOfADeletedProjectMakesNoOther(t *testing.T) {
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		f := setup(t, testkit.Open(t, cfg), func(cfg *worker.Config) {
			cfg.Retention = store.KeyRetention{Body: -time.Second, Row: -time.Second}
		})
		req := keyed()
		p, err := f.CreatePreview(t.Context(), req)
		require.NoError(t, err)
		f.remove(p.ProjectID)
		again, err := f.CreatePreview(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, previewd.ReplayedKey, again.Replayed)
		again.Replay = previewd.Replay{}
		require.Equal(t, text(t, p), text(t, again), "to the byte")
		testkit.OpenShell(t, cfg).Do("UPDATE worker_projects SET created_at = 1") // a young one must have its key
		require.NoError(t, f.Prune(t.Context()))
		_, err = f.CreatePreview(t.Context(), req)
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
		op, err := f.FindOperation(t.Context(), caller, req.IdempotencyKey)
		require.NoError(t, err)
		require.Equal(t, p.ProjectID, op.ProjectID, "for ever")

		legacy := request()
		legacy.ProjectID, legacy.Caller.LegacyIDs = p.ProjectID, true
		_, err = f.CreatePreview(t.Context(), legacy)
		require.Equal(t, previewd.CodeIDTaken, previewd.ErrorCode(err), "nor is its id used again")
	})
}

func TestCreateAfterDeleteIsNoDoubleClick(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		first, err := f.CreatePreview(t.Context(), request())
		require.NoError(t, err)
		f.remove(first.ProjectID)
		second, err := f.CreatePreview(t.Context(), request())
		require.NoError(t, err)
		require.NotEqual(t, first.ProjectID, second.ProjectID)
		require.Empty(t, second.Replayed)
	})
}

func TestSweepRemovesWhatOnlyDeletedProjectsNeeded(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		root := t.TempDir()
		folder, err := artifact.NewFolder(root)
		require.NoError(t, err)
		f := setup(t, db, func(cfg *worker.Config) { cfg.Artifacts = folder })
		build := func(page string) *previewd.Preview {
			req := keyed()
			req.IdempotencyKey, req.TemplateFiles = previewd.NewRequestID(), previewd.Files{"index.html": []byte(page)}
			p, err := f.CreatePreview(t.Context(), req)
			require.NoError(t, err)
			_, err = f.finish(f.claim()) // all make the same version
			require.NoError(t, err)
			return p
		}
		source := func(p *previewd.Preview) previewd.Digest {
			b, err := f.db.FindAnyBuild(t.Context(), p.BuildID)
			require.NoError(t, err)
			return b.Source.Digest
		}
		there := func(d previewd.Digest) bool {
			file, err := folder.Open(t.Context(), d)
			if err == nil {
				require.NoError(t, file.Close())
			}
			return err == nil
		}
		one, other := build("one"), build("other")
		f.remove(one.ProjectID)
		require.NoError(t, f.Sweep(t.Context(), time.Now().Add(-time.Hour)))
		require.True(t, there(source(one)), "within the grace")
		require.NoError(t, f.Sweep(t.Context(), time.Now().Add(time.Hour)))
		require.False(t, there(source(one)))
		require.True(t, there(source(other)))
		found, err := f.CheckAll(t.Context(), worker.Full)
		require.NoError(t, err)
		require.True(t, found.OK, "what both showed is still there: %v", previewd.Broken(found.Checks))
		f.remove(other.ProjectID)
		require.NoError(t, f.Sweep(t.Context(), time.Now().Add(time.Hour)))
		left, err := filepath.Glob(filepath.Join(root, "blobs", "*", "*"))
		require.NoError(t, err)
		require.Empty(t, left)
		found, err = f.CheckAll(t.Context(), worker.Full)
		require.NoError(t, err)
		require.True(t, found.OK, "nobody misses them: %v", previewd.Broken(found.Checks))
	})
}

// Whatever a deletion meets, nothing of the project is queued, built or shown
// after it, and every build ends.
func TestDeleteRacesEverything(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db, unlimited)
		dice, manifest := random(t, "deletions", *deletions), f.manifest()
		var next, finished atomic.Int64
		var lanes sync.WaitGroup
		for lane := range 4 {
			moments := rand.New(rand.NewPCG(dice.Uint64(), uint64(lane)))
			lanes.Go(func() {
				for next.Add(1) <= int64(*deletions) && !t.Failed() {
					if f.raceDeletion(moments, manifest) {
						finished.Add(1)
					}
				}
			})
		}
		lanes.Wait()
		n, err := db.CountWaiting(t.Context())
		require.NoError(t, err)
		require.Zero(t, n)
		n, err = db.CountRunning(t.Context())
		require.NoError(t, err)
		require.Zero(t, n)
		t.Logf("%d deletions, %d after the build had completed", *deletions, finished.Load())
	})
}

// raceDeletion deletes a project while its build is claimed, finished and
// followed by another, and reports whether it has completed before.
func (f *fixture) raceDeletion(moments *rand.Rand, manifest previewd.Digest) bool {
	ctx := context.Background()
	req := request()
	req.IdempotencyKey = previewd.NewRequestID()
	p, err := f.CreatePreview(ctx, req)
	f.must(err)
	if moments.IntN(2) == 0 {
		f.work(manifest) // of this build, or of another lane's
	}
	var all sync.WaitGroup
	at := func(do func()) {
		wait := time.Duration(moments.Int64N(int64(2 * time.Millisecond)))
		all.Go(func() {
			time.Sleep(wait)
			do()
		})
	}
	at(func() {
		f.must(f.DeleteProject(ctx, previewd.DeleteProjectRequest{ProjectID: p.ProjectID, Caller: caller}))
	})
	at(func() {
		f.must(f.DeleteProject(ctx, previewd.DeleteProjectRequest{ProjectID: p.ProjectID, Caller: caller}))
	})
	at(func() { f.work(manifest) })
	at(func() {
		_, err := f.CreateBuild(ctx, previewd.CreateBuildRequest{
			ProjectID: p.ProjectID, TemplateFiles: previewd.Files{"index.html": []byte("again")}, Caller: caller, Policy: previewd.PolicyQueue,
		})
		if code := previewd.ErrorCode(err); code != "" && code != previewd.CodeNotFound {
			f.must(err)
		}
	})
	at(func() {
		_, err := f.CancelBuild(ctx, previewd.CancelBuildRequest{BuildID: p.BuildID, Caller: caller})
		if code := previewd.ErrorCode(err); code != "" && code != previewd.CodeNotFound {
			f.must(err)
		}
	})
	all.Wait()
	b, err := f.db.FindAnyBuild(ctx, p.BuildID)
	f.must(err)
	if _, err := f.FindProject(ctx, p.ProjectID); previewd.ErrorCode(err) != previewd.CodeNotFound {
		f.t.Errorf("project %s is still there: %v", p.ProjectID, err)
	}
	return err == nil && b.Status == previewd.BuildCompleted
}

// work does what a runner does with the next build, if there is one.
func (f *fixture) work(manifest previewd.Digest) {
	ctx := context.Background()
	c, err := f.ClaimBuild(ctx, "runner-1", 0)
	f.must(err)
	if c == nil {
		return
	}
	_, err = f.FinishBuild(ctx, c.Lease, previewd.Outcome{Kind: previewd.OutcomeCompleted, Manifest: manifest, Runner: "static", Isolation: "process"})
	if previewd.ErrorCode(err) == previewd.CodeBuildCanceling {
		_, err = f.FinishBuild(ctx, c.Lease, previewd.Outcome{Kind: previewd.OutcomeCanceled})
	}
	f.must(err)
}

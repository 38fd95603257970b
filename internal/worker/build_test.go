package worker_test

import (
	"context"
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

		canceling, err := f.AwaitCancel(t.Context(), running.Lease, time.Minute)
		require.NoError(t, err)
		require.True(t, canceling, "at once, not at the next heartbeat")
		canceling, err = f.HeartbeatBuild(t.Context(), running.Lease)
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

// The death of the whole server costs a build no attempt, but does not go on
// for ever: the build may be what it dies of.
func TestRecoverCostsNoAttemptUpToABound(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		recovered := 0
		for f.status(p.BuildID) != previewd.BuildFailed {
			f.claim()
			require.NoError(t, f.Recover(t.Context(), "runner-1"))
			recovered++
			require.Less(t, recovered, 100)
		}
		require.Greater(t, recovered, 20)
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
		b, err := f.FindBuild(t.Context(), p.BuildID, 0)
		require.NoError(t, err)
		require.Equal(t, previewd.FailQueueTimeout, b.Failure.Code)
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

// Whatever happens to a project at once, each change is made on what the one
// before has left: nobody finds the row changed under its hands.
func TestNobodyWritesOverAnother(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		for range 30 {
			c := f.claim()
			var wg sync.WaitGroup
			try := func(what string, do func() error) {
				wg.Go(func() {
					switch err := do(); previewd.ErrorCode(err) {
					case "", previewd.CodeBuildCanceling, previewd.CodeLeaseLost, previewd.CodeBuildFinished:
					default:
						t.Errorf("%s: %v", what, err)
					}
				})
			}
			ctx := context.Background()
			for range 3 {
				try("rebuild", func() error {
					_, err := f.CreateBuild(ctx, previewd.CreateBuildRequest{
						ProjectID: p.ProjectID, TemplateFiles: previewd.Files{"index.html": nil}, Caller: caller,
					})
					return err
				})
			}
			try("cancel", func() error {
				_, err := f.CancelBuild(ctx, previewd.CancelBuildRequest{BuildID: c.BuildID, Caller: caller})
				return err
			})
			try("heartbeat", func() error { _, err := f.HeartbeatBuild(ctx, c.Lease); return err })
			try("step", func() error { return f.StartStep(ctx, c.Lease, previewd.StepBuild) })
			try("release", func() error {
				_, err := f.FinishBuild(ctx, c.Lease, previewd.Outcome{Kind: previewd.OutcomeReleased})
				return err
			})
			wg.Wait()
			_, err := f.FinishBuild(ctx, c.Lease, previewd.Outcome{Kind: previewd.OutcomeCanceled})
			if code := previewd.ErrorCode(err); code != "" && code != previewd.CodeLeaseLost {
				t.Fatal(err)
			}
		}
	})
}

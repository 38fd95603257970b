package worker_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

func (f *fixture) createFor(user string) *previewd.Preview {
	f.t.Helper()
	p, err := f.CreatePreview(f.t.Context(), keyed(func(r *previewd.CreatePreviewRequest) {
		r.UserID, r.IdempotencyKey = user, previewd.NewRequestID()
	}))
	require.NoError(f.t, err)
	return p
}

// claims claims everything that waits and returns the builds in that order.
func (f *fixture) claims() (order []string) {
	f.t.Helper()
	for {
		c, err := f.ClaimBuild(f.t.Context(), "runner-1", 0)
		require.NoError(f.t, err)
		if c == nil {
			return order
		}
		order = append(order, c.BuildID)
	}
}

// The position is the order in which claims happen, for whoever queued when.
func TestPositionIsTheOrderOfClaims(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		var builds []string
		for i, user := range []string{"a", "a", "a", "b", "a", "c", "b", "b", "c", "a"} {
			p := f.createFor(user)
			if i == 0 {
				require.Equal(t, 1, p.QueuePosition)
			}
			b, err := f.FindBuild(t.Context(), p.BuildID, 0)
			require.NoError(t, err)
			require.Equal(t, p.QueuePosition, b.QueuePosition, "the answer tells the same")
			builds = append(builds, p.BuildID)
		}
		position := map[string]int{}
		for _, id := range builds {
			b, err := f.FindBuild(t.Context(), id, 0)
			require.NoError(t, err)
			position[id] = b.QueuePosition
		}
		order := f.claims()
		require.Len(t, order, len(builds))
		for i, id := range order {
			require.Equal(t, i+1, position[id])
		}
	})
}

// One user's many builds do not keep others waiting: with ten others, their
// p95 wait, counted in claims, is less than twice what it is without them.
func TestManyBuildsOfOneUserKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db)
		for range 300 {
			f.createFor("flood")
		}
		others := map[string]bool{}
		for range 5 {
			for user := range 10 {
				others[f.createFor(fmt.Sprint("user-", user)).BuildID] = true
			}
		}
		var waits []int // claims before one of the others'
		for i, id := range f.claims() {
			if others[id] {
				waits = append(waits, i)
			}
		}
		require.Len(t, waits, 50)
		alone := 50 * 95 / 100
		require.Less(t, waits[len(waits)*95/100], 2*alone)
	})
}

func TestWaitingBuildsAreBounded(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db, func(c *worker.Config) { c.Queue = &store.QueueLimits{Owner: 3, Total: 5} })
		var first *previewd.Preview
		for i := range 3 {
			p := f.createFor("a")
			if i == 0 {
				first = p
			}
		}
		refused := func(user, key string) {
			_, err := f.CreatePreview(t.Context(), keyed(func(r *previewd.CreatePreviewRequest) { r.UserID, r.IdempotencyKey = user, key }))
			var e *previewd.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, previewd.CodeQueueFull, e.Code)
			require.Positive(t, e.RetryAfter)
		}
		refused("a", key)
		_, err := f.CreateBuild(t.Context(), previewd.CreateBuildRequest{
			ProjectID: first.ProjectID, TemplateFiles: previewd.Files{"index.html": nil}, IdempotencyKey: key, Caller: caller,
		})
		require.NoError(t, err, "a build that takes the place of one that waits needs no room")

		f.createFor("b")
		f.createFor("c")
		refused("d", key+"-full")
		_, err = f.finish(f.claim())
		require.NoError(t, err)
		_, err = f.CreatePreview(t.Context(), keyed(func(r *previewd.CreatePreviewRequest) { r.UserID, r.IdempotencyKey = "d", key+"-full" }))
		require.NoError(t, err, "the refusal was not stored")
	})
}

// Nothing is foretold without a history; with one the estimates are its
// quantiles.
func TestEstimatesComeFromHistory(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		require.Nil(t, p.EstimatedCompletionTime)
		for range 5 {
			_, err := f.finish(f.claim())
			require.NoError(t, err)
			p = f.create()
		}
		testkit.Eventually(t, "an estimate", func() bool {
			b, err := f.FindBuild(t.Context(), p.BuildID, 0)
			require.NoError(t, err)
			if b.EstimatedCompletionTime == nil {
				return false
			}
			require.False(t, b.EstimatedCompletionTimeP90.Before(*b.EstimatedCompletionTime))
			require.WithinDuration(t, time.Now(), *b.EstimatedCompletionTime, time.Minute)
			return true
		})
		first, err := f.CreatePreview(t.Context(), keyed())
		require.NoError(t, err)
		require.NotNil(t, first.EstimatedCompletionTime)
		again, err := f.CreatePreview(t.Context(), keyed())
		require.NoError(t, err)
		require.Equal(t, text(t, first), text(t, again), "a replay tells the estimate of then")
	})
}

func TestQueuePolicyLetsTheRunningGoOn(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		running := f.claim()
		next := func() *previewd.Build {
			b, err := f.CreateBuild(t.Context(), previewd.CreateBuildRequest{
				ProjectID: p.ProjectID, TemplateFiles: previewd.Files{"index.html": []byte("x")}, Policy: previewd.PolicyQueue, Caller: caller,
			})
			require.NoError(t, err)
			return b
		}
		second, third := next(), next()
		require.Equal(t, previewd.BuildBuilding, f.status(p.BuildID))
		require.Equal(t, previewd.BuildSuperseded, f.status(second.ID), "at most one waits")
		require.Empty(t, f.claims(), "at most one runs")
		status, err := f.FinishBuild(t.Context(), running.Lease, previewd.Outcome{
			Kind: previewd.OutcomeFailed, Failure: &previewd.Failure{Class: previewd.FailureInfra, Code: previewd.FailInfra},
		})
		require.NoError(t, err)
		require.Equal(t, previewd.BuildSuperseded, status, "a retry gives way to a newer build that waits")
		b, err := f.FindBuild(t.Context(), p.BuildID, 0)
		require.NoError(t, err)
		require.Equal(t, third.ID, b.SupersededBy)
		require.Equal(t, []string{third.ID}, f.claims())
	})
}

func TestCancel(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		cancel := func(id string) previewd.BuildStatus {
			b, err := f.CancelBuild(t.Context(), previewd.CancelBuildRequest{BuildID: id, Caller: caller})
			require.NoError(t, err)
			return b.Status
		}
		waiting := f.create()
		require.Equal(t, previewd.BuildCanceled, cancel(waiting.BuildID))
		require.Equal(t, previewd.BuildCanceled, cancel(waiting.BuildID), "again is the same")

		running := f.create()
		c := f.claim()
		require.Equal(t, previewd.BuildCanceling, cancel(running.BuildID))
		canceling, err := f.HeartbeatBuild(t.Context(), c.Lease)
		require.NoError(t, err)
		require.True(t, canceling, "its runner is told")
		_, err = f.finish(c)
		require.Equal(t, previewd.CodeBuildCanceling, previewd.ErrorCode(err), "a success that has not committed loses")
		status, err := f.FinishBuild(t.Context(), c.Lease, previewd.Outcome{Kind: previewd.OutcomeCanceled})
		require.NoError(t, err)
		require.Equal(t, previewd.BuildCanceled, status)
		require.Empty(t, f.versions(running.ProjectID))

		done := f.create()
		_, err = f.finish(f.claim())
		require.NoError(t, err)
		require.Equal(t, previewd.BuildCompleted, cancel(done.BuildID), "a success that has committed stays")
		_, err = f.CancelBuild(t.Context(), previewd.CancelBuildRequest{BuildID: previewd.NewID()})
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
		require.True(t, slices.Contains(f.events(running.BuildID), previewd.EventBuildCanceling))
	})
}

package gateway_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/testkit"
)

// confirmed waits until an intent is confirmed, by itself.
func (f *fixture) confirmed(id string) {
	f.t.Helper()
	testkit.Eventually(f.t, "the intent is confirmed", func() bool {
		in, err := f.FindIntent(f.t.Context(), ann, id)
		require.NoError(f.t, err)
		return in.State == previewd.IntentConfirmed
	})
}

// What was left open is taken up again without anybody asking for it.
func TestReconcilerTakesUpWhatWasLeftOpen(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) { w.after = away })
		made, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		f.faults.set(func(w *faultyWorker) { w.after = nil })
		runPart(t, f.RunReconciler)
		f.confirmed(made.Intent.ID)
		require.Equal(t, 1, f.inWorker())
	})
}

// A process that starts again does not wait for the claims of its last life.
func TestRestartGivesBackItsClaims(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		hold := make(chan struct{})
		f.faults.set(func(w *faultyWorker) {
			w.after = func() error { <-hold; return errAway }
		})
		dead := make(chan struct{})
		go func() {
			defer close(dead)
			_, _ = f.CreateProject(context.Background(), as(ann, key), page())
		}()
		testkit.Eventually(t, "the worker has made it", func() bool { return f.inWorker() == 1 })
		f.faults.set(func(w *faultyWorker) { w.after = nil })
		f.Reconcile(t.Context())
		open, err := f.Store.ListIntents(t.Context(), previewd.IntentPending, "~", 2)
		require.NoError(t, err)
		require.Len(t, open, 1, "its claim lasts")

		other := f.another()
		require.NoError(t, other.Recover(t.Context()))
		other.Reconcile(t.Context())
		in, err := f.FindIntent(t.Context(), ann, open[0].ID)
		require.NoError(t, err)
		require.Equal(t, previewd.IntentPending, in.State, "another's claim is not given back")

		require.NoError(t, f.Recover(t.Context()))
		f.Reconcile(t.Context())
		f.confirmed(open[0].ID)
		close(hold)
		<-dead
		require.Equal(t, 1, f.inWorker())
	})
}

// A worker that comes back is asked at once for all that was put off, however far.
func TestWorkerThatIsBackIsAskedAtOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) { w.before, w.list = away, away })
		runPart(t, f.RunReconciler)
		runPart(t, f.RunFollower)
		made, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		testkit.Eventually(t, "the follower has asked in vain", func() bool {
			f.faults.mu.Lock()
			defer f.faults.mu.Unlock()
			return f.faults.listed > 0
		})
		f.faults.set(func(w *faultyWorker) { w.before, w.list = nil, nil })
		f.confirmed(made.Intent.ID)
	}, func(c *gateway.Config) { c.Backoff = func(int) time.Duration { return time.Hour } })
}

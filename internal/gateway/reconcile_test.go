package gateway_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/store"
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

// An operator's retry stands, also while the intent is being looked up.
func TestRetryIsNotUndone(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) { w.before = away })
		old := f.another(func(c *gateway.Config) { c.Deadline = time.Nanosecond })
		made, err := old.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		require.Equal(t, previewd.IntentAttention, made.Intent.State)
		f.faults.set(func(w *faultyWorker) { w.before = nil })
		require.NoError(t, f.Store.Tx(t.Context(), "x", func(tx *store.DB) error { return tx.HastenIntent(t.Context(), made.Intent.ID) }))
		looking, on := make(chan struct{}), make(chan struct{})
		s := f.another(func(c *gateway.Config) { c.Worker = slowLook{f.faults, looking, on} })
		done := make(chan struct{})
		go func() { s.Reconcile(context.Background()); close(done) }()
		<-looking
		in, err := f.RetryIntent(t.Context(), as(bob), made.Intent.ID)
		require.NoError(t, err)
		require.Equal(t, previewd.IntentPending, in.State)
		close(on)
		<-done
		in, err = f.WaitIntent(t.Context(), ann, made.Intent.ID, 0)
		require.NoError(t, err)
		require.Equal(t, previewd.IntentPending, in.State, "the operator was told that it is asked for again")
	})
}

type slowLook struct {
	*faultyWorker
	looking, on chan struct{}
}

func (w slowLook) FindOperation(ctx context.Context, c previewd.Caller, key string) (*previewd.Operation, error) {
	close(w.looking)
	<-w.on
	return w.Worker.FindOperation(ctx, c, key)
}

// An intent that an operator has revived breaks no promise by its age.
func TestRevivedIntentBreaksNoPromise(t *testing.T) {
	var ahead atomic.Int64
	for _, e := range testkit.Engines() {
		if e.Name != "sqlite" {
			continue
		}
		inner := e.Config
		e.Config = func(tb testing.TB) store.Config {
			c := inner(tb)
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			return c
		}
		f := setup(t, e, false)
		f.faults.set(func(w *faultyWorker) { w.before = away })
		made, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		ahead.Store(int64(74 * time.Hour))
		f.Reconcile(t.Context())
		_, err = f.RetryIntent(t.Context(), as(bob), made.Intent.ID)
		require.NoError(t, err)
		found, err := f.Store.FindViolations(t.Context())
		require.NoError(t, err)
		require.Empty(t, found)
	}
}

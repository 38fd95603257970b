package gateway_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/testkit"
)

const key = "key-0123456789abcdef"

func TestProjectFromRequestToVersion(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		require.True(t, previewd.IsID(made.Project.ID))
		require.Equal(t, "A page about tea", made.Project.Name)
		require.Equal(t, previewd.ProjectQueued, made.Build.Status)
		require.Equal(t, 1, made.Build.QueuePosition)
		require.NotEmpty(t, made.Build.ReferenceID)
		theirs, err := f.worker.FindProject(t.Context(), made.Project.ID)
		require.NoError(t, err)
		require.Equal(t, ann, theirs.UserID)
		require.Equal(t, "gateway", theirs.CreatedByService)
		sessions := f.sessions(ann)
		require.Len(t, sessions, 1, "billing begins with the stored id")
		require.Equal(t, previewd.BillingOpen, sessions[0].State)

		f.build(previewd.Outcome{Kind: previewd.OutcomeCompleted})
		f.follow()
		p := f.project(ann, made.Project.ID)
		require.Equal(t, previewd.ProjectDeployed, p.Status)
		require.Equal(t, int64(1), p.CurrentVersion)
		require.Equal(t, made.Build.ReferenceID, p.Build.ReferenceID, "one reference from creation to the last poll")
		require.Equal(t, previewd.BillingSettled, f.sessions(ann)[0].State)
	})
}

func (f *fixture) sessions(user string) []previewd.BillingSession {
	f.t.Helper()
	found, err := f.ListBilling(f.t.Context(), user, previewd.Page{})
	require.NoError(f.t, err)
	return found.Sessions
}

// Equal requests are one project, with a key or within the window, whichever of
// two gateways they come to.
func TestEqualRequestsMakeOneProject(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		gateways := []*gateway.Service{f.Service, f.another()}
		for name, req := range map[string]gateway.Request{"Key": as(ann, key), "Window": as(bob)} {
			var mu sync.Mutex
			ids, firsts := map[string]bool{}, 0
			var wg sync.WaitGroup
			for i := range 60 {
				wg.Go(func() {
					made, err := gateways[i%2].CreateProject(context.Background(), req, page())
					for code := previewd.ErrorCode(err); code == previewd.CodeKeyInFlight || code == previewd.CodeUnavailable; code = previewd.ErrorCode(err) {
						made, err = gateways[i%2].CreateProject(context.Background(), req, page()) // as it says
					}
					if err != nil || made.Project == nil {
						t.Error(name, err, made)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					ids[made.Project.ID] = true
					if made.Replayed == "" {
						firsts++
					}
				})
			}
			wg.Wait()
			require.Len(t, ids, 1, name)
			require.Equal(t, 1, firsts, name)
		}
		require.Equal(t, 2, f.inWorker())
	}, func(c *gateway.Config) { c.Window, c.Patience = time.Minute, time.Minute })
}

func TestReplayIsTheFirstAnswerToTheByte(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		first, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		f.build(previewd.Outcome{Kind: previewd.OutcomeCompleted})
		f.follow()
		again, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		require.Equal(t, previewd.ReplayedKey, again.Replayed)
		require.Equal(t, text(t, first), text(t, again), "also of what has changed since")

		_, err = f.CreateProject(t.Context(), as(ann, key), page(func(c *gateway.CreateProject) { c.Prompt += "!" }))
		require.Equal(t, previewd.CodeKeyReused, previewd.ErrorCode(err))
		_, err = f.CreateBuild(t.Context(), as(ann, key), gateway.CreateBuild{ProjectID: first.Project.ID})
		require.Equal(t, previewd.CodeKeyReused, previewd.ErrorCode(err), "a key is good for one operation")
		other, err := f.CreateProject(t.Context(), as(bob, key), page())
		require.NoError(t, err)
		require.Empty(t, other.Replayed, "another user's key is another key")
	})
}

func text(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	require.NoError(t, err)
	return string(raw)
}

// A worker that is away fails nothing: the request is kept, and carried out as
// soon as the worker is back.
func TestAwayWorkerFailsNothing(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) { w.before = away })
		made, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		require.Nil(t, made.Project)
		require.Equal(t, previewd.IntentPending, made.Intent.State)
		require.Equal(t, previewd.CodeUnavailable, made.Intent.LastError)
		require.Empty(t, f.sessions(ann), "nothing follows before the id is stored")
		again, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		require.Equal(t, made.Intent.ID, again.Intent.ID)

		f.faults.set(func(w *faultyWorker) { w.before = nil })
		f.Reconcile(t.Context())
		in, err := f.WaitIntent(t.Context(), ann, made.Intent.ID, 0)
		require.NoError(t, err)
		require.Equal(t, previewd.IntentConfirmed, in.State)
		require.Equal(t, 1, f.inWorker())
		again, err = f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		require.Equal(t, in.ProjectID, again.Project.ID)
	})
}

// An answer that is lost says nothing of what was done: the worker is asked again
// with the same key, by the reconciler or by the user's next try.
func TestLostAnswerIsAskedForAgain(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) { w.after = away })
		made, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		require.NotNil(t, made.Intent)
		require.Equal(t, 1, f.inWorker(), "the worker has made it")
		f.follow()
		_, err = f.FindIntent(t.Context(), bob, made.Intent.ID)
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
		f.faults.set(func(w *faultyWorker) { w.after = nil })
		f.Reconcile(t.Context())
		again, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		require.NotNil(t, again.Project)
		require.Equal(t, 1, f.inWorker())
		f.follow()
		events, err := f.Store.ListAppProjectEvents(t.Context(), again.Project.ID, 0, 10)
		require.NoError(t, err)
		require.Len(t, events, 2, "what came before the project was stored waited for it")
		require.Equal(t, int64(1), events[0].Seq)
	})
}

// A process that dies with an intent in its hands leaves it to the next request,
// or to the reconciler, as soon as its claim has ended.
func TestDeadProcessLeavesItsIntents(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		hold := make(chan struct{})
		f.faults.set(func(w *faultyWorker) {
			w.before = func() error { <-hold; return errAway }
		})
		dead := f.another(func(c *gateway.Config) { c.Claim = 9 * time.Second })
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = dead.CreateProject(context.Background(), as(ann, key), page())
		})
		testkit.Eventually(t, "the worker is asked", func() bool {
			f.faults.mu.Lock()
			defer f.faults.mu.Unlock()
			return f.faults.asked > 0
		})
		f.faults.set(func(w *faultyWorker) { w.before = nil })
		// The dead one cannot be stopped here, so its claim goes on: others wait.
		var claimed time.Time
		testkit.Eventually(t, "the claim is renewed", func() bool {
			open, err := f.Store.ListIntents(t.Context(), previewd.IntentPending, "~", 2)
			require.NoError(t, err)
			require.Len(t, open, 1)
			if claimed.IsZero() {
				claimed = open[0].ClaimUntil
			}
			return open[0].ClaimUntil.After(claimed)
		})
		waiting, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := f.CreateProject(waiting, as(ann, key), page())
		require.Error(t, err)
		require.Equal(t, 0, f.inWorker(), "one works on an intent at a time")
		close(hold)
		wg.Wait()
		made, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		if made.Project == nil { // postponed by the other: its time comes
			f.Reconcile(t.Context())
		}
		require.Equal(t, 1, f.inWorker())
	})
}

func TestRefusalsAreKeptWhenTheyDependOnWhatIsStored(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		bad := page(func(c *gateway.CreateProject) { c.TemplateFiles = previewd.Files{"../up": nil} })
		for range 2 {
			_, err := f.CreateProject(t.Context(), as(ann, key), bad)
			require.Equal(t, previewd.CodeInvalidPath, previewd.ErrorCode(err))
		}
		made, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err, "a request that could never do took no key")

		busy := gateway.CreateBuild{ProjectID: made.Project.ID, TemplateFiles: page().TemplateFiles, Policy: previewd.PolicyReject}
		var answers []string
		for range 2 {
			_, err := f.CreateBuild(t.Context(), as(ann, key+"-2"), busy)
			require.Equal(t, previewd.CodeBuildActive, previewd.ErrorCode(err))
			e := new(previewd.Error)
			require.ErrorAs(t, err, &e)
			answers = append(answers, e.ReferenceID+e.Message)
			f.build(previewd.Outcome{Kind: previewd.OutcomeCompleted})
			if len(answers) == 1 {
				f.create(bob)
			}
		}
		require.Equal(t, answers[0], answers[1], "the key has its answer")
		_, err = f.CreateBuild(t.Context(), as(ann, key+"-3"), busy)
		require.NoError(t, err, "a new attempt needs a new key")
	})
}

// A request that the worker refuses after its user was told to wait is refused
// for good: nobody looks for an intent that has vanished.
func TestLateRefusalIsTold(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) { w.before = away })
		bad := page(func(c *gateway.CreateProject) { c.TemplateFiles = previewd.Files{"../up": nil} })
		made, err := f.CreateProject(t.Context(), as(ann, key), bad)
		require.NoError(t, err)
		require.Equal(t, previewd.IntentPending, made.Intent.State)
		f.faults.set(func(w *faultyWorker) { w.before = nil })
		f.Reconcile(t.Context())
		in, err := f.WaitIntent(t.Context(), ann, made.Intent.ID, 0)
		require.NoError(t, err)
		require.Equal(t, previewd.IntentRejected, in.State)
		require.Equal(t, previewd.CodeInvalidPath, in.LastError)
		_, err = f.CreateProject(t.Context(), as(ann, key), bad)
		require.Equal(t, previewd.CodeInvalidPath, previewd.ErrorCode(err))
		e := new(previewd.Error)
		require.ErrorAs(t, err, &e)
		require.Equal(t, made.Intent.ReferenceID, e.ReferenceID)
	})
}

// Who takes a pending creation back and asks for the same at once gets a project.
func TestCreateAfterCancelIsNoDoubleClick(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) { w.before = away })
		first, err := f.CreateProject(t.Context(), as(ann), page())
		require.NoError(t, err)
		_, err = f.CancelIntent(t.Context(), as(ann), first.Intent.ID)
		require.NoError(t, err)
		f.faults.set(func(w *faultyWorker) { w.before = nil })
		f.Reconcile(t.Context())
		second, err := f.CreateProject(t.Context(), as(ann), page())
		require.NoError(t, err)
		require.NotNil(t, second.Project, "answered with intent %+v", second.Intent)
	})
}

// A 404 of a server that is no worker, as behind a load balancer that is set up
// wrong, fails no request.
func TestWrongRoleFailsNothing(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) {
			w.before = func() error {
				return &previewd.Error{Code: previewd.CodeNotFound, Message: "There is no such route; /docs lists them.", ReferenceID: "ref_x"}
			}
		})
		made, err := f.CreateProject(t.Context(), as(ann, key), page())
		f.faults.set(func(w *faultyWorker) { w.before = nil })
		require.NoError(t, err)
		require.NotNil(t, made.Intent)
	})
}

// Text that a database cannot hold, or not index, is refused.
func TestBadTextIsRefused(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		long := "" // and nothing that can be compressed
		for len(long) < 4000 {
			long += previewd.NewRequestID()
		}
		for _, template := range []string{"a\x00b", long} {
			_, err := f.CreateProject(t.Context(), as(ann, previewd.NewRequestID()), gateway.CreateProject{Template: template})
			require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err))
		}
		require.Zero(t, f.faults.asked, "before anything is stored")
		for _, id := range []string{"\x00", "\xff\xfe"} {
			_, err := f.FindProject(t.Context(), ann, id)
			require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
			_, err = f.WaitBuild(t.Context(), ann, id, 0)
			require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
			_, err = f.WaitIntent(t.Context(), ann, id, 0)
			require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
			_, err = f.CreateBuild(t.Context(), as(ann), gateway.CreateBuild{ProjectID: id})
			require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
		}
	})
}

// What waits for a worker that is full is bounded.
func TestPendingIsBounded(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) { w.before = away })
		for i := range 4 {
			_, err := f.CreateProject(t.Context(), as(ann, previewd.NewRequestID()), page())
			if i < 3 {
				require.NoError(t, err)
				continue
			}
			require.Equal(t, previewd.CodeQueueFull, previewd.ErrorCode(err))
		}
		_, err := f.CreateProject(t.Context(), as(bob, previewd.NewRequestID()), page())
		require.NoError(t, err, "another user's wait by themselves")
	}, func(c *gateway.Config) { c.Pending = 3 })
}

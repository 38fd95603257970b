package gateway_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// An odd answer, as of a proxy that changes it, is refused and ends nothing else.
func TestTerminalWithoutEnd(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.create(ann)
		f.follow()
		cfg := f.cfg
		cfg.Compare = time.Nanosecond
		cfg.Worker = noEnd{f.faults}
		s := gateway.New(cfg)
		require.NotPanics(t, func() { _ = s.CompareOnce(t.Context()) })
	})
}

type noEnd struct{ *faultyWorker }

func (w noEnd) FindBuild(ctx context.Context, id string, wait time.Duration) (*previewd.Build, error) {
	b, err := w.faultyWorker.FindBuild(ctx, id, wait)
	if err == nil {
		b.Status, b.FinishedAt = previewd.BuildCompleted, nil
	}
	return b, err
}

// Who deletes a project and asks for the same at once gets another one.
func TestCreateAfterDeleteIsNoDoubleClick(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		first, err := f.CreateProject(t.Context(), as(ann), page())
		require.NoError(t, err)
		_, err = f.DeleteProject(t.Context(), as(ann), first.Project.ID)
		require.NoError(t, err)
		second, err := f.CreateProject(t.Context(), as(ann), page())
		require.NoError(t, err)
		require.NotNil(t, second.Project)
		_, err = f.FindProject(t.Context(), ann, second.Project.ID)
		require.NoError(t, err, "what a create answers is there")
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

// What an attempt that our infrastructure has failed took costs nothing, also when
// the user cancels while the build waits for another.
func TestCancelAfterInfraFaultIsFree(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(ann)
		f.build(failed(previewd.FailureInfra)) // retrying: it waits again
		_, err := f.CancelBuild(t.Context(), as(ann), made.Build.ID)
		require.NoError(t, err)
		f.follow()
		s := f.sessions(ann)[0]
		require.Equal(t, previewd.BillingVoided, s.State, "reason %s, amount %d, entries %+v", s.Reason, s.AmountMicros, s.Entries)
	}, priced)
}

// A project that the worker has lost, as by an older backup, can be deleted: its
// session is voided and its build is in nobody's way.
func TestLostBuildFreesItsQuota(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(ann)
		f.follow()
		cfg := f.cfg
		cfg.Compare = time.Nanosecond
		cfg.Worker = forgetful{f.faults}
		s := gateway.New(cfg)
		require.NoError(t, s.CompareOnce(t.Context()))
		_, err := s.CancelBuild(t.Context(), as(ann), made.Build.ID)
		t.Log("cancel:", err)
		done, err := s.DeleteProject(t.Context(), as(ann), made.Project.ID)
		require.NoError(t, err)
		require.True(t, done)
		require.Equal(t, previewd.BillingVoided, f.sessions(ann)[0].State)
		_, err = s.CreateProject(t.Context(), as(ann, previewd.NewRequestID()), page())
		require.NoError(t, err)
	}, func(c *gateway.Config) { c.Quotas.Concurrent = 1 })
}

type forgetful struct{ *faultyWorker }

func (forgetful) FindBuild(_ context.Context, id string, _ time.Duration) (*previewd.Build, error) {
	return nil, previewd.NotFound("build", id)
}
func (forgetful) CancelBuild(_ context.Context, req previewd.CancelBuildRequest) (*previewd.Build, error) {
	return nil, previewd.NotFound("build", req.BuildID)
}
func (forgetful) DeleteProject(_ context.Context, req previewd.DeleteProjectRequest) error {
	return previewd.NotFound("project", req.ProjectID)
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

// A database that is busy for too long says nothing about the event that waits
// for it: it is applied later, not moved aside.
func TestBusyDatabaseBlamesNoEvent(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t).Database(t)
	f := setup(t, testkit.Engine{Config: func(testing.TB) store.Config { return store.Config{URL: url} }}, false)
	made := f.create(ann)
	// Its events come as if they had come before it was stored.
	require.NoError(t, f.Store.Tx(t.Context(), "x", func(tx *store.DB) error {
		return tx.ParkEvent(t.Context(), previewd.Event{
			Seq: 1, Type: previewd.EventBuildQueued, ProjectID: made.Project.ID, BuildID: made.Build.ID, At: time.Now(), Cursor: "1-1",
		}, tx.Now())
	}))
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	defer db.Close()
	other, err := db.Begin()
	require.NoError(t, err)
	_, err = other.Exec("UPDATE gateway_builds SET seq = seq WHERE id = $1", made.Build.ID)
	require.NoError(t, err)
	err = f.ApplyParked(t.Context())
	require.NoError(t, other.Rollback())
	require.Equal(t, previewd.CodeUnavailable, previewd.ErrorCode(err))
	require.Zero(t, f.Counts().Poison.Load())
	require.NoError(t, f.ApplyParked(t.Context()))
	b, err := f.Store.FindAnyAppBuild(t.Context(), made.Build.ID)
	require.NoError(t, err)
	require.EqualValues(t, 1, b.EventSeq)
}

// A parked event that cannot be applied is moved aside and keeps no others back.
func TestParkedPoisonKeepsNobodyBack(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) { w.after = away })
		bad, err := f.CreateProject(t.Context(), as(ann, previewd.NewRequestID()), page())
		require.NoError(t, err)
		good, err := f.CreateProject(t.Context(), as(bob, previewd.NewRequestID()), page())
		require.NoError(t, err)
		f.faults.set(func(w *faultyWorker) { w.after = nil })
		f.follow() // all parked
		badProject, _, err := f.theirs.FindProjectByKey(t.Context(), "gateway", "int_"+bad.Intent.ID)
		require.NoError(t, err)
		// An event of it that the rows refuse: a build with a number that is taken.
		require.NoError(t, f.Store.Tx(t.Context(), "x", func(tx *store.DB) error {
			return tx.ParkEvent(t.Context(), previewd.Event{
				Seq: 3, Type: "build.queued", ProjectID: badProject, BuildID: previewd.NewRowID(), At: time.Now(), Cursor: "1-99", Data: map[string]any{"seq": 1.0},
			}, tx.Now())
		}))
		f.Reconcile(t.Context())
		for range 10 {
			err = f.ApplyParked(t.Context())
		}
		t.Log("ApplyParked:", err)
		in, err := f.WaitIntent(t.Context(), bob, good.Intent.ID, 0)
		require.NoError(t, err)
		require.Equal(t, previewd.IntentConfirmed, in.State)
		events, err := f.Store.ListAppProjectEvents(t.Context(), in.ProjectID, 0, 10)
		require.NoError(t, err)
		require.Len(t, events, 2, "bob's events wait for ann's")
	})
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
		cfg := f.cfg
		looking, on := make(chan struct{}), make(chan struct{})
		cfg.Worker = slowLook{f.faults, looking, on}
		s := gateway.New(cfg)
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

// Text that a database cannot hold, or not index, is refused.
func TestBadTextIsRefused(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		check := func(what string, err error) {
			code := previewd.ErrorCode(err)
			if code == previewd.CodeInternal {
				t.Errorf("%s: %v", what, err)
			}
		}
		for name, template := range map[string]string{"NUL": "a\x00b", "Long": random4000()} {
			_, err := f.CreateProject(t.Context(), as(ann, previewd.NewRequestID()), gateway.CreateProject{Template: template})
			check("template "+name, err)
		}
		for _, id := range []string{"\x00", "\xff\xfe"} {
			_, err := f.FindProject(t.Context(), ann, id)
			check("project id", err)
			_, err = f.WaitBuild(t.Context(), ann, id, 0)
			check("build id", err)
			_, err = f.WaitIntent(t.Context(), ann, id, 0)
			check("intent id", err)
			_, err = f.CreateBuild(t.Context(), as(ann), gateway.CreateBuild{ProjectID: id})
			check("build of project id", err)
		}
	})
}

func random4000() string {
	var b strings.Builder
	for b.Len() < 4000 {
		b.WriteString(previewd.NewRequestID())
	}
	return b.String()
}

// A user is denied whatever the case in which the id was typed.
func TestDenyWhateverTheCase(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		require.NoError(t, f.Deny(t.Context(), as(bob), store.DeniedSubject{Kind: "user", Subject: strings.ToUpper(ann)}, "left"))
		denied, err := gateway.NewDenials(f.Store).Denied(t.Context(), ann, "")
		require.NoError(t, err)
		require.True(t, denied, "identity lowers Supabase's subjects; Deny keeps what was typed, and answers 204")
	})
}

// When an older backup of the worker was restored, its events have numbers that
// were applied already: an operator is told of the project.
func TestRestoredWorkerIsFollowed(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(ann)
		f.build(previewd.Outcome{Kind: previewd.OutcomeCompleted})
		f.follow() // 1 … 5 are applied
		next, err := f.CreateBuild(t.Context(), as(ann, key), gateway.CreateBuild{ProjectID: made.Project.ID, TemplateFiles: page().TemplateFiles})
		require.NoError(t, err)
		e := func(seq int64, kind previewd.EventType) previewd.Event {
			return previewd.Event{Seq: seq, Type: kind, ProjectID: made.Project.ID, BuildID: next.Build.ID, At: time.Now(), Cursor: fmt.Sprint("2-", seq), Data: map[string]any{"seq": 2.0, "version": 1.0}}
		}
		f.faults.set(func(w *faultyWorker) {
			w.events = func(p *previewd.EventPage) {
				p.Events, p.Next, p.Reset = []previewd.Event{e(3, "build.queued"), e(4, "build.building"), e(5, "build.completed")}, "2-5", true
			}
		})
		require.NoError(t, f.FollowOnce(t.Context(), 0))
		f.faults.set(func(w *faultyWorker) { w.events = nil })
		b, err := f.WaitBuild(t.Context(), ann, next.Build.ID, 0)
		require.NoError(t, err)
		p, err := f.Store.FindAnyAppProject(t.Context(), made.Project.ID)
		require.NoError(t, err)
		require.True(t, b.FinishedAt != nil || p.Attention != "", "neither applied nor shown to an operator: status %s", b.Status)
	})
}

// A project that was deleted at the worker while its intent was pending is not
// shown to its user as one that waits.
func TestDeletedWhilePending(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) { w.after = away })
		made, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		id, _, err := f.theirs.FindProjectByKey(t.Context(), "gateway", "int_"+made.Intent.ID)
		require.NoError(t, err)
		require.NoError(t, f.worker.DeleteProject(t.Context(), previewd.DeleteProjectRequest{ProjectID: id, Caller: previewd.Caller{Service: "operator"}}))
		f.follow() // parked, looked for, not found: forgotten
		f.faults.set(func(w *faultyWorker) { w.after = nil })
		f.Reconcile(t.Context())
		f.follow()
		in, err := f.WaitIntent(t.Context(), ann, made.Intent.ID, 0)
		require.NoError(t, err)
		p, err := f.FindProject(t.Context(), ann, id)
		if err == nil {
			t.Fatalf("intent %s; the user has project %s, %s, that nobody will ever change; session %s", in.State, p.ID, p.Status, f.sessions(ann)[0].State)
		}
	}, func(c *gateway.Config) { c.Parked = time.Nanosecond })
}

// A build whose last event was lost is corrected; of its last attempt nothing is
// known, so that costs nothing.
func TestCorrectionIsFair(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(ann)
		f.follow()
		cfg := f.cfg
		cfg.Compare = time.Nanosecond
		cfg.Worker = ended{f.faults}
		require.NoError(t, gateway.New(cfg).CompareOnce(t.Context()))
		b, err := f.Store.FindAnyAppBuild(t.Context(), made.Build.ID)
		require.NoError(t, err)
		require.Equal(t, previewd.ProjectDeployed, b.Status)
		require.Zero(t, f.sessions(ann)[0].AmountMicros)
	}, priced)
}

type ended struct{ *faultyWorker }

func (w ended) FindBuild(ctx context.Context, id string, wait time.Duration) (*previewd.Build, error) {
	b, err := w.faultyWorker.FindBuild(ctx, id, wait)
	if err == nil {
		at, first := time.Now().Add(-2*time.Minute), time.Now().Add(-time.Hour)
		b.Status, b.FinishedAt, b.StartedAt, b.Epoch, b.Version = previewd.BuildCompleted, &at, &first, 2, 1
	}
	return b, err
}

// An event of one project changes no build of another.
func TestEventOfAnothersBuild(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		anns, bobs := f.create(ann), f.create(bob)
		f.follow()
		f.deliver([]previewd.Event{{
			Seq: 3, Type: "build.canceled", ProjectID: anns.Project.ID, BuildID: bobs.Build.ID, At: time.Now(), Cursor: "1-99", Data: map[string]any{"seq": 1.0},
		}})
		b, err := f.WaitBuild(t.Context(), bob, bobs.Build.ID, 0)
		require.NoError(t, err)
		require.Equal(t, previewd.ProjectQueued, b.Status)
	})
}

// A project that was deleted at the worker is no lost one.
func TestDeletedIsNotLost(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(ann)
		f.follow()
		require.NoError(t, f.worker.DeleteProject(t.Context(), previewd.DeleteProjectRequest{ProjectID: made.Project.ID, Caller: previewd.Caller{Service: "ops"}}))
		cfg := f.cfg
		cfg.Compare = time.Nanosecond
		require.NoError(t, gateway.New(cfg).CompareOnce(t.Context()))
		f.follow()
		p, err := f.Store.FindAnyAppProject(t.Context(), made.Project.ID)
		require.NoError(t, err)
		require.Equal(t, "deleted", p.State)
		require.Empty(t, p.Attention)
	})
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

// A deletion that the worker cannot do keeps no others back.
func TestOneDeletionKeepsNoOthersBack(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		bad, good := f.create(ann), f.create(ann)
		cfg := f.cfg
		cfg.Worker = undeletable{f.faults, bad.Project.ID, &atomic.Bool{}}
		s := gateway.New(cfg)
		cfg.Worker.(undeletable).away.Store(true)
		for _, id := range []string{bad.Project.ID, good.Project.ID} {
			done, err := s.DeleteProject(t.Context(), as(ann), id)
			require.NoError(t, err)
			require.False(t, done)
		}
		cfg.Worker.(undeletable).away.Store(false) // back, but for one project
		for range 5 {
			_ = s.CompareOnce(t.Context())
		}
		p, err := f.Store.FindAnyAppProject(t.Context(), good.Project.ID)
		require.NoError(t, err)
		require.Equal(t, "deleted", p.State)
	})
}

type undeletable struct {
	*faultyWorker
	bad  string
	away *atomic.Bool
}

func (w undeletable) DeleteProject(ctx context.Context, req previewd.DeleteProjectRequest) error {
	if w.away.Load() || req.ProjectID == w.bad {
		return &previewd.Error{Code: previewd.CodeInternal, Message: "x"}
	}
	return w.faultyWorker.DeleteProject(ctx, req)
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

package gateway_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// feedOf returns all events of the worker's.
func (f *fixture) feedOf() []previewd.Event {
	f.t.Helper()
	f.follow()
	found, err := f.worker.ListEvents(f.t.Context(), previewd.EventFilter{Limit: 500})
	require.NoError(f.t, err)
	return found.Events
}

// ended makes a project with builds of every end, and returns it.
func (f *fixture) ended() *previewd.AppProject {
	f.t.Helper()
	made := f.create(ann)
	f.build(previewd.Outcome{Kind: previewd.OutcomeCompleted})
	next := func() *previewd.AppBuild {
		c, err := f.CreateBuild(f.t.Context(), as(ann, previewd.NewRequestID()),
			gateway.CreateBuild{ProjectID: made.Project.ID, TemplateFiles: page().TemplateFiles})
		require.NoError(f.t, err)
		return c.Build
	}
	next()
	f.build(failed(previewd.FailureUser))
	superseded := next()
	canceled := next() // supersedes the one before
	_ = superseded
	_, err := f.CancelBuild(f.t.Context(), as(ann), canceled.ID)
	require.NoError(f.t, err)
	next()
	for range 3 { // the infrastructure fails it for good
		f.build(failed(previewd.FailureInfra))
	}
	f.follow()
	return f.project(ann, made.Project.ID)
}

func failed(class previewd.FailureClass) previewd.Outcome {
	return previewd.Outcome{Kind: previewd.OutcomeFailed, Failure: &previewd.Failure{Class: class, Code: previewd.FailBundle, Message: "It does not build."}}
}

// The same events again, in any order and any number of times, change nothing:
// not a status, not the ledger, not an event.
func TestEventsApplyOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.ended()
		feed := f.feedOf()
		before := f.snapshot(p.ID)
		for range 3 {
			shuffled := slices.Concat(feed, feed)
			rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			f.deliver(shuffled)
			require.Equal(t, before, f.snapshot(p.ID))
		}
	}, priced)
}

func priced(c *gateway.Config) {
	c.Prices = previewd.Prices{BuildSecond: 1_000_000, StoredGiB: 5_000_000}
}

// deliver has the gateway apply events as if the feed had them next.
func (f *fixture) deliver(events []previewd.Event) {
	f.t.Helper()
	f.faults.set(func(w *faultyWorker) {
		w.events = func(p *previewd.EventPage) { p.Events, p.Next = events, "9-9" }
	})
	require.NoError(f.t, f.FollowOnce(f.t.Context(), 0))
	f.faults.set(func(w *faultyWorker) { w.events = nil })
}

// state is what a user sees of a project.
type state struct {
	Project  previewd.AppProject
	Builds   []previewd.AppBuild
	Events   []previewd.Event
	Sessions []previewd.BillingSession
	Balance  int64
}

func (f *fixture) snapshot(projectID string) string {
	f.t.Helper()
	p := f.project(ann, projectID)
	builds, err := f.ListBuilds(f.t.Context(), ann, projectID, previewd.Page{})
	require.NoError(f.t, err)
	events, err := f.Store.ListAppProjectEvents(f.t.Context(), projectID, 0, 500)
	require.NoError(f.t, err)
	billing, err := f.ListBilling(f.t.Context(), ann, previewd.Page{})
	require.NoError(f.t, err)
	return text(f.t.(*testing.T), state{*p, builds.Builds, events, billing.Sessions, billing.BalanceMicros})
}

func TestBillingFollowsHowBuildsEnd(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.ended()
		reasons := map[string]previewd.BillingState{}
		var sum int64
		for _, s := range f.sessions(ann) {
			reasons[s.Reason] = s.State
			sum += s.AmountMicros
			require.Equal(t, s.State == previewd.BillingSettled, len(s.Entries) > 0)
			for _, e := range s.Entries {
				require.Contains(t, e.Key, s.BuildID)
			}
		}
		require.Equal(t, map[string]previewd.BillingState{
			"deployed": previewd.BillingSettled, "failed_user": previewd.BillingSettled, "failed_infra": previewd.BillingVoided,
			"canceled_before_start": previewd.BillingVoided, "superseded": previewd.BillingVoided,
		}, reasons)
		found, err := f.ListBilling(t.Context(), ann, previewd.Page{})
		require.NoError(t, err)
		require.Equal(t, sum, found.BalanceMicros)
	}, priced)
}

// A status that nobody knows leaves the build as it was, and is counted.
func TestUnknownStatusLeavesTheBuildAsItWas(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(ann)
		f.follow()
		f.deliver([]previewd.Event{{
			Seq: 3, Type: "build.warp", ProjectID: made.Project.ID, BuildID: made.Build.ID, At: time.Now(), Cursor: "1-99", Data: map[string]any{"seq": 1.0},
		}})
		require.Equal(t, previewd.ProjectQueued, f.project(ann, made.Project.ID).Status)
		require.Equal(t, int64(1), f.Counts().UnknownStatus.Load())
	})
}

// Every status of the worker's is shown as the table says.
func TestStatusMap(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for _, status := range previewd.BuildStatuses() {
			made := f.create(ann)
			f.follow()
			data := map[string]any{"seq": 1.0}
			if status == previewd.BuildFailed {
				data["failure"] = map[string]any{"class": "user", "code": "bundle_error", "message": "no"}
			}
			f.deliver([]previewd.Event{{
				Seq: 3, Type: previewd.EventType("build." + string(status)), ProjectID: made.Project.ID, BuildID: made.Build.ID,
				At: time.Now().UTC(), Cursor: "1-99", Data: data,
			}})
			want, err := status.ProjectStatus()
			require.NoError(t, err)
			p := f.project(ann, made.Project.ID)
			require.Equal(t, want, p.Status, status)
			require.Equal(t, status == previewd.BuildCanceling, p.Canceling, status)
			require.Equal(t, status.Terminal(), p.Build.FinishedAt != nil, status)
			f.undo(made)
		}
	})
}

// undo takes back what the test has told of a build, for the promises that are
// checked at its end.
func (f *fixture) undo(made *previewd.AppCreation) {
	f.t.Helper()
	require.NoError(f.t, f.worker.DeleteProject(f.t.Context(), previewd.DeleteProjectRequest{
		ProjectID: made.Project.ID, Caller: previewd.Caller{Principal: "gateway", Service: "gateway"},
	}))
}

// An event that cannot be applied is moved aside, and those behind it are not
// kept waiting.
func TestPoisonIsMovedAside(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made, other := f.create(ann), f.create(bob)
		f.follow()
		f.build(previewd.Outcome{Kind: previewd.OutcomeCompleted})
		poison := previewd.Event{
			Seq: 3, Type: "build.queued", ProjectID: other.Project.ID, BuildID: previewd.NewRowID(), At: time.Now(), Cursor: "1-5",
			Data: map[string]any{"seq": 1.0}, // of another build
		}
		good := f.unapplied()
		f.deliver(append([]previewd.Event{poison}, good...))
		require.Equal(t, int64(1), f.Counts().Poison.Load())
		require.Equal(t, previewd.ProjectDeployed, f.project(ann, made.Project.ID).Status)
	})
}

// Of a project that an operator calls settled the events that were moved aside are
// tried again, and forgotten when a later one was applied.
func TestSettledPoisonIsTriedAgain(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(ann)
		f.follow()
		aside := func() int {
			list, err := f.Store.ListPoison(t.Context(), 10)
			require.NoError(t, err)
			p, err := f.Store.FindAnyAppProject(t.Context(), made.Project.ID)
			require.NoError(t, err)
			require.Equal(t, len(list) > 0, p.Attention != "")
			return len(list)
		}
		settle := func() {
			require.NoError(t, f.Settle(t.Context(), as(bob), made.Project.ID))
			require.Zero(t, aside())
			require.NoError(t, f.ApplyParked(t.Context()))
		}
		f.deliver([]previewd.Event{{
			Seq: 3, Type: "build.queued", ProjectID: made.Project.ID, BuildID: previewd.NewRowID(), At: time.Now(), Cursor: "1-5",
			Data: map[string]any{"seq": 1.0}, // of another build
		}})
		require.Equal(t, 1, aside())
		settle()
		require.Equal(t, 1, aside(), "it still cannot be applied")
		require.EqualValues(t, 2, f.Counts().Poison.Load())
		f.deliver([]previewd.Event{{Seq: 4, Type: "version.activated", ProjectID: made.Project.ID, At: time.Now(), Cursor: "1-6"}})
		settle()
		require.Zero(t, aside())
		require.EqualValues(t, 2, f.Counts().Poison.Load())
	})
}

// unapplied returns the events that the gateway has not applied yet.
func (f *fixture) unapplied() []previewd.Event {
	f.t.Helper()
	feed, err := f.Store.FindAppFeed(f.t.Context())
	require.NoError(f.t, err)
	f.placed()
	found, err := f.worker.ListEvents(f.t.Context(), previewd.EventFilter{After: feed.Cursor, Limit: 500})
	require.NoError(f.t, err)
	return found.Events
}

// Events of projects that others have made are none of the gateway's business.
func TestForeignEventsAreLeftAlone(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for _, k := range []string{"", key, "int_not-an-intent-of-this-one"} {
			_, err := f.worker.CreatePreview(t.Context(), previewd.CreatePreviewRequest{
				UserID: ann, TemplateFiles: page().TemplateFiles, IdempotencyKey: k, Prompt: k,
				Caller: previewd.Caller{Principal: "another", Service: "another"},
			})
			require.NoError(t, err)
		}
		f.follow() // one looks as if a gateway had asked for it: the worker is asked
		parked, poison, err := f.Store.CountParked(t.Context())
		require.NoError(t, err)
		require.Zero(t, poison)
		require.Zero(t, parked)
		require.Zero(t, f.Counts().Adopted.Load())
		found, err := f.ListProjects(t.Context(), ann, previewd.Page{})
		require.NoError(t, err)
		require.Empty(t, found.Projects)
	}, func(c *gateway.Config) { c.Parked = time.Nanosecond })
}

// A gateway whose database is older than its projects takes them up again.
func TestProjectsWithoutIntentAreAdopted(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		key := "int_" + previewd.NewRowID()
		p, err := f.worker.CreatePreview(t.Context(), previewd.CreatePreviewRequest{
			UserID: ann, Prompt: "a page", TemplateFiles: page().TemplateFiles, IdempotencyKey: key,
			Caller: previewd.Caller{Principal: "gateway", Service: "gateway"},
		})
		require.NoError(t, err)
		f.build(previewd.Outcome{Kind: previewd.OutcomeCompleted})
		f.follow()                                     // finds the project
		require.NoError(t, f.ApplyParked(t.Context())) // applies its events
		project := f.project(ann, p.ProjectID)
		require.Equal(t, previewd.ProjectDeployed, project.Status)
		require.Equal(t, int64(1), f.Counts().Adopted.Load())
		require.Equal(t, previewd.BillingSettled, f.sessions(ann)[0].State)
	})
}

// An entry's key names what it is for, so that the ledger can refuse it the
// second time, whoever posts it.
func TestEntriesArePostedOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(bob)
		f.build(previewd.Outcome{Kind: previewd.OutcomeCompleted})
		f.follow()
		require.Equal(t, previewd.ProjectDeployed, f.project(bob, made.Project.ID).Status)
		s := f.sessions(bob)[0]
		require.NotEmpty(t, s.Entries)
		for _, e := range s.Entries {
			require.Equal(t, "build:"+made.Build.ID+":epoch:1:meter:"+e.Meter, e.Key)
		}
		before, err := f.Store.FindBalance(t.Context(), "user:"+bob)
		require.NoError(t, err)
		err = f.Store.Tx(t.Context(), "again", func(tx *store.DB) error { return tx.CloseBilling(t.Context(), s) })
		require.Equal(t, previewd.CodeConflict, previewd.ErrorCode(err), "it is closed")
		after, err := f.Store.FindBalance(t.Context(), "user:"+bob)
		require.NoError(t, err)
		require.Equal(t, before, after)
	}, priced)
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
		require.NoError(t, f.ApplyParked(t.Context()))
		in, err := f.WaitIntent(t.Context(), bob, good.Intent.ID, 0)
		require.NoError(t, err)
		for _, id := range []string{badProject, in.ProjectID} {
			events, err := f.Store.ListAppProjectEvents(t.Context(), id, 0, 10)
			require.NoError(t, err)
			require.Len(t, events, 2, "what can be applied is")
		}
		aside, err := f.Store.ListPoison(t.Context(), 10)
		require.NoError(t, err)
		require.Len(t, aside, 1)
		require.EqualValues(t, 3, aside[0].Seq)
		require.EqualValues(t, 1, f.Counts().Poison.Load())
	})
}

// When an older backup of the worker was restored, its events have numbers that
// were applied already: an operator is told of the project.
func TestRestoredWorkerIsShownToAnOperator(t *testing.T) {
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
		p, err := f.Store.FindAnyAppProject(t.Context(), made.Project.ID)
		require.NoError(t, err)
		require.Contains(t, p.Attention, "another event 3", "the first that differs")
		require.EqualValues(t, 5, p.LastEventSeq)
		require.Equal(t, previewd.ProjectQueued, p.Status, "nothing of another log is applied")
		feed, err := f.Store.FindAppFeed(t.Context())
		require.NoError(t, err)
		require.Equal(t, "2-5", feed.Cursor, "it is followed")
	})
}

// A project that was deleted at the worker while its intent was pending is
// deleted here too, as soon as it is stored.
func TestDeletedWhilePending(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) { w.after = away })
		made, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		id, _, err := f.theirs.FindProjectByKey(t.Context(), "gateway", "int_"+made.Intent.ID)
		require.NoError(t, err)
		require.NoError(t, f.worker.DeleteProject(t.Context(), previewd.DeleteProjectRequest{ProjectID: id, Caller: previewd.Caller{Service: "operator"}}))
		f.follow() // parked, and looked for in vain
		f.faults.set(func(w *faultyWorker) { w.after = nil })
		f.Reconcile(t.Context())
		f.follow()
		in, err := f.WaitIntent(t.Context(), ann, made.Intent.ID, 0)
		require.NoError(t, err)
		require.Equal(t, previewd.IntentConfirmed, in.State)
		require.Equal(t, id, in.ProjectID)
		p, err := f.Store.FindAnyAppProject(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, "deleted", p.State)
		require.Equal(t, previewd.ProjectCanceled, p.Status)
		require.Equal(t, previewd.BillingVoided, f.sessions(ann)[0].State)
		parked, aside, err := f.Store.CountParked(t.Context())
		require.NoError(t, err)
		require.Zero(t, parked+aside)
	}, func(c *gateway.Config) { c.Parked = time.Nanosecond })
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

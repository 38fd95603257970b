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
)

// comparing returns a gateway that asks another worker, and compares each build
// each time.
func (f *fixture) comparing(w previewd.Worker) *gateway.Service {
	return f.another(func(c *gateway.Config) { c.Compare, c.Worker = time.Nanosecond, w })
}

// An answer that cannot be right, as of a proxy that changes it, ends nothing.
func TestTerminalWithoutEnd(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(ann)
		f.follow()
		s := f.comparing(noEnd{f.faults})
		require.ErrorContains(t, s.CompareOnce(t.Context()), "has no end")
		require.EqualValues(t, 1, s.Counts().BadAnswers.Load())
		require.Equal(t, previewd.ProjectQueued, f.project(ann, made.Project.ID).Status)
		require.Equal(t, previewd.BillingOpen, f.sessions(ann)[0].State)
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

// A project that the worker has lost, as by an older backup, can be deleted: its
// session is voided and its build is in nobody's way.
func TestLostBuildFreesItsQuota(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(ann)
		f.follow()
		s := f.comparing(forgetful{f.faults})
		require.NoError(t, s.CompareOnce(t.Context()))
		_, err := s.CancelBuild(t.Context(), as(ann), made.Build.ID)
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
		_, err = s.CreateProject(t.Context(), as(ann, previewd.NewRequestID()), page())
		require.Equal(t, previewd.CodeQuotaExceeded, previewd.ErrorCode(err), "at first sight it is not over")
		done, err := s.DeleteProject(t.Context(), as(ann), made.Project.ID)
		require.NoError(t, err)
		require.True(t, done)
		f.endedAsLost(made.Build.ID)
		_, err = s.CreateProject(t.Context(), as(ann, previewd.NewRequestID()), page())
		require.NoError(t, err)
	}, func(c *gateway.Config) { c.Quotas.Concurrent = 1 })
}

// A build that the worker does not know is shown to an operator, and is over when
// the worker does not know it the next time either.
func TestLostBuildEndsAtTheSecondLook(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(ann)
		f.follow()
		s := f.comparing(forgetful{f.faults})
		require.NoError(t, s.CompareOnce(t.Context()))
		p, err := f.Store.FindAnyAppProject(t.Context(), made.Project.ID)
		require.NoError(t, err)
		require.Contains(t, p.Attention, made.Build.ID)
		require.Equal(t, previewd.ProjectQueued, p.Status)
		require.NoError(t, s.CompareOnce(t.Context()))
		f.endedAsLost(made.Build.ID)
	})
}

func (f *fixture) endedAsLost(buildID string) {
	f.t.Helper()
	b, err := f.Store.FindAnyAppBuild(f.t.Context(), buildID)
	require.NoError(f.t, err)
	require.Equal(f.t, previewd.ProjectFailed, b.Status)
	require.Equal(f.t, previewd.FailWorkerLost, b.Failure.Code)
	require.Equal(f.t, previewd.BillingVoided, f.sessions(ann)[0].State)
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

// A build whose last event was lost is corrected; of its last attempt nothing is
// known, so that costs nothing.
func TestCorrectionIsFair(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(ann)
		f.follow()
		require.NoError(t, f.comparing(ended{f.faults}).CompareOnce(t.Context()))
		b, err := f.Store.FindAnyAppBuild(t.Context(), made.Build.ID)
		require.NoError(t, err)
		require.Equal(t, previewd.ProjectDeployed, b.Status)
		require.Equal(t, previewd.BillingSettled, f.sessions(ann)[0].State)
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

// A project that was deleted at the worker's is not lost, however late the event
// of that comes.
func TestDeletedIsNotLost(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made := f.create(ann)
		f.follow()
		f.undo(made) // the worker deletes it
		require.NotEmpty(t, f.unapplied())
		stored := func() *store.AppProject {
			p, err := f.Store.FindAnyAppProject(t.Context(), made.Project.ID)
			require.NoError(t, err)
			return p
		}
		require.NoError(t, f.comparing(f.faults).CompareOnce(t.Context()))
		require.Empty(t, stored().Attention)
		f.follow()
		require.Equal(t, "deleted", stored().State)
	})
}

// A deletion that the worker cannot do keeps no others back.
func TestOneDeletionKeepsNoOthersBack(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		bad, good := f.create(ann), f.create(ann)
		w := undeletable{f.faults, bad.Project.ID, &atomic.Bool{}}
		s := f.comparing(w)
		w.away.Store(true)
		for _, id := range []string{bad.Project.ID, good.Project.ID} {
			done, err := s.DeleteProject(t.Context(), as(ann), id)
			require.NoError(t, err)
			require.False(t, done)
		}
		w.away.Store(false) // back, but for one project
		require.Equal(t, previewd.CodeInternal, previewd.ErrorCode(s.CompareOnce(t.Context())))
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

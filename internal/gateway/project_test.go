package gateway_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/gateway"
)

func TestNames(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		named := func(user, name string) (string, error) {
			made, err := f.CreateProject(t.Context(), as(user, previewd.NewRequestID()), page(func(c *gateway.CreateProject) { c.Name = name }))
			if err != nil {
				return "", err
			}
			return made.Project.ID, nil
		}
		tea, err := named(ann, "  Tea   House ")
		require.NoError(t, err)
		require.Equal(t, "Tea House", f.project(ann, tea).Name)
		_, err = named(ann, "tea house")
		require.Equal(t, previewd.CodeNameTaken, previewd.ErrorCode(err))
		_, err = named(bob, "tea house")
		require.NoError(t, err, "names are each user's own")
		for _, bad := range []string{" ", "a\x00b", "a\u202eb", fmt.Sprintf("%081d", 1)} {
			_, err = named(ann, bad)
			require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err), "%q", bad)
		}
		var suggested []string
		for range 3 {
			suggested = append(suggested, f.create(ann).Project.Name)
		}
		require.Equal(t, []string{"A page about tea", "A page about tea 2", "A page about tea 3"}, suggested)

		_, err = f.RenameProject(t.Context(), as(ann), tea, "A PAGE about tea")
		require.Equal(t, previewd.CodeNameTaken, previewd.ErrorCode(err))
		p, err := f.RenameProject(t.Context(), as(ann), tea, "TEA house")
		require.NoError(t, err, "its own name in other letters")
		require.Equal(t, "TEA house", p.Name)
		_, err = f.RenameProject(t.Context(), as(bob), tea, "mine")
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
	})
}

func TestDeletion(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		made, err := f.CreateProject(t.Context(), as(ann, key), page(func(c *gateway.CreateProject) { c.Name = "Tea" }))
		require.NoError(t, err)
		_, err = f.DeleteProject(t.Context(), as(bob), made.Project.ID)
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
		done, err := f.DeleteProject(t.Context(), as(ann), made.Project.ID)
		require.NoError(t, err)
		require.True(t, done)
		_, err = f.FindProject(t.Context(), ann, made.Project.ID)
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
		_, err = f.WaitBuild(t.Context(), ann, made.Build.ID, 0)
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
		require.Equal(t, 0, f.inWorker())
		f.follow()
		require.Equal(t, "canceled_before_start", f.sessions(ann)[0].Reason)
		again, err := f.CreateProject(t.Context(), as(ann, previewd.NewRequestID()), page(func(c *gateway.CreateProject) { c.Name = "Tea" }))
		require.NoError(t, err, "the name is free again")
		require.NotEqual(t, made.Project.ID, again.Project.ID)
	})
}

func TestQuotas(t *testing.T) {
	bounds := map[string]previewd.Quotas{
		"PerDay": {BuildsPerDay: 2}, "AtOnce": {Concurrent: 2}, "Spend": {SpendCap: 120_000_000},
	}
	for name, quotas := range bounds {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, f *fixture) {
				f.create(ann)
				f.create(ann)
				f.create(bob)
				want := previewd.CodeQuotaExceeded
				if name == "Spend" {
					want = previewd.CodeSpendCapReached
				}
				var e *previewd.Error
				for range 2 {
					_, err := f.CreateProject(t.Context(), as(ann, key), page())
					require.Equal(t, want, previewd.ErrorCode(err))
					require.ErrorAs(t, err, &e)
				}
				require.Equal(t, previewd.ReplayedKey, e.Replayed, "the refusal is the key's answer")
				_, err := f.CreateProject(t.Context(), as(ann), page(func(c *gateway.CreateProject) { c.Prompt = "more" }))
				require.Equal(t, want, previewd.ErrorCode(err))
				require.ErrorAs(t, err, &e)
				if name != "AtOnce" {
					require.Positive(t, e.RetryAfter, "it says when the quota frees")
					return
				}
				f.build(previewd.Outcome{Kind: previewd.OutcomeCompleted})
				f.follow()
				_, err = f.CreateProject(t.Context(), as(ann), page(func(c *gateway.CreateProject) { c.Prompt = "more" }))
				require.NoError(t, err, "a refusal without a key is not kept")
			}, func(c *gateway.Config) {
				c.Quotas, c.Prices, c.Reserve = quotas, previewd.Prices{BuildSecond: 1_000_000}, time.Minute
			})
		})
	}
}

// What a user takes back is deleted when it turns out to have been made.
func TestCancelWhilePending(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for name, fault := range map[string]func(*faultyWorker){
			"NotMade": func(w *faultyWorker) { w.before = away },
			"Made":    func(w *faultyWorker) { w.after = away },
		} {
			f.faults.set(fault)
			made, err := f.CreateProject(t.Context(), as(ann, previewd.NewRequestID()), page())
			require.NoError(t, err)
			_, err = f.CancelIntent(t.Context(), as(bob), made.Intent.ID)
			require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err), name)
			in, err := f.CancelIntent(t.Context(), as(ann), made.Intent.ID)
			require.NoError(t, err, name)
			require.True(t, in.CancelRequested)
			f.faults.set(func(w *faultyWorker) { w.before, w.after = nil, nil })
			f.Reconcile(t.Context())
			in, err = f.WaitIntent(t.Context(), ann, made.Intent.ID, 0)
			require.NoError(t, err)
			require.Equal(t, previewd.IntentCanceled, in.State, name)
			require.Equal(t, 0, f.inWorker(), name)
		}
		f.follow()
		parked, _, err := f.Store.CountParked(t.Context())
		require.NoError(t, err)
		require.LessOrEqual(t, parked, 10)
		require.Empty(t, f.sessions(ann))
		made := f.create(ann)
		in, err := f.Store.FindIntentByWorkerKey(t.Context(), f.keyOf(made.Project.ID))
		require.NoError(t, err)
		_, err = f.CancelIntent(t.Context(), as(ann), in.ID)
		require.Equal(t, previewd.CodeConflict, previewd.ErrorCode(err), "it has become a project")
	})
}

func (f *fixture) keyOf(projectID string) string {
	f.t.Helper()
	p, err := f.faults.FindProject(f.t.Context(), projectID)
	require.NoError(f.t, err)
	require.NotEmpty(f.t, p.CreateKey)
	return p.CreateKey
}

// An intent that has been pending for too long is shown to an operator, is not
// asked for any more, and can be.
func TestOldIntentNeedsAttention(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.faults.set(func(w *faultyWorker) { w.before = away })
		old := f.another(func(c *gateway.Config) { c.Deadline = time.Nanosecond })
		made, err := old.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		require.Equal(t, previewd.IntentAttention, made.Intent.State)
		f.faults.set(func(w *faultyWorker) { w.before = nil })
		f.Reconcile(t.Context())
		require.Equal(t, 0, f.inWorker(), "it is not asked for by itself")
		_, err = f.RetryIntent(t.Context(), as(bob), made.Intent.ID)
		require.NoError(t, err)
		f.Reconcile(t.Context())
		again, err := f.CreateProject(t.Context(), as(ann, key), page())
		require.NoError(t, err)
		require.NotNil(t, again.Project)
	})
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

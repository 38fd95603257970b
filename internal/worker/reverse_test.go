package worker_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// claimed is a build whose runner has not said how it ended.
type claimed struct {
	*previewd.Claim
	seq int64
}

// reversal is a project of which older builds are finished after newer ones.
type reversal struct {
	*fixture
	dice    *rand.Rand
	project string
	open    []claimed
	shown   int64 // the build whose version is current; 0 is none
	late    int   // completions that came when a newer build had been claimed
}

// Whatever runners say last of older builds, what a project shows never goes
// back to one unless somebody asks for it.
//
// One build of a project runs at a time and only the newest waits, so an older
// one can come last only when its runner has been cut off: its lease has run
// out, or it was to be canceled.
func TestReverseOrderNeverRegresses(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db, unlimited)
		dice, began := random(t, "reversals", *reversals), time.Now()
		late, versions := 0, 0
		for range *reversals {
			r := &reversal{fixture: f, dice: dice, project: f.create().ProjectID}
			r.run()
			late += r.late
			versions += len(f.versions(r.project))
			r.replayPointers()
		}
		require.NotZero(t, late)
		t.Logf("%s: %d projects, %d versions, %d completions of builds that were not the newest any more, 0 regressions",
			time.Since(began).Round(time.Second), *reversals, versions, late)
	})
}

func (r *reversal) run() {
	r.t.Helper()
	ctx := r.t.Context()
	r.claimNext()
	for range 2 + r.dice.IntN(4) {
		policy := []previewd.BuildPolicy{previewd.PolicySupersede, previewd.PolicyQueue}[r.dice.IntN(2)]
		_, err := r.CreateBuild(ctx, previewd.CreateBuildRequest{
			ProjectID: r.project, Policy: policy, TemplateFiles: previewd.Files{"index.html": []byte("again")}, Caller: caller,
		})
		require.NoError(r.t, err)
		switch r.dice.IntN(3) {
		case 0: // the older one's runner is given up
			require.NoError(r.t, r.Recover(ctx, "runner-1"))
		case 1: // it finishes first, as it should
			r.complete(r.open[len(r.open)-1])
		default: // it says that it stops: it may be done or may be canceled
			_, err := r.FinishBuild(ctx, r.open[len(r.open)-1].Lease, previewd.Outcome{Kind: previewd.OutcomeReleased})
			require.NoError(r.t, err)
		}
		r.check()
		if r.dice.IntN(3) == 0 {
			r.activateAny()
		}
		r.claimNext()
	}
	for _, c := range slices.Backward(r.open) {
		r.complete(c)
		r.check()
		if r.dice.IntN(4) == 0 {
			r.activateAny()
		}
	}
}

func (r *reversal) claimNext() {
	r.t.Helper()
	c, err := r.ClaimBuild(r.t.Context(), "runner-1", 0)
	require.NoError(r.t, err)
	require.NotNil(r.t, c)
	require.Equal(r.t, r.project, c.ProjectID)
	b, err := r.FindBuild(r.t.Context(), c.BuildID, 0)
	require.NoError(r.t, err)
	r.open = append(r.open, claimed{c, b.Seq})
}

// complete says that a build is done. Of one that has been cut off it must not
// be believed.
func (r *reversal) complete(c claimed) {
	r.t.Helper()
	newest := r.open[len(r.open)-1].seq
	was := r.status(c.BuildID)
	status, err := r.finish(c.Claim)
	switch code := previewd.ErrorCode(err); {
	case code == previewd.CodeBuildCanceling:
		_, err := r.FinishBuild(r.t.Context(), c.Lease, previewd.Outcome{Kind: previewd.OutcomeCanceled})
		require.NoError(r.t, err)
	case c.seq < newest:
		r.late++
		require.True(r.t, was.Terminal(), "an older build was %s", was)
		require.True(r.t, err == nil && status == was || code == previewd.CodeLeaseLost || code == previewd.CodeBuildFinished, "%s: %v", status, err)
	default:
		require.NoError(r.t, err)
	}
}

// check looks at what the project shows. A newer build may have moved it on.
func (r *reversal) check() {
	r.t.Helper()
	now := r.current()
	require.GreaterOrEqual(r.t, now, r.shown, "the project shows an older build")
	r.shown = now
}

func (r *reversal) current() int64 {
	r.t.Helper()
	for _, v := range r.versions(r.project) {
		if v.Current {
			return v.BuildSeq
		}
	}
	return 0
}

// activateAny shows any version, which may be an older one: then it stays until
// the newest is activated.
func (r *reversal) activateAny() {
	r.t.Helper()
	list := r.versions(r.project)
	if len(list) == 0 {
		return
	}
	v, err := r.ActivateVersion(r.t.Context(), previewd.ActivateVersionRequest{
		ProjectID: r.project, Number: list[r.dice.IntN(len(list))].Number, Caller: caller,
	})
	require.NoError(r.t, err)
	require.Equal(r.t, v.BuildSeq, r.current())
	r.shown = v.BuildSeq
}

// replayPointers asks the store itself, below all that keeps builds in order, to
// show each version again from the newest to the oldest: only a newer one may.
func (r *reversal) replayPointers() {
	r.t.Helper()
	ctx := r.t.Context()
	list := r.versions(r.project)
	if len(list) == 0 {
		return
	}
	newest := list[0]
	_, err := r.ActivateVersion(ctx, previewd.ActivateVersionRequest{ProjectID: r.project, Number: newest.Number, Caller: caller})
	require.NoError(r.t, err)
	for _, v := range list {
		err := r.db.Tx(ctx, "test", func(tx *store.DB) error {
			moved, err := tx.AdvanceVersion(ctx, r.project, v.ID, v.BuildSeq)
			require.False(r.t, moved, "back to build %d from %d", v.BuildSeq, newest.BuildSeq)
			return err
		})
		require.NoError(r.t, err)
	}
	require.Equal(r.t, newest.BuildSeq, r.current())
}

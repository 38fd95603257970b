package previewd_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

// What can break.
const (
	duplicate   = "two projects"
	mixedUp     = "a key answers another request"
	orphan      = "a project of which the user was told that it was refused"
	ghost       = "a project that the worker does not have"
	unknownBill = "billed before it was known"
	unsettled   = "a settled intent was changed"
	billedTwice = "billed twice"
)

// wrongState names what a state breaks.
func (m creationModel) wrongState(c creation, found func(string)) {
	if c.projects > 1 {
		found(duplicate)
	}
	if stored := c.storedKey(); stored != nil {
		for _, other := range []previewd.KeyDecision{
			previewd.DecideKey(stored, modelOperation, "other files"),
			previewd.DecideKey(stored, "POST /v1/projects/{projectId}/builds", modelFingerprint),
		} {
			if other != previewd.KeyReused {
				found(mixedUp)
			}
		}
	}
	if c.intent == intentRejected && c.projects > 0 {
		found(orphan)
	}
	if c.recorded > c.projects || c.intent == intentConfirmed && c.recorded == 0 {
		found(ghost)
	}
	if c.bills > 0 && c.recorded == 0 {
		found(unknownBill)
	}
	if c.bills > 1 {
		found(billedTwice)
	}
}

// wrongStep names what a step breaks.
func (m creationModel) wrongStep(c, next creation, found func(string)) {
	settled := c.intent == intentConfirmed || c.intent == intentRejected
	if settled && next.intent != c.intent || c.recorded != 0 && next.recorded != c.recorded {
		found(unsettled)
	}
}

// settled reports whether everybody knows the same: there is no project and
// nobody waits for one, or the gateway has it and bills it.
func (c creation) settled() bool {
	if c.projects == 0 {
		return c.intent != intentPending
	}
	return c.recorded != 0 && c.bills > 0
}

func (m creationModel) require(t *testing.T, want result) {
	t.Helper()
	var broken findings[creation]
	g := explore(creation{}, func(c creation, to walker[creation]) {
		m.steps(c, func(step string, next creation, fair bool) {
			m.wrongStep(c, next, func(name string) { broken.add(name, finding[creation]{c, step}) })
			to(step, next, fair)
		})
	})
	for _, c := range g.states {
		m.wrongState(c, func(name string) { broken.add(name, finding[creation]{at: c}) })
	}
	requireResult(t, want, g, broken, g.stuck(creation.settled))
}

// The protocol makes one project or none, and whatever is lost, repeated or
// killed on the way, the reconciler brings both sides to the same end.
func TestCreationModelHolds(t *testing.T) {
	t.Parallel()
	m := creationModel{decisions: map[previewd.KeyDecision]bool{}}
	m.require(t, result{states: 373})
	require.Equal(t, map[previewd.KeyDecision]bool{
		previewd.KeyExecute: true, previewd.KeyReplay: true, previewd.KeyResource: true,
	}, m.decisions, "the model meets every decision on a key that its own request can get")
}

// Without any one of its parts the protocol breaks, and the model sees it.
func TestCreationModelSeesEveryPart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		model creationModel
		want  result
	}{
		"Intent":       {creationModel{noIntent: true}, result{states: 132, stuck: 8}},
		"Dedup":        {creationModel{noDedup: true}, result{2433, 692, map[string]int{duplicate: 1524, orphan: 656}}},
		"Reconciler":   {creationModel{noReconciler: true}, result{states: 85, stuck: 12}},
		"KeyKept":      {creationModel{keyExpires: true}, result{3729, 1056, map[string]int{duplicate: 2286, orphan: 860}}},
		"KeyFirst":     {creationModel{keyLater: true}, result{1021, 336, map[string]int{duplicate: 408, orphan: 176}}},
		"Patience":     {creationModel{timeoutFails: true}, result{485, 91, map[string]int{orphan: 88}}},
		"Rejection":    {creationModel{rejectionIsLost: true}, result{555, 149, map[string]int{orphan: 140}}},
		"BillWithIt":   {creationModel{billsLater: true}, result{states: 569, stuck: 4}},
		"BillOnlyOnce": {creationModel{billsLater: true, billsTwice: true}, result{605, 4, map[string]int{billedTwice: 36}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.model.decisions = map[previewd.KeyDecision]bool{}
			test.model.require(t, test.want)
			require.True(t, len(test.want.broken) > 0 || test.want.stuck > 0, "a variant that breaks nothing proves nothing")
		})
	}
}

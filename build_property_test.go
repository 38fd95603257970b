package previewd_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/previewd/previewd"
)

// edge is a transition and what caused it.
type edge struct {
	from previewd.BuildStatus
	kind previewd.TriggerKind
	to   previewd.BuildStatus
}

// rule is one legal transition and when it may be taken. A trigger that no
// rule covers is refused. This is the specification; Apply is the program.
type rule struct {
	edge
	when func(s previewd.BuildState, t previewd.Trigger) bool
}

var rules = []rule{
	{edge{previewd.BuildQueued, previewd.TriggerClaim, previewd.BuildBuilding}, isDue},
	{edge{previewd.BuildQueued, previewd.TriggerCancel, previewd.BuildCanceled}, asksUser},
	{edge{previewd.BuildQueued, previewd.TriggerCancel, previewd.BuildSuperseded}, not(asksUser)},
	{edge{previewd.BuildQueued, previewd.TriggerQueueTimeout, previewd.BuildFailed}, always},

	{edge{previewd.BuildBuilding, previewd.TriggerHeartbeat, previewd.BuildBuilding}, holds},
	{edge{previewd.BuildBuilding, previewd.TriggerComplete, previewd.BuildCompleted}, holds},
	{edge{previewd.BuildBuilding, previewd.TriggerFail, previewd.BuildFailed}, both(holds, not(retries))},
	{edge{previewd.BuildBuilding, previewd.TriggerFail, previewd.BuildQueued}, both(holds, both(retries, not(isOutrun)))},
	{edge{previewd.BuildBuilding, previewd.TriggerFail, previewd.BuildSuperseded}, both(holds, both(retries, isOutrun))},
	{edge{previewd.BuildBuilding, previewd.TriggerRelease, previewd.BuildQueued}, both(holds, not(isOutrun))},
	{edge{previewd.BuildBuilding, previewd.TriggerRelease, previewd.BuildSuperseded}, both(holds, isOutrun)},
	{edge{previewd.BuildBuilding, previewd.TriggerCancel, previewd.BuildCanceling}, always},
	{edge{previewd.BuildBuilding, previewd.TriggerLeaseExpired, previewd.BuildFailed}, both(leaseOut, not(hasAttempts))},
	{edge{previewd.BuildBuilding, previewd.TriggerLeaseExpired, previewd.BuildQueued}, both(leaseOut, both(hasAttempts, not(isOutrun)))},
	{edge{previewd.BuildBuilding, previewd.TriggerLeaseExpired, previewd.BuildSuperseded}, both(leaseOut, both(hasAttempts, isOutrun))},

	{edge{previewd.BuildCanceling, previewd.TriggerHeartbeat, previewd.BuildCanceling}, holds},
	{edge{previewd.BuildCanceling, previewd.TriggerCancel, previewd.BuildCanceling}, always},
	{edge{previewd.BuildCanceling, previewd.TriggerAckCancel, previewd.BuildCanceled}, both(holds, byUser)},
	{edge{previewd.BuildCanceling, previewd.TriggerAckCancel, previewd.BuildSuperseded}, both(holds, not(byUser))},
	{edge{previewd.BuildCanceling, previewd.TriggerRelease, previewd.BuildCanceled}, both(holds, byUser)},
	{edge{previewd.BuildCanceling, previewd.TriggerRelease, previewd.BuildSuperseded}, both(holds, not(byUser))},
	{edge{previewd.BuildCanceling, previewd.TriggerFail, previewd.BuildCanceled}, both(holds, byUser)},
	{edge{previewd.BuildCanceling, previewd.TriggerFail, previewd.BuildSuperseded}, both(holds, not(byUser))},
	{edge{previewd.BuildCanceling, previewd.TriggerLeaseExpired, previewd.BuildCanceled}, both(overdue, byUser)},
	{edge{previewd.BuildCanceling, previewd.TriggerLeaseExpired, previewd.BuildSuperseded}, both(overdue, not(byUser))},
}

func legalEdges() []edge {
	var list []edge
	for _, r := range rules {
		list = append(list, r.edge)
	}
	return list
}

type condition = func(s previewd.BuildState, t previewd.Trigger) bool

func always(previewd.BuildState, previewd.Trigger) bool    { return true }
func isDue(s previewd.BuildState, t previewd.Trigger) bool { return !t.Now.Before(s.RunnableAt) }
func holds(s previewd.BuildState, t previewd.Trigger) bool { return t.Epoch == s.Epoch }
func asksUser(_ previewd.BuildState, t previewd.Trigger) bool {
	return t.Reason != previewd.CancelSuperseded
}
func byUser(s previewd.BuildState, _ previewd.Trigger) bool {
	return s.CancelReason != previewd.CancelSuperseded
}
func isOutrun(_ previewd.BuildState, t previewd.Trigger) bool { return t.Newer }
func leaseOut(s previewd.BuildState, t previewd.Trigger) bool { return t.Now.After(s.LeaseUntil) }

func hasAttempts(s previewd.BuildState, _ previewd.Trigger) bool { return s.Attempt < s.MaxAttempts }

func retries(s previewd.BuildState, t previewd.Trigger) bool {
	return t.Class.Retryable() && hasAttempts(s, t)
}

func overdue(s previewd.BuildState, t previewd.Trigger) bool {
	return leaseOut(s, t) || t.Now.After(s.CancelDeadline)
}

func both(a, b condition) condition {
	return func(s previewd.BuildState, t previewd.Trigger) bool { return a(s, t) && b(s, t) }
}

func not(a condition) condition {
	return func(s previewd.BuildState, t previewd.Trigger) bool { return !a(s, t) }
}

// cancelReasons are all of them; a user cancels, and deletes.
var cancelReasons = []previewd.CancelReason{previewd.CancelUser, previewd.CancelSuperseded, previewd.CancelDeleted}

var failureClasses = []previewd.FailureClass{
	previewd.FailureUser, previewd.FailureTimeout, previewd.FailureInfra, previewd.FailureWorkerLost, previewd.FailureQueueTimeout,
}

// drawTime draws moments close enough to each other that they often meet:
// deadlines go wrong where they are equal.
func drawTime(t *rapid.T, label string) time.Time {
	return epoch0.Add(time.Duration(rapid.IntRange(0, 4).Draw(t, label)) * time.Second)
}

// drawState draws a state of a status as the database might hold it.
func drawState(t *rapid.T, status previewd.BuildStatus) previewd.BuildState {
	s := previewd.BuildState{
		Status: status, MaxAttempts: rapid.IntRange(1, 4).Draw(t, "maxAttempts"), RunnableAt: drawTime(t, "runnableAt"),
	}
	switch status {
	case previewd.BuildQueued, previewd.BuildSuperseded, previewd.BuildCanceled, previewd.BuildFailed:
		s.Attempt = rapid.IntRange(0, s.MaxAttempts-1).Draw(t, "attempt")
	default:
		s.Attempt = rapid.IntRange(1, s.MaxAttempts).Draw(t, "attempt")
	}
	s.Epoch = int64(s.Attempt + rapid.IntRange(0, 3).Draw(t, "releases"))
	switch status {
	case previewd.BuildBuilding:
		s.LeaseUntil = drawTime(t, "leaseUntil")
	case previewd.BuildCanceling:
		s.LeaseUntil, s.CancelDeadline = drawTime(t, "leaseUntil"), drawTime(t, "cancelDeadline")
		s.CancelReason = rapid.SampledFrom(cancelReasons).Draw(t, "reason")
	case previewd.BuildFailed:
		s.FailureClass = rapid.SampledFrom(failureClasses).Draw(t, "class")
	case previewd.BuildCanceled:
		s.CancelReason = rapid.SampledFrom([]previewd.CancelReason{previewd.CancelUser, previewd.CancelDeleted}).Draw(t, "reason")
	case previewd.BuildSuperseded:
		s.CancelReason = previewd.CancelSuperseded
	}
	return s
}

// drawTrigger draws a trigger from a runner of this, an earlier or a later epoch.
func drawTrigger(t *rapid.T, kind previewd.TriggerKind, s previewd.BuildState, now time.Time) previewd.Trigger {
	return previewd.Trigger{
		Kind: kind, Now: now,
		Epoch:  s.Epoch + rapid.SampledFrom([]int64{0, 0, 0, -1, 1}).Draw(t, "epoch"),
		Class:  rapid.SampledFrom(failureClasses).Draw(t, "class"),
		Reason: rapid.SampledFrom(cancelReasons).Draw(t, "reason"),
		Newer:  rapid.Bool().Draw(t, "newer"),
		Lease:  3 * time.Second, Grace: 2 * time.Second, Delay: time.Second,
	}
}

// requireLegal checks what holds of every state by itself.
func requireLegal(t require.TestingT, s previewd.BuildState) {
	in := func(list ...previewd.BuildStatus) bool { return slices.Contains(list, s.Status) }
	running := in(previewd.BuildBuilding, previewd.BuildCanceling)
	require.Equal(t, running, !s.LeaseUntil.IsZero(), "a lease if and only if a runner has it: %+v", s)
	require.Equal(t, in(previewd.BuildCanceling), !s.CancelDeadline.IsZero(), "a deadline if and only if canceling: %+v", s)
	require.Equal(t, in(previewd.BuildCanceling, previewd.BuildCanceled, previewd.BuildSuperseded), s.CancelReason != "",
		"a reason if and only if canceled: %+v", s)
	require.Equal(t, in(previewd.BuildFailed), s.FailureClass != "", "a class if and only if failed: %+v", s)
	require.False(t, in(previewd.BuildCanceled) && s.CancelReason == previewd.CancelSuperseded, "%+v", s)
	require.False(t, in(previewd.BuildSuperseded) && s.CancelReason != previewd.CancelSuperseded, "%+v", s)
	require.GreaterOrEqual(t, s.Attempt, 0)
	require.LessOrEqual(t, s.Attempt, s.MaxAttempts)
	require.LessOrEqual(t, int64(s.Attempt), s.Epoch, "every attempt was a claim")
	require.False(t, in(previewd.BuildQueued) && s.Attempt == s.MaxAttempts, "what waits has an attempt left: %+v", s)
	require.False(t, running && s.Attempt == 0, "what runs has begun: %+v", s)
}

// requireStep checks what holds of every step, refused or not.
func requireStep(t require.TestingT, s, next previewd.BuildState, err error) {
	requireLegal(t, next)
	if err != nil {
		require.Equal(t, s, next, "a refused trigger changes nothing")
	}
	require.GreaterOrEqual(t, next.Epoch, s.Epoch, "epochs never go back")
	require.Equal(t, s.MaxAttempts, next.MaxAttempts)
	if s.Status.Terminal() {
		require.Equal(t, s, next, "terminal states absorb")
	}
	if s.CancelReason != "" {
		require.Equal(t, s.CancelReason, next.CancelReason, "the first reason stands")
		require.NotEqual(t, previewd.BuildCompleted, next.Status, "cancel beats what has not committed")
	}
	if s.Status == previewd.BuildCanceling && next.Status == previewd.BuildCanceling {
		require.Equal(t, s.CancelDeadline, next.CancelDeadline, "the first deadline stands")
	}
}

// requireEffects checks what a trigger that was obeyed leaves of it in the state.
func requireEffects(t require.TestingT, s previewd.BuildState, trigger previewd.Trigger, next previewd.BuildState) {
	epochs, attempts := int64(0), 0
	switch {
	case trigger.Kind == previewd.TriggerClaim:
		epochs, attempts = 1, 1
	case trigger.Kind == previewd.TriggerRelease && s.Status == previewd.BuildBuilding:
		attempts = -1 // stopping is nobody's failure
	case trigger.Kind == previewd.TriggerLeaseExpired && s.Status == previewd.BuildCanceling:
		epochs = 1 // whoever still works on it is fenced
	}
	require.Equal(t, s.Epoch+epochs, next.Epoch, trigger.Kind)
	require.Equal(t, s.Attempt+attempts, next.Attempt, trigger.Kind)
	if trigger.Kind == previewd.TriggerClaim || trigger.Kind == previewd.TriggerHeartbeat {
		require.Equal(t, trigger.Now.Add(trigger.Lease), next.LeaseUntil)
	}
	if s.Status == previewd.BuildBuilding && next.Status == previewd.BuildCanceling {
		require.Equal(t, trigger.Now.Add(trigger.Grace), next.CancelDeadline)
		require.Equal(t, s.LeaseUntil, next.LeaseUntil, "the runner holds the build until it has stopped")
	}
	switch {
	case next.Status == previewd.BuildQueued && trigger.Kind == previewd.TriggerRelease:
		require.Equal(t, trigger.Now, next.RunnableAt)
	case next.Status == previewd.BuildQueued:
		require.Equal(t, trigger.Now.Add(trigger.Delay), next.RunnableAt, "a retry waits")
	}
	if trigger.Kind == previewd.TriggerFail && next.Status == previewd.BuildFailed {
		require.Equal(t, trigger.Class, next.FailureClass)
	}
}

// refusal is the code with which a trigger is refused that no rule covers. The
// caller tells a runner by it whether to drop the build, to stop or to go on.
func refusal(s previewd.BuildState, t previewd.Trigger) previewd.Code {
	switch t.Kind {
	case previewd.TriggerHeartbeat, previewd.TriggerComplete, previewd.TriggerFail, previewd.TriggerRelease, previewd.TriggerAckCancel:
		if t.Epoch != s.Epoch || s.Status == previewd.BuildQueued {
			return previewd.CodeLeaseLost
		}
	}
	switch {
	case s.Status.Terminal():
		return previewd.CodeBuildFinished
	case s.Status == previewd.BuildCanceling && t.Kind == previewd.TriggerComplete:
		return previewd.CodeBuildCanceling
	}
	return previewd.CodeConflict
}

// Over all pairs of statuses exactly the rules' transitions succeed, whatever
// the rest of the state and of the trigger.
func TestApplyFollowsTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		for _, status := range previewd.BuildStatuses() {
			for _, kind := range previewd.TriggerKinds() {
				s := drawState(t, status)
				requireLegal(t, s)
				trigger := drawTrigger(t, kind, s, drawTime(t, "now"))
				next, err := s.Apply(trigger)
				requireStep(t, s, next, err)
				i := slices.IndexFunc(rules, func(r rule) bool {
					return r.from == status && r.kind == kind && r.when(s, trigger)
				})
				if i < 0 {
					require.Equal(t, refusal(s, trigger), previewd.ErrorCode(err), "%s while %s", kind, status)
					continue
				}
				require.NoError(t, err, "%s while %s", kind, status)
				require.Equal(t, rules[i].to, next.Status, "%s while %s", kind, status)
				requireEffects(t, s, trigger, next)
			}
		}
	})
}

// Whatever happens to a build, in whatever order, its life stays a legal one.
func TestApplyKeepsEveryLifeLegal(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := epoch0
		s := previewd.BuildState{Status: previewd.BuildQueued, MaxAttempts: 3, RunnableAt: now}
		claims, canceling := int64(0), false
		actions := map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				requireLegal(t, s)
				require.False(t, canceling && s.Status == previewd.BuildCompleted, "a completed build was never being canceled")
				require.Contains(t, []int64{claims, claims + 1}, s.Epoch, "a claim raises the epoch, and so may the end of a cancel")
			},
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 4).Draw(t, "seconds")) * time.Second)
			},
		}
		for _, kind := range previewd.TriggerKinds() {
			actions[string(kind)] = func(t *rapid.T) {
				next, err := s.Apply(drawTrigger(t, kind, s, now))
				requireStep(t, s, next, err)
				if err == nil && kind == previewd.TriggerClaim {
					claims++
				}
				s = next
				canceling = canceling || s.Status == previewd.BuildCanceling
			}
		}
		t.Repeat(actions)
	})
}

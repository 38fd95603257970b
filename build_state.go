package previewd

import (
	"fmt"
	"time"

	"github.com/previewd/previewd/internal/fault"
)

// CancelReason says who ended a build before its end.
type CancelReason string

// The reasons for a cancel.
const (
	CancelUser       CancelReason = "user"
	CancelSuperseded CancelReason = "superseded"
	CancelDeleted    CancelReason = "deleted" // its project was deleted
)

// BuildState is the part of a build that its life turns on. A claim raises
// Epoch; a runner that names another epoch has lost the build.
type BuildState struct {
	Status         BuildStatus
	Epoch          int64
	Attempt        int
	MaxAttempts    int
	RunnableAt     time.Time // not claimed earlier: backoff between attempts
	LeaseUntil     time.Time // zero unless a runner has the build
	CancelReason   CancelReason
	CancelDeadline time.Time // zero unless canceling
	FailureClass   FailureClass
}

// TriggerKind names what can happen to a build.
type TriggerKind string

// The triggers. Those of a runner name its epoch.
const (
	TriggerClaim        TriggerKind = "claim"         // a runner takes it
	TriggerHeartbeat    TriggerKind = "heartbeat"     // its runner renews the lease
	TriggerComplete     TriggerKind = "complete"      // its runner has stored the files
	TriggerFail         TriggerKind = "fail"          // its runner reports a failure
	TriggerRelease      TriggerKind = "release"       // its runner stops and gives it back
	TriggerAckCancel    TriggerKind = "ack-cancel"    // its runner has killed the process tree
	TriggerCancel       TriggerKind = "cancel"        // somebody, or a newer build, wants it gone
	TriggerLeaseExpired TriggerKind = "lease-expired" // the reaper found no sign of its runner
	TriggerQueueTimeout TriggerKind = "queue-timeout" // the reaper found it too old to start
)

// TriggerKinds lists every trigger.
func TriggerKinds() []TriggerKind {
	return []TriggerKind{
		TriggerClaim, TriggerHeartbeat, TriggerComplete, TriggerFail, TriggerRelease,
		TriggerAckCancel, TriggerCancel, TriggerLeaseExpired, TriggerQueueTimeout,
	}
}

// Trigger is something that happens to a build at a moment of the database's clock.
type Trigger struct {
	Kind   TriggerKind
	Now    time.Time
	Epoch  int64         // of the runner that speaks; other triggers leave it 0
	Lease  time.Duration // claim, heartbeat: how long the lease holds
	Class  FailureClass  // fail: whose fault
	Delay  time.Duration // fail, lease-expired: backoff before another attempt
	Reason CancelReason  // cancel: why
	Grace  time.Duration // cancel: how long the runner has to acknowledge
	Newer  bool          // fail, release, lease-expired: a newer build of the project waits
}

// byRunner reports whether only the runner that holds the build may pull the trigger.
func (k TriggerKind) byRunner() bool {
	switch k {
	case TriggerHeartbeat, TriggerComplete, TriggerFail, TriggerRelease, TriggerAckCancel:
		return true
	}
	return false
}

// Apply returns the state after the trigger. It is the one place that knows
// the legal transitions of a build; the caller writes the result with a guard
// on the status and epoch that it read. The error is an *Error with
// CodeBuildFinished (terminal states absorb), CodeLeaseLost (another epoch),
// CodeBuildCanceling (cancel beats what has not committed) or CodeConflict
// (not legal, or not due).
func (s BuildState) Apply(t Trigger) (BuildState, error) {
	if t.Kind.byRunner() && t.Epoch != s.Epoch && !fault.Off(fault.EpochCheck) {
		return s, &Error{
			Code: CodeLeaseLost, Message: "The build has been claimed again; this runner must drop it.",
			Details: fmt.Sprintf("epoch %d, now %d", t.Epoch, s.Epoch),
		}
	}
	if s.Status.Terminal() {
		if fault.Off(fault.TerminalAbsorbs) {
			return s.applyBuilding(t)
		}
		return s, &Error{Code: CodeBuildFinished, Message: "The build is over.", Details: string(s.Status)}
	}
	switch s.Status {
	case BuildQueued:
		return s.applyQueued(t)
	case BuildBuilding:
		return s.applyBuilding(t)
	case BuildCanceling:
		return s.applyCanceling(t)
	}
	return s, illegal(s, t)
}

func (s BuildState) applyQueued(t Trigger) (BuildState, error) {
	switch {
	case t.Kind == TriggerClaim && !t.Now.Before(s.RunnableAt):
		s.Status, s.Epoch, s.Attempt = BuildBuilding, s.Epoch+1, s.Attempt+1
		s.LeaseUntil = t.Now.Add(t.Lease)
		return s, nil
	case t.Kind == TriggerCancel:
		s.Status, s.CancelReason = canceledStatus(t.Reason), t.Reason
		return s, nil
	case t.Kind == TriggerQueueTimeout:
		s.Status, s.FailureClass = BuildFailed, FailureQueueTimeout
		return s, nil
	case t.Kind.byRunner():
		return s, &Error{Code: CodeLeaseLost, Message: "The build is back in the queue; this runner must drop it."}
	}
	return s, illegal(s, t)
}

func (s BuildState) applyBuilding(t Trigger) (BuildState, error) {
	switch t.Kind {
	case TriggerHeartbeat:
		s.LeaseUntil = t.Now.Add(t.Lease)
		return s, nil
	case TriggerComplete:
		s.Status, s.LeaseUntil = BuildCompleted, time.Time{}
		return s, nil
	case TriggerFail:
		return s.retryOrFail(t.Class, t), nil
	case TriggerRelease:
		// Stopping is nobody's failure: the attempt is not counted.
		s.Attempt--
		return s.requeue(t, t.Now), nil
	case TriggerCancel:
		s.Status, s.CancelReason, s.CancelDeadline = BuildCanceling, t.Reason, t.Now.Add(t.Grace)
		return s, nil
	case TriggerLeaseExpired:
		if t.Now.After(s.LeaseUntil) {
			return s.retryOrFail(FailureWorkerLost, t), nil
		}
	case TriggerAckCancel, TriggerClaim, TriggerQueueTimeout:
	}
	return s, illegal(s, t)
}

func (s BuildState) applyCanceling(t Trigger) (BuildState, error) {
	switch t.Kind {
	case TriggerHeartbeat:
		// The lease holds while the runner kills the build; the deadline does not move.
		s.LeaseUntil = t.Now.Add(t.Lease)
		return s, nil
	case TriggerAckCancel, TriggerRelease, TriggerFail:
		return s.canceled(), nil
	case TriggerComplete:
		if fault.Off(fault.CancelBeats) {
			s.Status, s.LeaseUntil, s.CancelDeadline = BuildCompleted, time.Time{}, time.Time{}
			return s, nil
		}
		return s, &Error{Code: CodeBuildCanceling, Message: "The build is being canceled; its result must be dropped."}
	case TriggerCancel:
		return s, nil // canceling twice is canceling once: the first reason and deadline stand
	case TriggerLeaseExpired:
		if t.Now.After(s.LeaseUntil) || t.Now.After(s.CancelDeadline) {
			s = s.canceled()
			s.Epoch++ // fences a runner that still works on it
			return s, nil
		}
	case TriggerClaim, TriggerQueueTimeout:
	}
	return s, illegal(s, t)
}

func (s BuildState) canceled() BuildState {
	s.Status, s.LeaseUntil, s.CancelDeadline = canceledStatus(s.CancelReason), time.Time{}, time.Time{}
	return s
}

func canceledStatus(reason CancelReason) BuildStatus {
	if reason == CancelSuperseded {
		return BuildSuperseded
	}
	return BuildCanceled
}

func (s BuildState) retryOrFail(class FailureClass, t Trigger) BuildState {
	if class.Retryable() && s.Attempt < s.MaxAttempts {
		return s.requeue(t, t.Now.Add(t.Delay))
	}
	s.Status, s.FailureClass, s.LeaseUntil = BuildFailed, class, time.Time{}
	return s
}

// requeue returns a build to the queue, unless a newer one waits there: of a
// project at most one waits, and it is the newest.
func (s BuildState) requeue(t Trigger, runnable time.Time) BuildState {
	s.LeaseUntil = time.Time{}
	if t.Newer {
		s.Status, s.CancelReason = BuildSuperseded, CancelSuperseded
		return s
	}
	s.Status, s.RunnableAt = BuildQueued, runnable
	return s
}

func illegal(s BuildState, t Trigger) error {
	return &Error{
		Code: CodeConflict, Message: "The build's state does not allow this.",
		Details: fmt.Sprintf("%s while %s", t.Kind, s.Status),
	}
}

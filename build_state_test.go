package previewd_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

var epoch0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// stateOf returns a legal state of a status, as the database would hold it.
func stateOf(status previewd.BuildStatus) previewd.BuildState {
	s := previewd.BuildState{Status: status, MaxAttempts: 3, RunnableAt: epoch0}
	switch status {
	case previewd.BuildBuilding:
		s.Epoch, s.Attempt, s.LeaseUntil = 1, 1, epoch0.Add(30*time.Second)
	case previewd.BuildCanceling:
		s.Epoch, s.Attempt, s.LeaseUntil = 1, 1, epoch0.Add(30*time.Second)
		s.CancelReason, s.CancelDeadline = previewd.CancelUser, epoch0.Add(20*time.Second)
	case previewd.BuildFailed:
		s.Epoch, s.Attempt, s.FailureClass = 1, 1, previewd.FailureUser
	case previewd.BuildCanceled:
		s.CancelReason = previewd.CancelUser
	case previewd.BuildSuperseded:
		s.CancelReason = previewd.CancelSuperseded
	}
	return s
}

// legal lists every edge of the machine: what a trigger, pulled by the runner
// that holds the build and after all deadlines, makes of a status.
var legal = map[previewd.BuildStatus]map[previewd.TriggerKind]previewd.BuildStatus{
	previewd.BuildQueued: {
		previewd.TriggerClaim:        previewd.BuildBuilding,
		previewd.TriggerCancel:       previewd.BuildCanceled,
		previewd.TriggerQueueTimeout: previewd.BuildFailed,
	},
	previewd.BuildBuilding: {
		previewd.TriggerHeartbeat:    previewd.BuildBuilding,
		previewd.TriggerComplete:     previewd.BuildCompleted,
		previewd.TriggerFail:         previewd.BuildFailed,
		previewd.TriggerRelease:      previewd.BuildQueued,
		previewd.TriggerCancel:       previewd.BuildCanceling,
		previewd.TriggerLeaseExpired: previewd.BuildQueued,
	},
	previewd.BuildCanceling: {
		previewd.TriggerHeartbeat:    previewd.BuildCanceling,
		previewd.TriggerAckCancel:    previewd.BuildCanceled,
		previewd.TriggerRelease:      previewd.BuildCanceled,
		previewd.TriggerFail:         previewd.BuildCanceled,
		previewd.TriggerCancel:       previewd.BuildCanceling,
		previewd.TriggerLeaseExpired: previewd.BuildCanceled,
	},
}

func TestApplyAllowsExactlyTheLegalEdges(t *testing.T) {
	t.Parallel()
	for _, from := range previewd.BuildStatuses() {
		for _, kind := range previewd.TriggerKinds() {
			t.Run(fmt.Sprintf("%s/%s", from, kind), func(t *testing.T) {
				t.Parallel()
				s := stateOf(from)
				next, err := s.Apply(previewd.Trigger{
					Kind: kind, Now: epoch0.Add(time.Minute), Epoch: s.Epoch, Lease: 30 * time.Second,
					Class: previewd.FailureUser, Reason: previewd.CancelUser, Grace: 20 * time.Second,
				})
				to, ok := legal[from][kind]
				if !ok {
					require.Error(t, err)
					require.Equal(t, s, next, "a refused trigger changes nothing")
					if from.Terminal() {
						require.Equal(t, previewd.CodeBuildFinished, previewd.ErrorCode(err))
					}
					return
				}
				require.NoError(t, err)
				require.Equal(t, to, next.Status)
				require.GreaterOrEqual(t, next.Epoch, s.Epoch)
			})
		}
	}
}

func TestApplyRefusesAnotherEpoch(t *testing.T) {
	t.Parallel()
	runner := []previewd.TriggerKind{
		previewd.TriggerHeartbeat, previewd.TriggerComplete, previewd.TriggerFail, previewd.TriggerRelease, previewd.TriggerAckCancel,
	}
	for _, status := range previewd.BuildStatuses() {
		for _, kind := range runner {
			s := stateOf(status)
			s.Epoch = 2
			for _, epoch := range []int64{0, 1, 3} {
				next, err := s.Apply(previewd.Trigger{Kind: kind, Now: epoch0, Epoch: epoch})
				require.Equal(t, previewd.CodeLeaseLost, previewd.ErrorCode(err), "%s while %s", kind, status)
				require.Equal(t, s, next)
			}
		}
	}
}

func TestApplyWaitsForDeadlines(t *testing.T) {
	t.Parallel()
	early := epoch0.Add(10 * time.Second)
	_, err := stateOf(previewd.BuildBuilding).Apply(previewd.Trigger{Kind: previewd.TriggerLeaseExpired, Now: early})
	require.Equal(t, previewd.CodeConflict, previewd.ErrorCode(err))
	_, err = stateOf(previewd.BuildCanceling).Apply(previewd.Trigger{Kind: previewd.TriggerLeaseExpired, Now: early})
	require.Equal(t, previewd.CodeConflict, previewd.ErrorCode(err))
	later := stateOf(previewd.BuildQueued)
	later.RunnableAt = epoch0.Add(time.Hour)
	_, err = later.Apply(previewd.Trigger{Kind: previewd.TriggerClaim, Now: early})
	require.Equal(t, previewd.CodeConflict, previewd.ErrorCode(err))
}

func TestApplyRetriesInfrastructureOnly(t *testing.T) {
	t.Parallel()
	for _, class := range []previewd.FailureClass{
		previewd.FailureUser, previewd.FailureTimeout, previewd.FailureInfra, previewd.FailureWorkerLost, previewd.FailureQueueTimeout,
	} {
		for attempt := 1; attempt <= 3; attempt++ {
			s := stateOf(previewd.BuildBuilding)
			s.Attempt = attempt
			next, err := s.Apply(previewd.Trigger{Kind: previewd.TriggerFail, Epoch: 1, Now: epoch0, Class: class, Delay: time.Second})
			require.NoError(t, err)
			if class.Retryable() && attempt < 3 {
				require.Equal(t, previewd.BuildQueued, next.Status)
				require.Equal(t, epoch0.Add(time.Second), next.RunnableAt)
				continue
			}
			require.Equal(t, previewd.BuildFailed, next.Status)
			require.Equal(t, class, next.FailureClass)
		}
	}
}

func TestApplyKeepsTheFirstCancelReason(t *testing.T) {
	t.Parallel()
	s := stateOf(previewd.BuildCanceling)
	next, err := s.Apply(previewd.Trigger{Kind: previewd.TriggerCancel, Now: epoch0, Reason: previewd.CancelSuperseded, Grace: time.Hour})
	require.NoError(t, err)
	require.Equal(t, s, next)
	_, err = s.Apply(previewd.Trigger{Kind: previewd.TriggerComplete, Now: epoch0, Epoch: 1})
	require.Equal(t, previewd.CodeBuildCanceling, previewd.ErrorCode(err), "cancel beats what has not committed")
}

func TestProjectStatusIsTotal(t *testing.T) {
	t.Parallel()
	for _, s := range previewd.BuildStatuses() {
		_, err := s.ProjectStatus()
		require.NoError(t, err, s)
	}
	_, err := previewd.BuildStatus("warp").ProjectStatus()
	require.Error(t, err, "no silent default")
}

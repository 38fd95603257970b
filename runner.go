package previewd

import (
	"context"
	"encoding/json"
	"time"
)

// Dispatcher is what a runner asks of the worker. Every call but ClaimBuild
// names the claim's epoch; from a lost epoch it changes nothing and returns
// CodeLeaseLost, and the runner must drop the build.
type Dispatcher interface {
	// ClaimBuild takes the next build and leases it to the runner. It waits up
	// to wait for one, then returns nil.
	ClaimBuild(ctx context.Context, runnerID string, wait time.Duration) (*Claim, error)
	// HeartbeatBuild renews the lease. True means: kill the build and finish it
	// with OutcomeCanceled.
	HeartbeatBuild(ctx context.Context, lease Lease) (canceling bool, err error)
	// AwaitCancel returns as soon as the build is to be killed, else after wait,
	// so that nobody waits a heartbeat for it.
	AwaitCancel(ctx context.Context, lease Lease, wait time.Duration) (canceling bool, err error)
	// StartStep records that the build has come to a step.
	StartStep(ctx context.Context, lease Lease, step string) error
	// AppendLog appends at exactly this offset, else it returns CodeOffsetMismatch.
	AppendLog(ctx context.Context, lease Lease, offset int64, data []byte) error
	// FinishBuild ends the claim. Repeating it after a lost answer returns the
	// same result.
	FinishBuild(ctx context.Context, lease Lease, outcome Outcome) (BuildStatus, error)
}

// Steps of a build, in order.
const (
	StepPrepare = "prepare" // the files are laid out
	StepInstall = "install" // packages are installed, if there are any
	StepBuild   = "build"   // the runner makes the site
	StepPublish = "publish" // the site is compressed and stored
)

// Lease names one claim of one build.
type Lease struct {
	BuildID string
	Epoch   int64
}

// Claim is a build that a runner has taken.
type Claim struct {
	Lease
	ProjectID   string
	Source      Digest            // a tar of the tree, in the artifact store
	Env         map[string]string // the build's own, shown to strangers' code: never a secret
	Vars        []ClaimVar        // the project's; the build's own come before them
	Refused     *Failure          // why the build cannot be run: finish it with this; nil when it can
	Overrides   json.RawMessage   // metadata.build: how to build; nil for none
	ReferenceID string
	LogOffset   int64         // where this attempt's log begins
	LeaseFor    time.Duration // renew well before this has passed
	Timeout     time.Duration // kill the build after this
}

// OutcomeKind says how a claim ended.
type OutcomeKind string

// The ends of a claim.
const (
	OutcomeCompleted OutcomeKind = "completed"
	OutcomeFailed    OutcomeKind = "failed"
	OutcomeCanceled  OutcomeKind = "canceled" // the process tree is dead
	OutcomeReleased  OutcomeKind = "released" // the runner stops; somebody else takes it
)

// Outcome is how a claim ended, and with what.
type Outcome struct {
	Kind     OutcomeKind
	Manifest Digest   // completed: stored, with all its blobs
	Failure  *Failure // failed
	Runner   string   // one of Runner…; "" when it did not get so far
	Reason   string   // why that runner
	Cache    string   // what it found cached, for estimates: "hit" or "miss"; "" when it keeps no cache
	// CacheSaved is how long that took when it was made, which this claim did not wait for.
	CacheSaved time.Duration
	Isolation  string
	Packages   []Package // that it was made with; each once
}

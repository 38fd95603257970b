package previewd

import (
	"context"
	"math"
	"math/bits"
	"time"
)

// BillingState is where a session stands. Settled and voided absorb.
type BillingState string

// The states of a session.
const (
	BillingOpen    BillingState = "open"    // its build is not over
	BillingSettled BillingState = "settled" // what was used is in the ledger
	BillingVoided  BillingState = "voided"  // nothing is owed
)

// BillingSession is what one build of a user costs. It is opened when the
// build's id is stored and closed when the event of its end is applied.
type BillingSession struct {
	ID             string         `json:"id"`
	ProjectID      string         `json:"projectId"`
	BuildID        string         `json:"buildId"`
	UserID         string         `json:"userId"`
	State          BillingState   `json:"state" enum:"open,settled,voided"`
	Reason         string         `json:"reason,omitempty" doc:"What closed it."`
	ReservedMicros int64          `json:"reservedMicros" doc:"What it counts against the spend cap while it is open."`
	AmountMicros   int64          `json:"amountMicros" doc:"What is owed, in millionths of the currency."`
	Entries        []BillingEntry `json:"entries" nullable:"false"`
	OpenedAt       time.Time      `json:"openedAt"`
	ClosedAt       *time.Time     `json:"closedAt,omitempty"`
}

// BillingEntry is one thing that was used, once.
type BillingEntry struct {
	Key          string    `json:"key" doc:"build:<id>:epoch:<n>:meter:<meter>; no two entries have the same."`
	Meter        string    `json:"meter" enum:"build_time,stored_bytes"`
	Quantity     int64     `json:"quantity"`
	Unit         string    `json:"unit" enum:"ms,B"`
	AmountMicros int64     `json:"amountMicros"`
	At           time.Time `json:"at"`
}

// BillingPage is one page of a user's sessions and the cursor of the next, "" at
// the end.
type BillingPage struct {
	Sessions      []BillingSession `json:"sessions" nullable:"false"`
	BalanceMicros int64            `json:"balanceMicros" doc:"What all settled sessions of the user add up to."`
	Next          string           `json:"nextCursor,omitempty"`
}

// What is metered.
const (
	MeterBuildTime   = "build_time"   // of the attempt that ended the build, in ms
	MeterStoredBytes = "stored_bytes" // of the version's files, in B
)

// Prices are in millionths of a currency.
type Prices struct {
	BuildSecond int64
	StoredGiB   int64
}

// BuildTime returns what an attempt of this length costs, rounded down.
func (p Prices) BuildTime(d time.Duration) int64 { return share(d.Milliseconds(), p.BuildSecond, 1000) }

// Stored returns what files of this size cost, rounded down.
func (p Prices) Stored(bytes int64) int64 { return share(bytes, p.StoredGiB, 1<<30) }

// share returns n × price ÷ per, at most the largest number that there is.
func share(n, price, per int64) int64 {
	if n <= 0 || price <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(n), uint64(price))
	if hi >= uint64(per) {
		return math.MaxInt64
	}
	amount, _ := bits.Div64(hi, lo, uint64(per))
	return int64(min(amount, math.MaxInt64))
}

// BuildEnd is how a build ended, for billing.
type BuildEnd struct {
	Status  ProjectStatus
	Class   FailureClass // of a build that failed
	Started bool         // an attempt of it has begun
}

// Billed tells whether a build that ended so is paid for, and why. Nobody pays
// for our faults, for what never began, or for what a newer build has replaced.
func (e BuildEnd) Billed() (billed bool, reason string) {
	switch e.Status {
	case ProjectDeployed:
		return true, "deployed"
	case ProjectFailed:
		switch e.Class {
		case FailureUser, FailureTimeout:
			return true, "failed_" + string(e.Class)
		}
		return false, "failed_" + string(e.Class)
	case ProjectCanceled:
		if e.Started {
			return true, "canceled"
		}
		return false, "canceled_before_start"
	case ProjectSuperseded:
		return false, "superseded"
	}
	return false, string(e.Status)
}

// BillingSink is told of every closed session at least once, so that a real
// biller can follow. An error has it told again later.
type BillingSink interface {
	TellSession(ctx context.Context, session BillingSession) error
}

// Quotas bound what one user may do; 0 is no bound.
type Quotas struct {
	BuildsPerDay int   // by the UTC day
	Concurrent   int   // builds that are not over
	SpendCap     int64 // micros in a UTC month: what is owed and what is reserved
}

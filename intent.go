package previewd

import "time"

// Intent is the gateway's durable record that a user asked for a project or a
// build. It survives every crash until it is confirmed, rejected, canceled or
// shown to an operator.
type Intent struct {
	ID              string      `json:"id"`
	Operation       string      `json:"operation" enum:"project.create,build.create"`
	State           IntentState `json:"state" enum:"pending,confirmed,rejected,canceled,attention"`
	Name            string      `json:"name,omitempty" doc:"The name that the project will have."`
	ProjectID       string      `json:"projectId,omitempty" doc:"Present once the project is stored."`
	BuildID         string      `json:"buildId,omitempty" doc:"Present once the build is stored."`
	CancelRequested bool        `json:"cancelRequested,omitempty"`
	Attempts        int         `json:"attempts" doc:"How often the worker was asked."`
	NextAttemptAt   *time.Time  `json:"nextAttemptAt,omitempty" doc:"When it is asked again, while the intent is pending."`
	LastError       Code        `json:"lastError,omitempty" doc:"Why the last attempt failed, or the intent was rejected."`
	ReferenceID     string      `json:"referenceId" doc:"Name this when you ask about the request."`
	CreatedAt       time.Time   `json:"createdAt"`
	UpdatedAt       time.Time   `json:"updatedAt"`
}

// IntentState is where an intent stands. Confirmed, rejected and canceled absorb.
type IntentState string

// The states of an intent.
const (
	IntentPending   IntentState = "pending"   // the worker's answer is not known
	IntentConfirmed IntentState = "confirmed" // what was asked for is stored
	IntentRejected  IntentState = "rejected"  // refused for good; the refusal is stored
	IntentCanceled  IntentState = "canceled"  // taken back by the user; what the worker had made is deleted
	IntentAttention IntentState = "attention" // too old to go on by itself: an operator decides
)

// What an intent is to do.
const (
	IntentCreateProject = "project.create"
	IntentCreateBuild   = "build.create"
)

// Final reports whether the state absorbs.
func (s IntentState) Final() bool {
	switch s {
	case IntentConfirmed, IntentRejected, IntentCanceled:
		return true
	}
	return false
}

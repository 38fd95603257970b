package previewd

import (
	"cmp"
	"time"
)

// Role is a part of the product that answers requests.
type Role string

// The roles.
const (
	RoleWorker  Role = "worker"
	RoleGateway Role = "gateway"
)

// Reference is a problem that was answered, under the reference id that the
// answer named. It holds nothing that was sent but the path and ids.
type Reference struct {
	ID        string    `json:"referenceId"`
	Code      Code      `json:"code"`
	Status    int       `json:"status" doc:"HTTP status of the answer."`
	Message   string    `json:"message" doc:"What the answer said."`
	Cause     string    `json:"cause,omitempty" doc:"What it did not say."`
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	RequestID string    `json:"requestId"`
	TraceID   string    `json:"traceId,omitempty"`
	UserID    string    `json:"userId,omitempty"`
	ProjectID string    `json:"projectId,omitempty"`
	BuildID   string    `json:"buildId,omitempty"`
	Role      Role      `json:"role" enum:"worker,gateway" doc:"Who answered."`
	At        time.Time `json:"at"`
}

// ReferenceInfo is what is known of a reference id: the problem that was answered
// under it, and the build or intent that bears it, as the worker and the gateway
// know them.
type ReferenceInfo struct {
	ID             string     `json:"referenceId"`
	Problem        *Reference `json:"problem,omitempty"`
	Build          *Build     `json:"build,omitempty"`
	AppBuild       *AppBuild  `json:"appBuild,omitempty" doc:"The build as its owner sees it."`
	Intent         *Intent    `json:"intent,omitempty"`
	UserID         string     `json:"userId,omitempty" doc:"Whom it belongs to."`
	ProjectDeleted bool       `json:"projectDeleted,omitempty"`
}

// Add takes from another database what this one did not know.
func (i *ReferenceInfo) Add(other *ReferenceInfo) {
	i.Problem, i.Build = cmp.Or(i.Problem, other.Problem), cmp.Or(i.Build, other.Build)
	i.AppBuild, i.Intent = cmp.Or(i.AppBuild, other.AppBuild), cmp.Or(i.Intent, other.Intent)
	i.UserID, i.ProjectDeleted = cmp.Or(i.UserID, other.UserID), i.ProjectDeleted || other.ProjectDeleted
}

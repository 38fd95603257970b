package previewd

import "fmt"

// BuildStatus is where a build stands in its life. See BuildState.Apply for
// the transitions.
type BuildStatus string

// The seven statuses of a build. The last four absorb: a build never leaves them.
const (
	BuildQueued     BuildStatus = "queued"
	BuildBuilding   BuildStatus = "building"
	BuildCanceling  BuildStatus = "canceling"
	BuildCompleted  BuildStatus = "completed"
	BuildFailed     BuildStatus = "failed"
	BuildCanceled   BuildStatus = "canceled"
	BuildSuperseded BuildStatus = "superseded"
)

// BuildStatuses lists every status, in the order of a build's life.
func BuildStatuses() []BuildStatus {
	return []BuildStatus{
		BuildQueued, BuildBuilding, BuildCanceling,
		BuildCompleted, BuildFailed, BuildCanceled, BuildSuperseded,
	}
}

// Terminal reports whether a build of this status is over for good.
func (s BuildStatus) Terminal() bool {
	switch s {
	case BuildCompleted, BuildFailed, BuildCanceled, BuildSuperseded:
		return true
	}
	return false
}

// ProjectStatus is what an app shows of a project's newest build.
type ProjectStatus string

// The statuses that an app shows. There is no "canceling": the app shows
// building, with canceling said beside it.
const (
	ProjectQueued     ProjectStatus = "queued"
	ProjectBuilding   ProjectStatus = "building"
	ProjectDeployed   ProjectStatus = "deployed"
	ProjectFailed     ProjectStatus = "failed"
	ProjectCanceled   ProjectStatus = "canceled"
	ProjectSuperseded ProjectStatus = "superseded"
)

// ProjectStatus maps a build's status to the app's word for it. It returns an
// error for a status that it does not know: the caller keeps what it had and
// counts the event, because a silent default is a progress bar that never moves.
func (s BuildStatus) ProjectStatus() (ProjectStatus, error) {
	switch s {
	case BuildQueued, BuildBuilding, BuildFailed, BuildCanceled, BuildSuperseded:
		return ProjectStatus(s), nil
	case BuildCanceling:
		return ProjectBuilding, nil
	case BuildCompleted:
		return ProjectDeployed, nil
	}
	return "", fmt.Errorf("cannot map build status %q", s)
}

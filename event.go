package previewd

import "time"

// EventType names what happened. Consumers ignore types that they do not know.
type EventType string

// The types of events.
const (
	EventProjectCreated   EventType = "project.created"
	EventBuildQueued      EventType = "build.queued"
	EventBuildBuilding    EventType = "build.building"
	EventBuildStep        EventType = "build.step"
	EventBuildRetrying    EventType = "build.retrying"
	EventBuildCanceling   EventType = "build.canceling"
	EventBuildCompleted   EventType = "build.completed"
	EventBuildFailed      EventType = "build.failed"
	EventBuildCanceled    EventType = "build.canceled"
	EventBuildSuperseded  EventType = "build.superseded"
	EventVersionActivated EventType = "version.activated"
)

// Terminal reports whether no event of the same build follows this one, but
// for the activation of its version.
func (t EventType) Terminal() bool {
	switch t {
	case EventBuildCompleted, EventBuildFailed, EventBuildCanceled, EventBuildSuperseded:
		return true
	}
	return false
}

// Event is a durable row, written in the transaction that changed what it
// tells of. Seq counts 1, 2, 3… per project, with no gap and no reuse.
type Event struct {
	Seq       int64          `json:"seq"`
	Type      EventType      `json:"type"`
	ProjectID string         `json:"projectId"`
	BuildID   string         `json:"buildId,omitempty"`
	Epoch     int64          `json:"epoch,omitempty" doc:"The claim of the build that the event belongs to."`
	At        time.Time      `json:"at"`
	RequestID string         `json:"requestId,omitempty"`
	Data      map[string]any `json:"data,omitempty"`
}

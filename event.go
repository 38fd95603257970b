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
	// EventProjectDeleted is followed by nothing but the ends of builds that ran.
	EventProjectDeleted EventType = "project.deleted"
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
	ID        string         `json:"id" doc:"Resumes after this event in a stream of its project or build."`
	Cursor    string         `json:"cursor,omitempty" doc:"In the feed only: resumes after this event there."`
	Seq       int64          `json:"seq"`
	Type      EventType      `json:"type"`
	ProjectID string         `json:"projectId"`
	BuildID   string         `json:"buildId,omitempty"`
	Epoch     int64          `json:"epoch,omitempty" doc:"The claim of the build that the event belongs to."`
	At        time.Time      `json:"at"`
	RequestID string         `json:"requestId,omitempty"`
	Data      map[string]any `json:"data,omitempty"`
}

// EventFilter says which run of the feed to list.
type EventFilter struct {
	After string        // a cursor; "" is the beginning
	Limit int           // 0 means 100
	Wait  time.Duration // how long to wait when there is nothing yet
}

// EventPage is a run of the feed: of all events of all projects, in an order in
// which each project's own are kept.
type EventPage struct {
	Events []Event `json:"events"`
	Next   string  `json:"next" doc:"The cursor of the next page, also when this one is empty."`
	Reset  bool    `json:"reset,omitempty" doc:"The cursor was not of this log, which a restored backup may have cut: the events are from the beginning."`
}

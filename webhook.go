package previewd

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// WebhookEndpoint is a URL that is told of events. Its secret is shown once, when
// it is made.
type WebhookEndpoint struct {
	ID             string                `json:"id"`
	OwnerID        string                `json:"ownerId,omitempty" doc:"Whose events it is told of; none is the operator's, which is told of all."`
	URL            string                `json:"url"`
	Description    string                `json:"description"`
	Types          []string              `json:"types" doc:"Types of events, or groups as build.*; an empty list is all."`
	Status         WebhookEndpointStatus `json:"status" enum:"active,disabled"`
	DisabledReason string                `json:"disabledReason,omitempty"`
	FailingSince   *time.Time            `json:"failingSince,omitempty" doc:"The first failure since the last success."`
	BothSignUntil  *time.Time            `json:"bothSignUntil,omitempty" doc:"Until then the secret before the last rotation signs too."`
	CreatedAt      time.Time             `json:"createdAt"`
}

// WebhookEndpointStatus says whether an endpoint is told of events.
type WebhookEndpointStatus string

// The statuses of an endpoint.
const (
	WebhookActive   WebhookEndpointStatus = "active"
	WebhookDisabled WebhookEndpointStatus = "disabled"
)

// WebhookDelivery is one event on its way to one endpoint.
type WebhookDelivery struct {
	ID            string                `json:"id"`
	EndpointID    string                `json:"endpointId"`
	WebhookID     string                `json:"webhookId" doc:"The header webhook-id: the same in every attempt and replay of an event."`
	Replay        int                   `json:"replay" doc:"0 is the first delivery of the event."`
	Type          string                `json:"type"`
	Status        WebhookDeliveryStatus `json:"status" enum:"pending,delivered,failed,dropped"`
	Attempts      int                   `json:"attempts"`
	NextAttemptAt *time.Time            `json:"nextAttemptAt,omitempty"`
	LastStatus    int                   `json:"lastStatus,omitempty" doc:"The HTTP status that the endpoint answered last."`
	LastError     string                `json:"lastError,omitempty"`
	CreatedAt     time.Time             `json:"createdAt"`
	EndedAt       *time.Time            `json:"endedAt,omitempty"`
	Payload       json.RawMessage       `json:"payload,omitempty" doc:"What is sent. Left out of lists."`
	Log           []WebhookAttempt      `json:"log,omitempty" doc:"Left out of lists."`
}

// WebhookDeliveryStatus is where a delivery stands.
type WebhookDeliveryStatus string

// The statuses of a delivery. The last three are final.
const (
	WebhookPending   WebhookDeliveryStatus = "pending"
	WebhookDelivered WebhookDeliveryStatus = "delivered"
	WebhookFailed    WebhookDeliveryStatus = "failed"  // every attempt of the schedule failed
	WebhookDropped   WebhookDeliveryStatus = "dropped" // its endpoint was disabled
)

// WebhookAttempt is one request to an endpoint and its answer. A number that is
// missing is that of an attempt whose sender was killed.
type WebhookAttempt struct {
	N       int           `json:"n"`
	At      time.Time     `json:"at"`
	Status  int           `json:"status,omitempty" doc:"HTTP status; none without an answer."`
	Took    time.Duration `json:"tookNanoseconds"`
	Error   string        `json:"error,omitempty"`
	Excerpt string        `json:"excerpt,omitempty" doc:"The beginning of the answer."`
}

// WebhookDeliveryFilter says which deliveries of an endpoint to list, the newest
// first.
type WebhookDeliveryFilter struct {
	Status WebhookDeliveryStatus // "" is all
	After  string                // the Next of the page before
	Limit  int                   // 0 means 50, at most 200
}

// WebhookDeliveryPage is a run of deliveries.
type WebhookDeliveryPage struct {
	Deliveries []WebhookDelivery `json:"deliveries" nullable:"false"`
	Next       string            `json:"next,omitempty" doc:"The cursor of the next page; none when this is the last."`
}

// WebhookTest is the type of what a test sends. No filter names it.
const WebhookTest = "webhook.test"

// WebhookTypes lists the types of events that endpoints can be told of.
func WebhookTypes() []string {
	return []string{
		string(EventProjectCreated), string(EventProjectDeleted),
		string(EventBuildQueued), string(EventBuildBuilding), string(EventBuildCompleted), string(EventBuildFailed),
		string(EventBuildCanceled), string(EventBuildSuperseded), string(EventVersionActivated),
	}
}

// CheckWebhookTypes returns the types without those named twice. It returns
// CodeInvalid when one is neither a type of WebhookTypes nor a group as "build.*".
func CheckWebhookTypes(types []string) ([]string, error) {
	known := WebhookTypes()
	for _, t := range known {
		known = append(known, webhookGroup(t))
	}
	checked := []string{}
	for _, t := range types {
		if !slices.Contains(known, t) {
			return nil, &Error{
				Code:    CodeInvalid,
				Message: "There is no such type of events: name some of " + strings.Join(WebhookTypes(), ", ") + ", or a group as build.*.",
				Details: strings.Map(Harmless, t[:min(len(t), 64)]),
			}
		}
		if !slices.Contains(checked, t) {
			checked = append(checked, t)
		}
	}
	return checked, nil
}

func webhookGroup(kind string) string {
	group, _, _ := strings.Cut(kind, ".")
	return group + ".*"
}

// Package worker holds the use cases of the worker: creating projects and
// builds, handing builds to runners and taking their results. Each transition
// is one transaction that holds the row, its event and its audit entry.
package worker

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/store"
)

// Config is everything a Service needs. A zero field takes the default its comment names.
type Config struct {
	Store      *store.DB
	Artifacts  artifact.Store
	Changes    Changes
	Log        *slog.Logger              // default slog.Default()
	PreviewURL func(label string) string // URL of the preview host with this label
	Switched   func(projectID string)    // called after a project's current version has changed; default nothing
	Deleted    func(projectID string)    // called after a project was deleted; default nothing
	Room       func() error              // returns CodeDiskFull when nothing new can be stored; default nil, always
	NewID      func() string             // default previewd.NewID
	Limits     Limits                    // default DefaultLimits
	Queue      *store.QueueLimits        // default DefaultQueue
	Window     time.Duration             // in which equal requests without a key are one; default 10 s
	Retention  store.KeyRetention        // default DefaultRetention
	Retry      func(int) time.Duration   // pause after the nth attempt; default 2^n seconds
	Lease      time.Duration             // default 30 s
	Timeouts   Timeouts                  // default DefaultTimeouts
	SecretsKey SecretsKey                // default: there is none
}

// Changes carries hints between those who write rows and those who wait for
// them. Topics are project ids and those below.
type Changes interface {
	Notify(topic string)
	// Wait calls look until it says done: at once, after each Notify of the topic
	// and from time to time, for as long as wait.
	Wait(ctx context.Context, topic string, wait time.Duration, look func() (done bool, err error)) error
}

// Topics beside project ids.
const (
	QueueTopic = "queue" // a build may have become claimable
	EventTopic = "event" // events may wait for their places in the feed
	FeedTopic  = "feed"  // events may have got them
)

// Timeouts bound how long a build may take.
type Timeouts struct {
	Build  time.Duration // one attempt, from claim to finish
	Queue  time.Duration // waiting to be claimed
	Cancel time.Duration // for a runner to kill a build
}

// DefaultTimeouts is what Config.Timeouts means when it is zero.
var DefaultTimeouts = Timeouts{Build: 5 * time.Minute, Queue: time.Hour, Cancel: 20 * time.Second}

// DefaultQueue is what Config.Queue means when it is nil.
var DefaultQueue = store.QueueLimits{Owner: 1000, Total: 100_000}

// DefaultRetention is what Config.Retention means when it is zero: longer than
// any client goes on repeating a request.
var DefaultRetention = store.KeyRetention{Body: 7 * 24 * time.Hour, Row: 30 * 24 * time.Hour}

// Service is the worker.
type Service struct {
	Config
	templates []builtinTemplate
	flights   flights
	view      queueView
	counts    Counts
	integrity integrity
	packets   chan struct{} // bounds FindFailure
}

// Counts are what happened since the start, for metrics.
type Counts struct {
	LegacyIDs atomic.Int64 // projects made with an id of the client's
	Replays   atomic.Int64 // creates that were answered before
}

// Counts returns the service's counters.
func (s *Service) Counts() *Counts { return &s.counts }

var (
	_ previewd.Worker     = (*Service)(nil)
	_ previewd.Dispatcher = (*Service)(nil)
)

// New returns a Service. It fails only when an embedded template is broken.
func New(cfg Config) (*Service, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Switched == nil {
		cfg.Switched = func(string) {}
	}
	if cfg.Deleted == nil {
		cfg.Deleted = func(string) {}
	}
	if cfg.Room == nil {
		cfg.Room = func() error { return nil }
	}
	if cfg.NewID == nil {
		cfg.NewID = previewd.NewID
	}
	if cfg.Limits == (Limits{}) {
		cfg.Limits = DefaultLimits
	}
	if cfg.Queue == nil {
		cfg.Queue = &DefaultQueue
	}
	if fault.Off(fault.QueueCap) {
		cfg.Queue = &store.QueueLimits{}
	}
	if cfg.Window == 0 {
		cfg.Window = 10 * time.Second
	}
	if cfg.Retention == (store.KeyRetention{}) {
		cfg.Retention = DefaultRetention
	}
	if cfg.Retry == nil {
		cfg.Retry = func(attempt int) time.Duration { return time.Second << min(attempt, 6) }
	}
	if cfg.Lease == 0 {
		cfg.Lease = 30 * time.Second
	}
	if cfg.Timeouts == (Timeouts{}) {
		cfg.Timeouts = DefaultTimeouts
	}
	if cfg.SecretsKey == nil {
		cfg.SecretsKey = func(bool) ([]byte, error) { return nil, errNoSecretsKey }
	}
	templates, err := loadTemplates()
	return &Service{Config: cfg, templates: templates, packets: make(chan struct{}, maxPackets)}, err
}

// changed wakes those who wait for a project or for the queue. It is called
// after commit: a hint from inside a transaction tells of what may never be.
func (s *Service) changed(projectID string) {
	s.Changes.Notify(projectID)
	s.Changes.Notify(QueueTopic)
	s.Changes.Notify(EventTopic)
}

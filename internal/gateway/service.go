// Package gateway is what a product's front end talks to: users' projects, the
// requests that make them, what they cost and what becomes of them. It asks the
// worker for everything that the worker owns and keeps what it must never lose:
// an intent is stored before the worker is asked, and what follows from its
// answer is stored in one transaction.
package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// Config is everything a Service needs. A zero field takes the default its comment names.
type Config struct {
	Store    *store.DB // the gateway's
	Worker   previewd.Worker
	Changes  Changes
	Log      *slog.Logger // default slog.Default()
	Holder   string       // names this process among those that share the database
	Service  string       // what the worker calls this gateway; default gateway
	Pending  int          // requests of a user that may wait for the worker; default 2,000
	Prices   previewd.Prices
	Quotas   previewd.Quotas
	Reserve  time.Duration                   // of build time that an open session counts as; default 1 min
	Sink     previewd.BillingSink            // default: nobody is told
	Window   time.Duration                   // in which equal requests without a key are one; default 10 s
	Patience time.Duration                   // how long a request waits for the worker before it is answered 202; default 4 s
	Claim    time.Duration                   // how long a process has an intent without being heard of; default 10 s
	Deadline time.Duration                   // after which an intent needs attention; default 72 h
	Backoff  func(attempt int) time.Duration // default: full jitter, 1 s to 60 s
	Compare  time.Duration                   // how often active builds are compared with the worker's; default 30 s
	Parked   time.Duration                   // how long an event waits for its project before the worker is asked about it; default 30 s
}

// Changes carries hints between those who write rows and those who wait for
// them.
type Changes interface {
	Notify(topic string)
	Subscribe(topic string) (hints <-chan struct{}, cancel func())
	// Wait calls look until it says done: at once, after each Notify of the topic
	// and from time to time, for as long as wait.
	Wait(ctx context.Context, topic string, wait time.Duration, look func() (done bool, err error)) error
}

// Topics.
const (
	intentsTopic = "gateway/intents" // an intent may be due
	HookTopic    = "gateway/hooks"   // a webhook may be due
)

// ProjectTopic wakes who follows a project.
func ProjectTopic(id string) string { return "gateway/project/" + id }

// UserTopic wakes who follows all projects of a user.
func UserTopic(id string) string { return "gateway/user/" + id }

func intentTopic(id string) string { return "gateway/intent/" + id }

// Service is the gateway.
type Service struct {
	Config
	counts Counts
}

// Counts are what happened since the start, for metrics.
type Counts struct {
	UnknownStatus atomic.Int64 // events and builds with a status that nobody knows
	BadAnswers    atomic.Int64 // answers of the worker that were not believed
	Corrections   atomic.Int64 // builds that were not as the worker's, with no event to come
	Poison        atomic.Int64 // events that were moved aside
	Adopted       atomic.Int64 // projects of the worker's whose intent was gone
	Replays       atomic.Int64 // requests that were answered before
}

// Counts returns the service's counters.
func (s *Service) Counts() *Counts { return &s.counts }

// New returns a Service.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	setDefault(&cfg.Service, "gateway")
	setDefault(&cfg.Pending, 2000)
	setDefault(&cfg.Reserve, time.Minute)
	setDefault(&cfg.Window, 10*time.Second)
	setDefault(&cfg.Patience, 4*time.Second)
	setDefault(&cfg.Claim, 10*time.Second)
	setDefault(&cfg.Deadline, 72*time.Hour)
	setDefault(&cfg.Compare, 30*time.Second)
	setDefault(&cfg.Parked, 30*time.Second)
	if cfg.Backoff == nil {
		cfg.Backoff = backoff
	}
	return &Service{Config: cfg}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

const (
	minBackoff = time.Second
	maxBackoff = time.Minute
)

// backoff is full jitter over 1 s, 2 s, 4 s … 60 s.
func backoff(attempt int) time.Duration {
	limit := maxBackoff
	if attempt < 6 {
		limit = minBackoff << max(attempt-1, 0)
	}
	return rand.N(limit) + 1
}

func (s *Service) caller(requestID string) previewd.Caller {
	return previewd.Caller{Principal: s.Service, Service: s.Service, RequestID: requestID}
}

func (s *Service) claim() store.Claim { return store.Claim{Holder: s.Holder, For: s.Claim} }

// AuditHook writes to the gateway's log what others do in its database, for
// whoever's request it is.
func AuditHook(ctx context.Context, tx *store.DB, action, subject string, data map[string]any) error {
	who := actor("system/gateway")
	if user := httpx.UserOf(ctx); user.ID != "" {
		who = userActor(user.ID)
	}
	return audit(ctx, tx, who, store.AuditEntry{Action: action, Subject: subject, Data: data})
}

// audit writes an entry to the gateway's log. It comes last in a transaction.
func audit(ctx context.Context, tx *store.DB, who actor, e store.AuditEntry) error {
	e.Actor = string(who)
	return tx.AppendGatewayAudit(ctx, e)
}

// actor is who did something: "user/<id>", "operator/<id>" or "system/<part>".
type actor string

func userActor(id string) actor { return actor("user/" + id) }

const (
	reconciler actor = "system/reconciler"
	follower   actor = "system/follower"
)

// safely keeps a fault in one piece of background work from ending all others.
func (s *Service) safely(ctx context.Context, what string, do func()) {
	defer func() {
		if v := recover(); v != nil {
			s.Log.ErrorContext(ctx, "background work panicked", "work", what, telemetry.Error, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}
	}()
	do()
}

// every calls do at once and then from time to time, or after a hint on the
// topic, until ctx ends.
func (s *Service) every(ctx context.Context, period time.Duration, topic string, do func(context.Context)) error {
	hints, cancel := s.Changes.Subscribe(topic)
	defer cancel()
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		s.safely(ctx, topic, func() { do(ctx) })
		select {
		case <-ctx.Done():
			return nil
		case <-hints:
		case <-ticker.C:
		}
	}
}

package httpx

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/previewd/previewd/internal/telemetry"
)

// ReferenceStore is what References ask of the store.
type ReferenceStore interface {
	InsertReferences(ctx context.Context, refs []Reference) error
}

// ReferencesConfig is everything that References need. A zero field takes the
// default its comment names.
type ReferencesConfig struct {
	Store ReferenceStore
	Log   *slog.Logger  // default slog.Default()
	Batch int           // most that one transaction stores; default 200
	Pause time.Duration // for which a transaction gathers; default 200 ms
	Queue int           // most that wait to be stored; default 10,000
}

// References is a Recorder that stores problems a moment later, many at a time.
// No request waits for it: what finds the queue full is dropped and counted.
type References struct {
	ReferencesConfig
	wake chan struct{}

	mu       sync.Mutex
	queue    []Reference
	recorded int64
	dropped  int64
}

// NewReferences returns References. Run stores.
func NewReferences(cfg ReferencesConfig) *References {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	setDefault(&cfg.Batch, 200)
	setDefault(&cfg.Pause, 200*time.Millisecond)
	setDefault(&cfg.Queue, 10_000)
	return &References{ReferencesConfig: cfg, wake: make(chan struct{}, 1)}
}

// Record implements Recorder.
func (r *References) Record(ref Reference) {
	r.mu.Lock()
	full := len(r.queue) >= r.Queue
	if full {
		r.dropped++
	} else {
		r.recorded++
		r.queue = append(r.queue, ref)
	}
	worth := len(r.queue) == 1 || len(r.queue) >= r.Batch
	r.mu.Unlock()
	if worth && !full {
		select {
		case r.wake <- struct{}{}:
		default: // it is awake already
		}
	}
}

// Counts returns how many were taken, and how many were dropped because too many
// waited.
func (r *References) Counts() (recorded, dropped int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recorded, r.dropped
}

const (
	retryReferences = time.Second     // after the store has refused
	flushReferences = 5 * time.Second // for what is left at the end
)

// Run stores what was recorded until ctx ends, and then what is left.
func (r *References) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-r.wake:
			r.gather(ctx)
		}
		for ctx.Err() == nil && r.waiting() > 0 {
			if err := r.flush(ctx); err != nil && ctx.Err() == nil {
				r.Log.ErrorContext(ctx, "storing references failed", telemetry.Error, err) // they wait
				sleep(ctx, retryReferences)
			}
		}
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushReferences)
	defer cancel()
	for r.waiting() > 0 {
		if err := r.flush(ending); err != nil {
			r.Log.ErrorContext(ctx, "storing references failed", telemetry.Error, err, "lost", r.waiting())
			break
		}
	}
	return nil
}

// gather waits until there is a batch, or for a pause.
func (r *References) gather(ctx context.Context) {
	over := time.NewTimer(r.Pause)
	defer over.Stop()
	for r.waiting() < r.Batch {
		select {
		case <-r.wake:
		case <-over.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (r *References) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.queue)
}

// flush stores one batch. It stays in the queue until it is stored.
func (r *References) flush(ctx context.Context) error {
	r.mu.Lock()
	batch := r.queue[:min(len(r.queue), r.Batch)]
	r.mu.Unlock()
	if err := r.Store.InsertReferences(ctx, batch); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append([]Reference(nil), r.queue[len(batch):]...)
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

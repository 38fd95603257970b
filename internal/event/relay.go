package event

import (
	"context"
	"time"
)

// Feed is what a Relay asks of the store.
type Feed interface {
	// AssignFeed gives positions to events that have none; see store.DB.
	AssignFeed(ctx context.Context, holder string, lease time.Duration, limit int) (given int, leads bool, err error)
	ReleaseFeed(ctx context.Context, holder string) error
}

// Relay gives committed events their places in the feed. Every process runs
// one; the rows decide which of them leads. A zero field takes the default its
// comment names.
type Relay struct {
	Feed   Feed
	Hub    *Hub
	Holder string        // names this process
	Wake   string        // topic: events wait for a place
	Grown  string        // topic that is notified when some have got one
	Failed func(error)   // called with what the store refuses; default nothing
	Lease  time.Duration // how long the lead of one that has died keeps others out; default 5 s
	Pause  time.Duration // between batches, so that many events share one; default 25 ms
	Poll   time.Duration // finds events whose hint was lost; default 1 s
}

// relayBatch bounds how long the head of the feed is locked.
const relayBatch = 500

// Run gives places until ctx ends. It writes nothing while there is nothing to do.
func (r *Relay) Run(ctx context.Context) error {
	r.setDefaults()
	hints, cancel := r.Hub.Subscribe(r.Wake)
	defer cancel()
	poll := time.NewTicker(r.Poll)
	defer poll.Stop()
	var led time.Time
	for ctx.Err() == nil {
		given, leads, err := r.round(ctx)
		if given > 0 {
			led = time.Now()
		}
		awake := hints
		if !leads || err != nil {
			awake = nil // who leads has heard the hint too: look whether it still does
		}
		rest := time.After(r.Pause)
		select {
		case <-awake:
			<-rest
		case <-poll.C:
		case <-ctx.Done():
		}
	}
	if time.Since(led) < r.Lease {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := r.Feed.ReleaseFeed(ending, r.Holder); err != nil {
			r.Failed(err) // the lease runs out by itself
		}
	}
	return nil
}

func (r *Relay) setDefaults() {
	if r.Failed == nil {
		r.Failed = func(error) {}
	}
	if r.Lease == 0 {
		r.Lease = 5 * time.Second
	}
	if r.Pause == 0 {
		r.Pause = 25 * time.Millisecond
	}
	if r.Poll == 0 {
		r.Poll = time.Second
	}
}

// round gives places to all events that wait for one.
func (r *Relay) round(ctx context.Context) (total int, leads bool, err error) {
	for {
		var given int
		given, leads, err = r.Feed.AssignFeed(ctx, r.Holder, r.Lease, relayBatch)
		total += given
		if given > 0 {
			r.Hub.Notify(r.Grown)
		}
		if err != nil && ctx.Err() == nil {
			r.Failed(err)
		}
		if err != nil || given < relayBatch {
			return total, leads, err
		}
	}
}

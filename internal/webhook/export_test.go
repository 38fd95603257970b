package webhook

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// Once claims what is due, sends it, and returns how many it were.
func (d *Deliverer) Once(ctx context.Context) (int, error) {
	var all sync.WaitGroup
	err := d.startDue(ctx, ctx, &all)
	all.Wait()
	n := d.running
	d.countEnded()
	return n, err
}

// Do sends a request without the look at its URL.
func (e *Egress) Do(r *http.Request) (*http.Response, error) { return e.client.Do(r) }

// DelayAfter is delayAfter.
func DelayAfter(attempt int, retryAfter time.Duration, random float64) (time.Duration, bool) {
	return delayAfter(attempt, retryAfter, random)
}

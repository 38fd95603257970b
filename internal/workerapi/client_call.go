package workerapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

// call says how to ask.
type call struct {
	timeout time.Duration // of one try
	wait    time.Duration // of a long poll
	caller  previewd.Caller
	key     string // for what has one of its own
	form    form   // of the answer
}

const (
	minPause = 250 * time.Millisecond // spread over, before the second try; doubles
	maxPause = 10 * time.Second       // a worker that says later than this is asked by another call
)

// ask sends the request until an answer is final, the tries are used up, or ctx
// would end before the next.
func ask[T any](ctx context.Context, c *Client, o call, do func(context.Context, time.Duration) (T, error), check func(T) error) (answer T, err error) {
	headers := headersOf(ctx, o)
	for n := 0; ; n++ {
		r := &try{call: o, headers: headers}
		answer, err = once(ctx, c, r, do, check)
		if err == nil || !r.again || n >= c.cfg.Retries {
			break
		}
		pause := r.after + c.cfg.Jitter(min(minPause<<n, maxPause))
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause || pause > maxPause {
			break
		}
		if !sleep(ctx, pause) {
			break
		}
		c.counts.Retries.Add(1)
	}
	if err != nil {
		var none T
		return none, err
	}
	return answer, nil
}

// once is one try, told to the circuit.
func once[T any](ctx context.Context, c *Client, r *try, do func(context.Context, time.Duration) (T, error), check func(T) error) (answer T, err error) {
	pass, err := c.circuit.enter()
	if err != nil {
		return answer, err
	}
	wait := r.wait
	if pass.probe {
		wait = 0 // the others wait for what this try will show
	}
	trying, cancel := context.WithTimeout(context.WithValue(ctx, tryKey{}, r), r.timeout)
	defer cancel()
	answer, err = do(trying, wait)
	if err == nil {
		if err = check(answer); err != nil {
			r.bad = err
		}
	}
	outcome, err := c.judge(ctx, r, err)
	c.circuit.leave(pass, outcome)
	return answer, err
}

// judge says what a try shows of the worker, and turns what went wrong into
// what the caller gets.
func (c *Client) judge(ctx context.Context, r *try, err error) (outcome, error) {
	switch {
	case err == nil:
		return alive, nil
	case ctx.Err() != nil:
		return r.abandoned(ctx), &previewd.Error{
			Code: previewd.CodeUnavailable, Message: "The request ended before the worker's answer.", Err: ctx.Err(),
		}
	case !r.sent: // what was asked cannot be written
		return unknown, &previewd.Error{Code: previewd.CodeInternal, Message: "The worker cannot be asked.", Err: err}
	case r.status == 0:
		r.again = true
		return dead, unreachable("The worker cannot be reached: try again shortly.", 0, err)
	}
	e := (*previewd.Error)(nil)
	if !errors.As(err, &e) || r.bad != nil || r.status < 500 && e.Code == previewd.CodeInternal {
		c.counts.BadAnswers.Add(1)
		if r.bad != nil {
			err = r.bad
		}
		return alive, &previewd.Error{Code: previewd.CodeInternal, Message: "The worker's answer makes no sense.", Err: err}
	}
	r.after = max(e.RetryAfter, r.after)
	switch {
	case e.Code == previewd.CodeDiskFull:
		return alive, err // it still reads, and more tries make no room
	case r.status >= 500:
		r.again = true
		if e.ReferenceID == "" { // something before the worker speaks for it
			return dead, unreachable("The worker cannot be reached: try again shortly.", r.after, err)
		}
		return dead, err
	case e.Code == previewd.CodeUnauthorized || e.Code == previewd.CodeForbidden:
		// Nothing is wrong with whoever asked us.
		return alive, unreachable("The worker does not take this server's token.", 0, err)
	}
	r.again = r.status == tooManyRequests || e.Code == previewd.CodeKeyInFlight
	return alive, err
}

// abandoned is what it shows when the caller has given up. A caller that gave
// the worker a time and got nothing in it has seen it hang, but for a long poll.
func (r *try) abandoned(ctx context.Context) outcome {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && r.wait == 0 && r.status == 0 {
		return dead
	}
	return unknown
}

func unreachable(message string, after time.Duration, cause error) error {
	return &previewd.Error{Code: previewd.CodeUnavailable, Message: message, RetryAfter: max(after, time.Second), Err: cause}
}

func headersOf(ctx context.Context, o call) map[string]string {
	headers := map[string]string{}
	if id := o.caller.RequestID; harmless(id) {
		headers["X-Request-Id"] = id
	} else if id := httpx.RequestID(ctx); id != "" {
		headers["X-Request-Id"] = id
	}
	if trace := httpx.Trace(ctx); harmless(trace) {
		headers["Traceparent"] = trace
	}
	if o.key != "" {
		headers["Idempotency-Key"] = fmt.Sprintf("%q", o.key)
	}
	return headers
}

// harmless reports whether a header can hold the text.
func harmless(text string) bool {
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return text != "" && len(text) <= 128
}

// patiently asks again, three times, for what this client has seen created just
// now and the worker does not find. That never happens, so it is counted.
func patiently[T any](ctx context.Context, c *Client, id string, find func() (T, error)) (T, error) {
	for n := 1; ; n++ {
		found, err := find()
		if previewd.ErrorCode(err) != previewd.CodeNotFound || n > 3 || !c.recent.has(id) || !sleep(ctx, time.Duration(n)*time.Second) {
			return found, err
		}
		c.counts.NotFoundAfterCreate.Add(1)
	}
}

// recentIDs are those that came with answers to creates in the last 30 seconds.
type recentIDs struct {
	mu    sync.Mutex
	ids   map[string]recentID
	swept time.Time
}

type recentID struct {
	since   time.Time
	project string
}

const recently = 30 * time.Second

func (r *recentIDs) add(projectID string, ids ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.ids == nil {
		r.ids, r.swept = map[string]recentID{}, now
	}
	if now.Sub(r.swept) > recently {
		r.swept = now
		maps.DeleteFunc(r.ids, func(_ string, id recentID) bool { return now.Sub(id.since) > recently })
	}
	for _, id := range ids {
		r.ids[id] = recentID{since: now, project: projectID}
	}
}

func (r *recentIDs) forget(projectID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.ids, func(_ string, id recentID) bool { return id.project == projectID })
}

func (r *recentIDs) has(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, ok := r.ids[id]
	return ok && time.Since(found.since) <= recently
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

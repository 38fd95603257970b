package worker

import (
	"context"
	"math"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// queueView is the whole queue as it was a moment ago. It answers what would be
// dear to ask the database each time: places far behind, and estimates.
type queueView struct {
	mu        sync.Mutex
	seen      *queueState
	refreshed time.Time
	took      time.Duration
	busy      bool
}

// queueState is the queue and its history at one moment. It is never changed.
type queueState struct {
	waiting []store.Queued   // in the order of claims
	last    map[string]int64 // the rank of each owner's last
	running int
	ended   []store.Ended // newest first
	at      time.Time
}

const (
	viewAge    = 250 * time.Millisecond // a view is refreshed when it is older,
	viewCost   = 20                     // or this many times what a refresh takes
	historyLen = 500
	minHistory = 5 // fewer builds foretell nothing
)

// queue returns the view. Only the first waits for it; an old one is refreshed
// behind its reader's back.
func (s *Service) queue(ctx context.Context) *queueState {
	v := &s.view
	v.mu.Lock()
	seen := v.seen
	stale := !v.busy && time.Since(v.refreshed) > max(viewAge, viewCost*v.took)
	v.busy = v.busy || stale
	v.mu.Unlock()
	switch {
	case seen == nil && stale:
		return s.refreshQueue(context.WithoutCancel(ctx))
	case seen == nil:
		return &queueState{at: time.Now()}
	case stale:
		go s.refreshQueue(context.WithoutCancel(ctx))
	}
	return seen
}

func (s *Service) refreshQueue(ctx context.Context) *queueState {
	began := time.Now()
	state, err := s.readQueue(ctx)
	if err != nil {
		s.Log.WarnContext(ctx, "reading the queue failed", telemetry.Error, err)
	}
	v := &s.view
	v.mu.Lock()
	defer v.mu.Unlock()
	v.busy, v.refreshed, v.took = false, time.Now(), time.Since(began)
	if err == nil {
		v.seen = state
	}
	return state
}

func (s *Service) readQueue(ctx context.Context) (*queueState, error) {
	q := &queueState{at: time.Now(), last: map[string]int64{}}
	var err error
	if q.waiting, err = s.Store.ListQueue(ctx); err != nil {
		return q, err
	}
	for _, b := range q.waiting {
		q.last[b.OwnerID] = max(q.last[b.OwnerID], b.Rank)
	}
	if q.running, err = s.Store.CountRunning(ctx); err != nil {
		return q, err
	}
	q.ended, err = s.Store.ListEnded(ctx, historyLen)
	return q, err
}

// ahead returns about how many wait before a new build of the owner.
func (q *queueState) ahead(ownerID string) int {
	if len(q.waiting) == 0 {
		return 0
	}
	rank, waits := q.last[ownerID]
	if rank++; !waits {
		rank = q.waiting[0].Rank
	}
	return q.before(rank, "g") // after every id: they are hexadecimal
}

func (q *queueState) before(rank int64, id string) int {
	return sort.Search(len(q.waiting), func(i int) bool {
		w := q.waiting[i]
		return w.Rank > rank || w.Rank == rank && w.ID >= id
	})
}

// limits leaves out the limit that takes long to check while it is further away
// than the queue can grow before the next view.
func (q *queueState) limits(l store.QueueLimits) store.QueueLimits {
	if len(q.waiting)+max(1000, l.Total/10) < l.Total {
		l.Total = 0
	}
	return l
}

// position returns the place of a build that waits: 1 is next. It counts the
// near ones and looks the far ones up.
func (s *Service) position(ctx context.Context, b *store.Build) (int, error) {
	n, err := s.Store.CountAhead(ctx, b.FairRank, b.ID, store.MaxAhead)
	if n == store.MaxAhead {
		n = max(n, s.queue(ctx).before(b.FairRank, b.ID))
	}
	return n + 1, err
}

// pace foretells builds like b: how long one takes and how long each before it
// keeps it waiting, both as likely longer as shorter.
func (q *queueState) pace(b *store.Build) store.Pace {
	took := q.history(b)
	if took == nil {
		return store.Pace{}
	}
	base := quantile(took, 0.5)
	return store.Pace{Base: base, Step: base / time.Duration(max(q.running, 1))}
}

// history returns how long builds of b's kind have taken, shortest first; nil
// when there are too few. The kind is the runner and what it found cached: a
// build that has not begun is taken to be of its template's newest kind.
func (q *queueState) history(b *store.Build) []time.Duration {
	kind := func(e store.Ended) [2]string { return [2]string{e.Runner, e.Cache} }
	var want [2]string
	known := false
	for _, e := range q.ended {
		if known = e.Completed && e.Template == b.Template; known {
			want = kind(e)
			break
		}
	}
	if !known {
		return nil
	}
	var took []time.Duration
	for _, e := range q.ended {
		if e.Completed && kind(e) == want {
			took = append(took, e.Took)
		}
	}
	if len(took) < minHistory {
		return nil
	}
	slices.Sort(took)
	return took
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[int(math.Ceil(q*float64(len(sorted))))-1]
}

// estimate foretells when a build is over: the moment that it is as likely past
// as not, and the one that nine of ten are. Nothing is foretold without a
// history, nor of a build that has taken longer than nine of ten.
func (q *queueState) estimate(b *store.Build) (p50, p90 *time.Time) {
	took := q.history(b)
	if took == nil {
		return nil, nil
	}
	half, most := quantile(took, 0.5), quantile(took, 0.9)
	from := time.Now().UTC()
	if b.Status == previewd.BuildQueued {
		lanes := time.Duration(max(q.running, 1))
		ahead := time.Duration(b.QueuePosition - 1)
		return new(from.Add(ahead*half/lanes + half)), new(from.Add(ahead*most/lanes + most))
	}
	if b.StartedAt == nil {
		return nil, nil
	}
	elapsed := from.Sub(*b.StartedAt)
	if elapsed < half {
		p50 = new(b.StartedAt.Add(half))
	}
	if elapsed < most {
		p90 = new(b.StartedAt.Add(most))
	}
	return p50, p90
}

// full says when to try again: when a build of the owner, or any build, will
// have left the queue, at the rate at which builds have ended lately.
func (q *queueState) full(why store.Outcome) error {
	e := &previewd.Error{Code: previewd.CodeQueueFull, RetryAfter: q.untilOneLeaves(why == store.OutcomeOwnerFull)}
	e.Message = "Too many builds wait already: try again later."
	if why == store.OutcomeOwnerFull {
		e.Message = "Too many builds of this user wait already: try again later, or cancel some."
	}
	return e
}

const (
	drainWindow = 5 * time.Minute
	minRetry    = time.Second
	maxRetry    = 5 * time.Minute
)

// untilOneLeaves returns how long it takes until a build has left the queue, or
// one of an owner's, who take turns.
func (q *queueState) untilOneLeaves(ofOwner bool) time.Duration {
	n := 0
	var first time.Time
	for _, e := range q.ended {
		if q.at.Sub(e.At) > drainWindow {
			break
		}
		n, first = n+1, e.At
	}
	if n < 2 {
		return time.Minute // nothing ends: there is no telling
	}
	each := q.at.Sub(first) / time.Duration(n)
	if ofOwner {
		each *= time.Duration(max(len(q.last), 1))
	}
	return min(max(each, minRetry), maxRetry)
}

package worker

import (
	"context"
	"sync"
	"time"

	"github.com/previewd/previewd"
)

// flights lets one of equal requests through at a time. The others wait here,
// where it costs nothing, and not on connections of the database. It saves
// work and decides nothing: requests can be equal in another process too.
type flights struct {
	mu   sync.Mutex
	busy map[string]*flight
}

type flight struct {
	turn  chan struct{} // holds an element while a request is under way
	users int
}

// maxFlight is how long a request waits for an equal one.
const maxFlight = 2 * time.Second

// take waits for the name to be free, and returns what is left of maxFlight and
// how to free it. It returns CodeKeyInFlight when an equal request takes longer.
func (f *flights) take(ctx context.Context, name string) (left time.Duration, done func(), err error) {
	f.mu.Lock()
	if f.busy == nil {
		f.busy = map[string]*flight{}
	}
	mine := f.busy[name]
	if mine == nil {
		mine = &flight{turn: make(chan struct{}, 1)}
		f.busy[name] = mine
	}
	mine.users++
	f.mu.Unlock()
	began := time.Now()
	limit := time.NewTimer(maxFlight)
	defer limit.Stop()
	select {
	case mine.turn <- struct{}{}:
		return maxFlight - time.Since(began), func() { f.leave(name, mine, true) }, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-limit.C:
		err = &previewd.Error{
			Code: previewd.CodeKeyInFlight, Message: "An equal request is still under way: ask again with the same key.", RetryAfter: time.Second,
		}
	}
	f.leave(name, mine, false)
	return 0, nil, err
}

func (f *flights) leave(name string, mine *flight, had bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if had {
		<-mine.turn
	}
	if mine.users--; mine.users == 0 {
		delete(f.busy, name)
	}
}

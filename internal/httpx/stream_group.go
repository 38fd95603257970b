package httpx

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/previewd/previewd/internal/telemetry"
)

// tail reads a log that grows: a build's, or the feed.
type tail interface {
	// end returns how far the log goes now.
	end(ctx context.Context) (place, error)
	// read returns frames of what comes after from, but not after to, and how far
	// they go.
	read(ctx context.Context, from, to place) ([][]byte, place, error)
	// news returns what has come after from.
	news(ctx context.Context, from place) (news, error)
}

// news is what a group sends its members.
type news struct {
	frames [][]byte
	at     place
	more   bool   // ask again at once
	hello  []byte // for members that join before there is more news
	last   []byte // not nil: nothing follows
}

// errCut says that a log does not go on as its readers have seen it.
var errCut = errors.New("the log was cut")

// group is the streams that follow the same. Its place is what all its members
// have been sent; who joins has caught up to it.
type group struct {
	streams *Streams
	key     string
	tail    tail
	unwatch func()
	refs    int // guarded by streams.mu
	state   atomic.Int32

	polling sync.Mutex // one reads at a time
	mu      sync.Mutex
	begun   bool
	at      place
	hello   []byte
	last    []byte
	members []*member
}

// What group.state can be.
const (
	resting = iota
	looking
	lookAgain
)

// poke makes the group look for news. It never blocks.
func (g *group) poke() {
	if g.state.CompareAndSwap(looking, lookAgain) || !g.state.CompareAndSwap(resting, looking) {
		return
	}
	g.streams.running.Go(func() {
		for {
			if err := g.poll(); err != nil && g.streams.ctx.Err() == nil {
				g.streams.Log.Warn("following failed", telemetry.Error, err) // the next tick looks again
			}
			if g.state.CompareAndSwap(looking, resting) {
				return
			}
			g.state.Store(looking)
		}
	})
}

// poll reads what is new and hands it to the members.
func (g *group) poll() error {
	g.polling.Lock()
	defer g.polling.Unlock()
	for more := true; more; {
		g.mu.Lock()
		from, begun, over := g.at, g.begun, g.last != nil
		g.mu.Unlock()
		if !begun || over {
			return nil
		}
		var found news
		err := g.streams.read(func(ctx context.Context) (err error) {
			found, err = g.tail.news(ctx, from)
			return err
		})
		if errors.Is(err, errCut) {
			found.last = []byte{}
		} else if err != nil {
			return err
		}
		g.publish(found)
		if found.last != nil {
			g.streams.forget(g)
		}
		more = found.more && found.last == nil
	}
	return nil
}

// place returns how far the group has read. The first to ask makes it begin.
func (g *group) place() (place, error) {
	g.polling.Lock()
	defer g.polling.Unlock()
	g.mu.Lock()
	at, begun := g.at, g.begun
	g.mu.Unlock()
	if begun {
		return at, nil
	}
	err := g.streams.read(func(ctx context.Context) (err error) {
		at, err = g.tail.end(ctx)
		return err
	})
	if err != nil {
		return at, err
	}
	g.mu.Lock()
	g.at, g.begun = at, true
	g.mu.Unlock()
	g.poke() // is it over, and where does it stand in the queue?
	return at, nil
}

// join makes m a member if it has been sent all that the members have.
func (g *group) join(m *member) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.at != g.at {
		return false
	}
	switch {
	case m.left:
		return true
	case g.last != nil:
		m.finish(g.last)
		return true
	case g.hello != nil:
		m.send(g.hello)
	}
	g.members = append(g.members, m)
	m.index = len(g.members)
	return true
}

func (g *group) remove(m *member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m.left = true
	if m.index == 0 {
		return
	}
	end := len(g.members)
	moved := g.members[end-1]
	g.members[m.index-1], moved.index = moved, m.index
	g.members[end-1] = nil
	g.members, m.index = g.members[:end-1], 0
}

const shard = 256 // members that one goroutine serves

// publish hands news to the members, in parallel when they are many.
func (g *group) publish(n news) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hello, g.last = n.hello, n.last
	if n.at != (place{}) {
		g.at = n.at
	}
	if len(n.frames) == 0 && n.last == nil {
		return
	}
	send := func(members []*member) {
		for _, m := range members {
			for _, f := range n.frames {
				m.send(f)
			}
			if n.last != nil {
				m.finish(n.last)
			}
		}
	}
	if len(g.members) <= shard {
		send(g.members)
		return
	}
	var wg sync.WaitGroup
	size := max(shard, (len(g.members)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	for i := 0; i < len(g.members); i += size {
		wg.Go(func() { send(g.members[i:min(i+size, len(g.members))]) })
	}
	wg.Wait()
}

package workerapi

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxFailures = 5                // in a row, until the circuit opens
	firstPause  = 2 * time.Second  // and half of it is sure; doubles
	lastPause   = 30 * time.Second // at most
)

// outcome is what a try shows of the worker.
type outcome int

const (
	unknown outcome = iota // nothing: the caller went away
	alive                  // it answers
	dead                   // it cannot be reached, hangs, or fails
)

// circuit keeps calls from a worker that has failed five times in a row: they
// would make their callers wait, and the worker's coming back harder. After a
// pause one try is let through; what it shows decides for all.
type circuit struct {
	jitter func(time.Duration) time.Duration
	opened *atomic.Int64

	mu       sync.Mutex
	failures int
	openings int       // in a row; 0: closed
	until    time.Time // when a probe may go
	probing  bool      // one is under way
	era      int       // counts the changes between open and closed
}

// pass is the leave to try.
type pass struct {
	probe bool
	era   int
}

// enter returns CodeUnavailable while the circuit is open.
func (c *circuit) enter() (pass, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.openings == 0 {
		return pass{era: c.era}, nil
	}
	if left := time.Until(c.until); left > 0 || c.probing {
		return pass{}, unreachable("The worker is away: try again shortly.", left, nil)
	}
	c.probing = true
	return pass{probe: true, era: c.era}, nil
}

// leave tells what the try has shown.
func (c *circuit) leave(p pass, o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.era != c.era {
		return // it tells of before
	}
	if p.probe {
		c.probing = false
	}
	switch o {
	case alive:
		if c.failures = 0; p.probe {
			c.openings = 0
			c.era++
		}
	case dead:
		if c.failures++; p.probe || c.failures >= maxFailures {
			c.open()
		}
	}
}

func (c *circuit) open() {
	if c.openings == 0 {
		c.opened.Add(1)
	}
	pause := min(firstPause<<min(c.openings, 10), lastPause)
	c.openings++
	c.era++
	c.until = time.Now().Add(pause/2 + c.jitter(pause/2))
}

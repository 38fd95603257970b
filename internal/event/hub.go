// Package event tells those who wait that something has changed. A hint says
// where to look and never what happened: the rows say that.
package event

import "sync"

// Hub fans hints out to subscribers in this process. The zero Hub is ready.
type Hub struct {
	mu   sync.Mutex
	subs map[string]map[chan struct{}]struct{}
}

// Subscribe returns a channel that receives after each Notify of the topic.
// Hints that come while one waits unread are the same hint. The caller calls
// cancel when it is done. Subscribe first and read rows then: so no change
// falls between.
func (h *Hub) Subscribe(topic string) (hints <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs == nil {
		h.subs = map[string]map[chan struct{}]struct{}{}
	}
	if h.subs[topic] == nil {
		h.subs[topic] = map[chan struct{}]struct{}{}
	}
	h.subs[topic][c] = struct{}{}
	return c, func() { h.unsubscribe(topic, c) }
}

func (h *Hub) unsubscribe(topic string, c chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs[topic], c)
	if len(h.subs[topic]) == 0 {
		delete(h.subs, topic)
	}
}

// Notify wakes the topic's subscribers. It never blocks.
func (h *Hub) Notify(topic string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.subs[topic] {
		select {
		case c <- struct{}{}:
		default: // a hint is waiting already
		}
	}
}

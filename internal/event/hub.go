// Package event tells those who wait that something has changed. A hint says
// where to look and never what happened: the rows say that.
package event

import (
	"context"
	"sync"
	"time"
)

// Bus carries topics between processes that share a database. What it loses is
// found by those who wait and look from time to time.
type Bus interface {
	// Publish tells the other processes of topics.
	Publish(ctx context.Context, topics []string) error
	// Listen calls heard with topics of other processes until ctx ends or the
	// connection breaks; ready when it has begun. It returns nil at once when no
	// process can share the database.
	Listen(ctx context.Context, ready func(), heard func(topic string)) error
}

// Hub fans hints out to subscribers in this process, and with a Bus and Run to
// those in others. The zero Hub is ready.
type Hub struct {
	Bus Bus

	mu    sync.Mutex
	subs  map[string]*watcher // the first of each topic's
	dirty map[string]struct{} // topics that other processes have not been told of
	wake  chan struct{}       // nil while nobody publishes
}

// Subscribe returns a channel that receives after each Notify of the topic.
// Hints that come while one waits unread are the same hint. The caller calls
// cancel when it is done. Subscribe first and read rows then: so no change
// falls between.
func (h *Hub) Subscribe(topic string) (hints <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	return c, h.Watch(topic, func() {
		select {
		case c <- struct{}{}:
		default: // a hint is waiting already
		}
	})
}

// poll is how often one who waits looks without a hint: one can be lost with the
// process that owed it.
const poll = time.Second

// Wait calls look until it says done: at once, after each Notify of the topic and
// at the latest each second, for as long as wait.
func (h *Hub) Wait(ctx context.Context, topic string, wait time.Duration, look func() (done bool, err error)) error {
	hints, cancel := h.Subscribe(topic)
	defer cancel()
	over := time.NewTimer(wait)
	defer over.Stop()
	again := time.NewTicker(poll)
	defer again.Stop()
	for {
		if done, err := look(); done || err != nil || wait <= 0 {
			return err
		}
		select {
		case <-hints:
		case <-again.C:
		case <-over.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watcher is who watches a topic. There can be one for each of many topics, so
// they are a list and not a set of each topic's.
type watcher struct {
	wake       func() // called with mu held
	prev, next *watcher
}

// Watch calls wake after each Notify of the topic, until cancel is called, for
// those who are too many to have a goroutine each. wake must not block and must
// not call the hub. When cancel has returned it is not called any more.
func (h *Hub) Watch(topic string, wake func()) (cancel func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs == nil {
		h.subs = map[string]*watcher{}
	}
	w := &watcher{wake: wake, next: h.subs[topic]}
	if w.next != nil {
		w.next.prev = w
	}
	h.subs[topic] = w
	return func() { h.unwatch(topic, w) }
}

func (h *Hub) unwatch(topic string, w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.wake == nil {
		return // it was canceled before
	}
	w.wake = nil
	if w.next != nil {
		w.next.prev = w.prev
	}
	switch {
	case w.prev != nil:
		w.prev.next = w.next
	case w.next != nil:
		h.subs[topic] = w.next
	default:
		delete(h.subs, topic)
	}
}

// Notify wakes the topic's subscribers, here and in other processes. It never
// blocks.
func (h *Hub) Notify(topic string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wakeSubscribers(topic)
	if h.wake == nil {
		return
	}
	h.dirty[topic] = struct{}{}
	select {
	case h.wake <- struct{}{}:
	default: // the publisher is awake already
	}
}

func (h *Hub) hear(topic string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if topic != "" {
		h.wakeSubscribers(topic)
		return
	}
	for topic := range h.subs {
		h.wakeSubscribers(topic)
	}
}

func (h *Hub) wakeSubscribers(topic string) {
	for w := h.subs[topic]; w != nil; w = w.next {
		w.wake()
	}
}

// retryBus is how long a broken bus rests.
const retryBus = time.Second

// Run carries hints between processes until ctx ends. While the bus is broken
// only those who look from time to time notice changes made elsewhere.
func (h *Hub) Run(ctx context.Context) error {
	if h.Bus == nil {
		<-ctx.Done()
		return nil
	}
	wake := make(chan struct{}, 1)
	h.mu.Lock()
	h.wake, h.dirty = wake, map[string]struct{}{}
	h.mu.Unlock()
	var publishing sync.WaitGroup
	defer publishing.Wait()
	publishing.Go(func() { h.publish(ctx, wake) })
	for ctx.Err() == nil {
		// What was said before it began to listen may have been missed: "" wakes all.
		err := h.Bus.Listen(ctx, func() { h.hear("") }, h.hear)
		if err == nil {
			<-ctx.Done() // there is nobody to listen to
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryBus):
		}
	}
	return nil
}

// publish sends what has come up since it sent last: one message for many
// changes when there are many, and no wait when there is one.
func (h *Hub) publish(ctx context.Context, wake <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		h.mu.Lock()
		topics := make([]string, 0, len(h.dirty))
		for topic := range h.dirty {
			topics = append(topics, topic)
		}
		clear(h.dirty)
		h.mu.Unlock()
		if len(topics) > 0 {
			_ = h.Bus.Publish(ctx, topics) // hints may be lost: waiters poll too
		}
	}
}

package httpx

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

const (
	heartbeatEvery = 15 * time.Second
	writeDeadline  = 10 * time.Second
)

// Stream is a server-sent event stream (WHATWG HTML §9.2). Each write has its
// own deadline: a reader that stalls is cut and resumes where it was.
type Stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

// NewStream begins a stream, with headers that keep proxies from buffering.
func NewStream(w http.ResponseWriter) (*Stream, error) {
	s := &Stream{w: w, rc: http.NewResponseController(w)}
	// The server's deadline for reading a request would end the stream.
	if err := s.rc.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	return s, s.write(fmt.Sprintf("retry: %d\n\n", 2000+rand.IntN(3000)))
}

// Send writes one event. Only a durable event has an id: a client resumes
// after the last one that it saw.
func (s *Stream) Send(id, event string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	if id != "" {
		id = "id: " + id + "\n"
	}
	return s.write(fmt.Sprintf("%sevent: %s\ndata: %s\n\n", id, event, text))
}

// Heartbeat writes a comment, which clients ignore and proxies count as life.
func (s *Stream) Heartbeat() error { return s.write(": hb\n\n") }

func (s *Stream) write(text string) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeDeadline)); err != nil {
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.rc.Flush()
}

// Follow calls step at once, after each hint and at least each second, until
// it is done, and keeps the stream alive in between.
func (s *Stream) Follow(ctx context.Context, hints <-chan struct{}, step func() (done bool, err error)) error {
	heartbeat := time.NewTicker(heartbeatEvery)
	defer heartbeat.Stop()
	poll := time.NewTicker(time.Second) // a hint can be lost with the process that owed it
	defer poll.Stop()
	for {
		if done, err := step(); done || err != nil {
			return err
		}
		select {
		case <-hints:
		case <-poll.C:
		case <-heartbeat.C:
			if err := s.Heartbeat(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

package httpx

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/previewd/previewd"
)

// StreamBy answers an API's request with a stream.
func StreamBy(serve http.HandlerFunc, err error) (*huma.StreamResponse, error) {
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		serve(w, r)
	}}, nil
}

// EventLog is a log of events that grows: a project's, or all of a user's.
type EventLog interface {
	// List returns the events after a number, in order, each with its frame's id.
	List(ctx context.Context, after int64, limit int) ([]LogEvent, error)
	// Last returns the number of the last event, 0 while there is none.
	Last(ctx context.Context) (int64, error)
	// Over reports whether nothing is to be expected for now: then the stream ends.
	Over(ctx context.Context) (bool, error)
}

// LogEvent is an event at its place in a log.
type LogEvent struct {
	ID     string // of the frame: resumes after it
	Number int64
	Event  previewd.Event
}

// LogStream says what to follow, and for whom.
type LogStream struct {
	Key      string // streams of the same key follow the same log
	Topic    string // of its hints
	Log      EventLog
	Cursor   previewd.Cursor // of the last event that the client has
	Resumes  bool            // there is a cursor; without one the stream begins with Snapshot
	Head     previewd.Cursor // of the log, before the snapshot was taken
	Snapshot func(ctx context.Context) (any, error)
	Owner    string    // whose stream it is: each may have PerOwner
	Expires  time.Time // of the owner's token; zero: never
	// Allowed is asked every other second, one at a time; an error ends the stream.
	Allowed func(ctx context.Context) error
}

// FollowLog returns what answers with a log's stream. A cursor of another log is
// told so, and a snapshot follows. Who has seen all of a log that is over is told
// to stay away.
func (s *Streams) FollowLog(ctx context.Context, want LogStream) (http.HandlerFunc, error) {
	start := logStart{want: want, snapshot: !want.Resumes}
	f := follow{key: want.Key, topic: want.Topic, tail: &logTail{log: want.Log}, encoding: sse, begin: start.begin, at: place{seq: want.Cursor.Position}}
	f.guard = &guard{owner: want.Owner, expires: want.Expires, allowed: want.Allowed}
	switch at, head := want.Cursor, want.Head; {
	case !want.Resumes:
	case at.Generation != 0 && at.Generation != head.Generation || at.Position > head.Position:
		start.reset, start.snapshot = true, true
	case at.Position == head.Position:
		over, err := want.Log.Over(ctx)
		if err != nil {
			return nil, err
		}
		if over {
			// Tells EventSource not to come back.
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, nil
		}
	}
	return func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, f) }, nil
}

// logStart is how a client's stream begins.
type logStart struct {
	want            LogStream
	reset, snapshot bool
}

func (l *logStart) begin(ctx context.Context, m *member) error {
	if l.reset {
		if err := m.write(m.encode("", "reset", map[string]any{"reason": "The cursor is of another log: this is how things are now."})); err != nil {
			return err
		}
	}
	if !l.snapshot {
		return nil
	}
	var state any
	err := m.streams.read(func(context.Context) (err error) {
		state, err = l.want.Snapshot(ctx)
		return err
	})
	if err != nil {
		return err
	}
	m.at.seq = l.want.Head.Position
	return m.write(m.encode(l.want.Head.String(), "snapshot", state))
}

// logTail reads an EventLog.
type logTail struct{ log EventLog }

func (t *logTail) end(ctx context.Context) (at place, err error) {
	at.seq, err = t.log.Last(ctx)
	return at, err
}

func (t *logTail) read(ctx context.Context, from, to place) (frames [][]byte, at place, err error) {
	events, err := t.log.List(ctx, from.seq, eventPage)
	if err != nil {
		return nil, from, err
	}
	for _, e := range events {
		if e.Number > to.seq {
			break
		}
		frames = append(frames, sse.encode(e.ID, string(e.Event.Type), e.Event))
		from.seq = e.Number
	}
	return frames, from, nil
}

func (t *logTail) news(ctx context.Context, from place) (n news, err error) {
	n.frames, n.at, err = t.read(ctx, from, place{seq: 1<<63 - 1})
	if err != nil || len(n.frames) > 0 {
		n.more = len(n.frames) == eventPage
		return n, err
	}
	over, err := t.log.Over(ctx)
	if over {
		n.last = sse.encode("", "end", map[string]any{"reason": "Nothing more is to be expected for now."})
	}
	return n, err
}

// guard is who a stream is for, and for how long.
type guard struct {
	owner   string
	expires time.Time
	allowed func(ctx context.Context) error
	next    time.Time // when to ask; used by tick alone
	asking  atomic.Bool
}

// allowedEvery is how often it is asked whether a stream may go on: with the time
// that it takes for a denial to be known, five seconds at most.
const allowedEvery = 2 * time.Second

// watch ends a stream whose owner may not have it any more.
func (s *Streams) watch(m *member, now time.Time) {
	g := m.guard
	switch {
	case g == nil:
	case !g.expires.IsZero() && now.After(g.expires):
		m.finish(m.encode("", "reauth", map[string]any{"reason": "The token has expired: come back with a new one."}))
	case g.allowed != nil && now.After(g.next):
		first := g.next.IsZero()
		g.next = now.Add(around(allowedEvery))
		if first {
			return // it was asked when the stream began
		}
		if !g.asking.CompareAndSwap(false, true) {
			return
		}
		s.running.Go(func() {
			defer g.asking.Store(false)
			err := s.read(g.allowed)
			if code := previewd.ErrorCode(err); err != nil && code != previewd.CodeUnavailable && code != previewd.CodeInternal {
				m.finish(m.encode("", "end", map[string]any{"reason": "This is not yours to follow any more."}))
			}
		})
	}
}

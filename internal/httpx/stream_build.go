package httpx

import (
	"context"
	"net/http"
	"time"

	"github.com/previewd/previewd"
)

// BuildStream says what to follow of a build.
type BuildStream struct {
	BuildID string
	Cursor  string // of the last event that the client has; "" begins with the build as it is
	Log     bool   // stream the log too, as frames without an id
	Whole   bool   // begin with the first event where others begin with the build as it is
}

// LogFrame is the data of a "log" frame.
type LogFrame struct {
	Offset int64  `json:"offset"`
	Text   string `json:"text"`
}

// PositionFrame is the data of a "build.position" frame.
type PositionFrame struct {
	BuildID                    string     `json:"buildId"`
	QueuePosition              int        `json:"queuePosition"`
	EstimatedCompletionTime    *time.Time `json:"estimatedCompletionTime,omitempty"`
	EstimatedCompletionTimeP90 *time.Time `json:"estimatedCompletionTimeP90,omitempty"`
}

const eventPage = 100

// FollowBuild returns what answers with the build's stream: it ends with the
// build. A cursor that is of no event of this build is told so and begins anew.
// It returns CodeNotFound and CodeInvalid.
func (s *Streams) FollowBuild(ctx context.Context, want BuildStream) (http.HandlerFunc, error) {
	cursor, err := previewd.ParseCursor(want.Cursor)
	if err != nil {
		return nil, err
	}
	build, err := s.Source.FindBuild(ctx, want.BuildID, 0)
	if err != nil {
		return nil, err
	}
	t := &buildTail{source: s.Source, id: build.ID, log: want.Log}
	start := buildStart{tail: t, snapshot: want.Cursor == "" && !want.Whole}
	f := follow{key: build.ID, topic: build.ProjectID, tail: t, encoding: sse}
	if want.Log {
		f.key += " log"
	}
	if cursor.Position > 0 {
		known, rest, err := t.find(ctx, cursor)
		switch {
		case err != nil:
			return nil, err
		case !known:
			start.reset, start.snapshot = true, !want.Whole
		case !rest && build.Status.Terminal():
			// Tells EventSource not to come back.
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, nil
		default:
			f.at.seq = cursor.Position
		}
	}
	f.begin = start.begin
	return func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, f) }, nil
}

// buildStart is how a client's stream begins.
type buildStart struct {
	tail            *buildTail
	reset, snapshot bool
}

func (b *buildStart) begin(ctx context.Context, m *member) error {
	if b.reset {
		err := m.write(m.encode("", "reset", map[string]any{"reason": "The cursor is of no event of this build."}))
		if err != nil {
			return err
		}
	}
	if !b.snapshot {
		return nil
	}
	var build *previewd.Build
	var last previewd.Event
	err := m.streams.read(func(context.Context) (err error) {
		build, last, err = b.tail.snapshot(ctx)
		return err
	})
	if err != nil {
		return err
	}
	m.at.seq = last.Seq
	return m.write(m.encode(last.ID, "snapshot", build))
}

// buildTail reads a build's events and log.
type buildTail struct {
	source   EventSource
	id       string
	log      bool
	position PositionFrame // as it was told last
}

// find reports whether a cursor is an event of the build, and whether there are
// events after it.
func (t *buildTail) find(ctx context.Context, c previewd.Cursor) (known, rest bool, err error) {
	events, err := t.source.ListBuildEvents(ctx, t.id, c.Position-1, 2)
	if err != nil || len(events) == 0 {
		return false, false, err
	}
	known = events[0].Seq == c.Position && (c.Generation == 0 || events[0].ID == c.String())
	return known, len(events) > 1, nil
}

// last returns the build's last event after seq; none has the number 0.
func (t *buildTail) last(ctx context.Context, seq int64) (last previewd.Event, err error) {
	for {
		events, err := t.source.ListBuildEvents(ctx, t.id, seq, eventPage)
		if err != nil || len(events) == 0 {
			return last, err
		}
		last = events[len(events)-1]
		seq = last.Seq
	}
}

// snapshot returns the build as it was after an event. An event that comes
// between is waited for a few times; then it is told after the build that it
// has changed already, which does no harm.
func (t *buildTail) snapshot(ctx context.Context) (b *previewd.Build, last previewd.Event, err error) {
	if last, err = t.last(ctx, 0); err != nil {
		return nil, last, err
	}
	for range 5 {
		if b, err = t.source.FindBuild(ctx, t.id, 0); err != nil {
			return nil, last, err
		}
		newer, err := t.last(ctx, last.Seq)
		if err != nil || newer.Seq == 0 {
			return b, last, err
		}
		last = newer
	}
	b, err = t.source.FindBuild(ctx, t.id, 0)
	return b, last, err
}

func (t *buildTail) end(ctx context.Context) (place, error) {
	last, err := t.last(ctx, 0)
	if err != nil || !t.log {
		return place{seq: last.Seq}, err
	}
	b, err := t.source.FindBuild(ctx, t.id, 0)
	if err != nil {
		return place{}, err
	}
	return place{last.Seq, b.LogBytes}, nil
}

func (t *buildTail) read(ctx context.Context, from, to place) (frames [][]byte, at place, err error) {
	if from.offset < to.offset {
		return t.readLog(ctx, from, to.offset)
	}
	events, err := t.source.ListBuildEvents(ctx, t.id, from.seq, eventPage)
	if err != nil {
		return nil, from, err
	}
	for _, e := range events {
		if e.Seq > to.seq {
			break
		}
		frames = append(frames, sse.encode(e.ID, string(e.Type), e))
		from.seq = e.Seq
	}
	return frames, from, nil
}

// readLog returns the next chunk of the log, which ends at offset to at most.
func (t *buildTail) readLog(ctx context.Context, from place, to int64) ([][]byte, place, error) {
	chunk, err := t.source.ReadLog(ctx, t.id, from.offset, int(min(to-from.offset, logFrame)))
	if err != nil || len(chunk.Data) == 0 {
		return nil, from, err
	}
	frame := sse.encode("", "log", LogFrame{Offset: chunk.Offset, Text: string(chunk.Data)})
	from.offset = chunk.Next
	return [][]byte{frame}, from, nil
}

const logFrame = 64 << 10

// news reads the build before its log and events: when it is over here, what is
// below is all there will be.
func (t *buildTail) news(ctx context.Context, from place) (n news, err error) {
	b, err := t.source.FindBuild(ctx, t.id, 0)
	deleted := previewd.ErrorCode(err) == previewd.CodeNotFound // with its project: its events tell of its end
	if err != nil && !deleted {
		return n, err
	}
	to := place{seq: 1<<63 - 1, offset: from.offset}
	if t.log && !deleted {
		to.offset = b.LogBytes
	}
	n.at = from
	for n.at.offset < to.offset {
		before := n.at.offset
		var frames [][]byte
		if frames, n.at, err = t.readLog(ctx, n.at, to.offset); err != nil {
			return n, err
		}
		if n.at.offset == before {
			break
		}
		if n.frames = append(n.frames, frames...); len(n.frames) >= eventPage {
			n.more = true
			return n, nil
		}
	}
	for {
		var frames [][]byte
		if frames, n.at, err = t.read(ctx, n.at, place{to.seq, n.at.offset}); err != nil {
			return n, err
		}
		n.frames = append(n.frames, frames...)
		if len(frames) < eventPage {
			break
		}
	}
	switch {
	case deleted:
		n.last = sse.encode("", "end", map[string]any{"status": "deleted"})
	case b.Status.Terminal():
		n.last = sse.encode("", "end", map[string]any{"status": b.Status})
	case b.Status == previewd.BuildQueued:
		t.tellPosition(&n, b)
	}
	return n, nil
}

// etaChange is how far an estimate must move to be told again.
const etaChange = 5 * time.Second

// tellPosition adds a frame when the build's place in the queue has changed.
func (t *buildTail) tellPosition(n *news, b *previewd.Build) {
	now := PositionFrame{b.ID, b.QueuePosition, b.EstimatedCompletionTime, b.EstimatedCompletionTimeP90}
	same := now.QueuePosition == t.position.QueuePosition && near(now.EstimatedCompletionTime, t.position.EstimatedCompletionTime)
	if !same {
		t.position = now
	}
	n.hello = sse.encode("", "build.position", t.position)
	if !same {
		n.frames = append(n.frames, n.hello)
	}
}

func near(a, b *time.Time) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Sub(*b).Abs() < etaChange
}

package httpx

import (
	"context"
	"net/http"

	"github.com/previewd/previewd"
)

// FeedStream says what to follow of the feed.
type FeedStream struct {
	Cursor string // of the last event that the client has; "" is the beginning
	NDJSON bool   // a JSON object a line instead of server-sent events
}

// feedChunk is how many events a group reads at a time: as many as may wait for
// a reader.
const feedChunk = maxPending / 2

// FollowFeed returns what answers with the feed's stream, which has no end. A
// cursor of another log is told so and begins anew. It returns CodeInvalid.
func (s *Streams) FollowFeed(ctx context.Context, want FeedStream) (http.HandlerFunc, error) {
	cursor, err := previewd.ParseCursor(want.Cursor)
	if err != nil {
		return nil, err
	}
	page, err := s.Source.ListEvents(ctx, previewd.EventFilter{After: want.Cursor, Limit: 1})
	if err != nil {
		return nil, err
	}
	f := follow{key: "feed", topic: s.FeedTopic, encoding: sse, at: place{seq: cursor.Position}}
	if want.NDJSON {
		f.key, f.encoding = "feed ndjson", ndjson
	}
	f.tail = &feedTail{source: s.Source, encoding: f.encoding}
	f.begin = func(context.Context, *member) error { return nil }
	if page.Reset {
		f.at.seq = 0
		f.begin = func(_ context.Context, m *member) error {
			return m.write(m.encode("", "reset", map[string]any{"reason": "The cursor is of another log: all events follow."}))
		}
	}
	return func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, f) }, nil
}

// feedTail reads the feed.
type feedTail struct {
	source     EventSource
	generation int64
	encoding
}

func (t *feedTail) end(ctx context.Context) (place, error) {
	head, err := t.source.FindFeed(ctx)
	t.generation = head.Generation
	return place{seq: head.Position}, err
}

func (t *feedTail) read(ctx context.Context, from, to place) (frames [][]byte, at place, err error) {
	frames, at, _, err = t.page(ctx, from, to.seq)
	return frames, at, err
}

func (t *feedTail) page(ctx context.Context, from place, to int64) (frames [][]byte, at place, full bool, err error) {
	after := previewd.Cursor{Generation: t.generation, Position: from.seq}
	page, err := t.source.ListEvents(ctx, previewd.EventFilter{After: after.String(), Limit: feedChunk})
	if err != nil {
		return nil, from, false, err
	}
	if page.Reset {
		return nil, from, false, errCut
	}
	for _, e := range page.Events {
		c, err := previewd.ParseCursor(e.Cursor)
		if err != nil {
			return nil, from, false, err
		}
		if c.Position > to {
			break
		}
		frames = append(frames, t.encode(e.Cursor, string(e.Type), e))
		from.seq = c.Position
	}
	return frames, from, len(page.Events) == feedChunk, nil
}

func (t *feedTail) news(ctx context.Context, from place) (n news, err error) {
	n.frames, n.at, n.more, err = t.page(ctx, from, 1<<63-1)
	return n, err
}

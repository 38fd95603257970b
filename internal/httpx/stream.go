package httpx

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/previewd/previewd"
)

// EventSource is what streams ask of the worker.
type EventSource interface {
	FindBuild(ctx context.Context, id string, wait time.Duration) (*previewd.Build, error)
	ListBuildEvents(ctx context.Context, buildID string, after int64, limit int) ([]previewd.Event, error)
	ReadLog(ctx context.Context, buildID string, offset int64, limit int) (*previewd.LogChunk, error)
	ListEvents(ctx context.Context, filter previewd.EventFilter) (*previewd.EventPage, error)
	FindFeed(ctx context.Context) (previewd.Cursor, error)
}

// Hints tells when rows of a topic may have changed, by calling wake, which
// must not block.
type Hints interface {
	Watch(topic string, wake func()) (cancel func())
}

// StreamConfig is everything that Streams need. A zero field takes the default
// its comment names.
type StreamConfig struct {
	Source    EventSource
	Hints     Hints
	FeedTopic string
	Log       *slog.Logger  // default slog.Default()
	Max       int           // streams at a time, default 20,000
	PerOwner  int           // of one user, default 20
	Heartbeat time.Duration // between signs of life, ± 20 %; default 15 s
	MaxAge    time.Duration // of a stream, ± 20 %; default 15 min
	Write     time.Duration // for a reader to take one frame; default 10 s
	Linger    time.Duration // over which streams end when the server stops; default 4 s
	SendBytes int           // that the kernel holds for a reader; default 64 KiB
}

// Streams follows builds and the feed for many clients. What follows the same is
// a group: it reads what is new once, encodes it once and hands the bytes to its
// members. A stream that has nothing to send costs its connection and neither a
// goroutine nor buffers: it is taken from net/http once the request is read.
type Streams struct {
	StreamConfig
	ctx     context.Context //nolint:containedctx // of streams that outlive their requests; ends when the last has had its time
	end     context.CancelFunc
	readers chan struct{} // bounds how many read the database at a time
	running sync.WaitGroup
	cut     atomic.Int64

	mu       sync.Mutex
	stopping bool
	opened   int  // since memory was returned
	before   int  // opened at the last tick
	percent  *int // of the garbage collector, while collectMore has changed it
	members  map[*member]struct{}
	groups   map[string]*group
	owners   map[string]int // streams of each user

	probe *probe    // of tick alone, like
	all   []*member // which it looks at
}

// NewStreams returns Streams. Run keeps them alive.
func NewStreams(cfg StreamConfig) *Streams {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	setDefault(&cfg.Max, 20_000)
	setDefault(&cfg.PerOwner, 20)
	setDefault(&cfg.Heartbeat, 15*time.Second)
	setDefault(&cfg.MaxAge, 15*time.Minute)
	setDefault(&cfg.Write, 10*time.Second)
	setDefault(&cfg.Linger, 4*time.Second)
	setDefault(&cfg.SendBytes, 64<<10)
	s := &Streams{StreamConfig: cfg, members: map[*member]struct{}{}, groups: map[string]*group{}, owners: map[string]int{}, readers: make(chan struct{}, maxReaders), probe: newProbe()}
	s.ctx, s.end = context.WithCancel(context.Background())
	return s
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

const (
	maxReaders   = 32
	refreshEvery = time.Second // a hint can be lost with the process that owed it
	maxRefresh   = 100         // groups that look again each time
	burst        = 1000        // streams whose coming is worth a collection
)

// Counts returns how many streams there are, and how many were cut because
// their reader was too slow.
func (s *Streams) Counts() (open int, cut int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.members), s.cut.Load()
}

// Run keeps streams alive until ctx ends. Then it says bye to each and closes
// it, spread over a moment so that clients do not all come back at once.
func (s *Streams) Run(ctx context.Context) error {
	ticker := time.NewTicker(refreshEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case now := <-ticker.C:
			s.tick(now)
		case <-ctx.Done():
		}
	}
	s.stop()
	return nil
}

// tick ends streams that are old or whose client has gone away, keeps others
// alive, and looks for changes whose hint was lost: at a bounded number of
// groups, picked by chance.
func (s *Streams) tick(now time.Time) {
	var old, quiet []*member
	s.mu.Lock()
	s.all = slices.AppendSeq(s.all[:0], maps.Keys(s.members))
	for _, m := range s.all {
		switch {
		case now.After(m.expires):
			old = append(old, m)
		case now.After(m.beat):
			m.beat = now.Add(around(s.Heartbeat))
			quiet = append(quiet, m)
		}
	}
	look := make([]*group, 0, min(len(s.groups), maxRefresh))
	for _, g := range s.groups {
		if look = append(look, g); len(look) == maxRefresh {
			break
		}
	}
	for _, g := range look {
		g.poke() // under the lock: its members cannot all leave meanwhile
	}
	burstOver := s.opened >= burst && s.opened-s.before < burst/20
	if burstOver {
		s.opened = 0
	}
	s.before = s.opened
	s.collectMore(len(s.members) >= burst)
	s.mu.Unlock()
	if burstOver {
		// Many requests have left behind several times what their streams need.
		s.running.Go(debug.FreeOSMemory)
	}
	for _, m := range old {
		m.finish(nil)
	}
	for _, m := range quiet {
		m.heartbeat()
	}
	for _, m := range s.all {
		m.look(s.probe)
		s.watch(m, now)
	}
	clear(s.all)
}

// collectMore makes garbage cost less memory and more time while there are many
// streams: what is live is then many times what a request leaves behind.
func (s *Streams) collectMore(many bool) {
	switch {
	case many && s.percent == nil:
		s.percent = new(debug.SetGCPercent(50))
	case !many && s.percent != nil:
		debug.SetGCPercent(*s.percent)
		s.percent = nil
	}
}

// around returns d ± 20 %.
func around(d time.Duration) time.Duration { return d*4/5 + rand.N(d*2/5+1) }

func (s *Streams) stop() {
	s.mu.Lock()
	s.stopping = true
	members := make([]*member, 0, len(s.members))
	for m := range s.members {
		members = append(members, m)
	}
	s.mu.Unlock()
	// Few clients need no time to come back.
	spread := min(s.Linger, time.Duration(len(members))*4*time.Millisecond)
	for _, m := range members {
		time.AfterFunc(rand.N(spread+1), func() { m.finish(m.encode("", "bye", map[string]any{"reason": "The server stops: come back."})) })
	}
	late := time.AfterFunc(spread+s.Linger/4, func() {
		for _, m := range members {
			m.close()
		}
		s.end()
	})
	s.running.Wait()
	late.Stop()
	s.end()
}

// follow is a request to follow something.
type follow struct {
	key   string // streams of the same key have a group in common
	topic string
	tail  tail // of the group, if there is none yet
	begin func(ctx context.Context, m *member) error
	at    place
	guard *guard // nil: for anybody who could ask
	encoding
}

// serve answers with a stream. When it returns, the stream may go on: it is
// the server's connection no more.
func (s *Streams) serve(w http.ResponseWriter, r *http.Request, f follow) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return
	}
	var m *member
	// What a client sends after its request ends the stream, so a body would.
	err := refuseBody(r)
	if err == nil {
		m, err = s.enter(f)
	}
	if err != nil {
		h.Del("X-Accel-Buffering")
		WriteProblem(w, r, err)
		return
	}
	rc := http.NewResponseController(w)
	conn, _, err := rc.Hijack()
	if err == nil {
		m.takeConn(conn, w.Header())
		return
	}
	// HTTP/2 and recorders: the handler stays.
	w.WriteHeader(http.StatusOK)
	m.takeWriter(w, rc, s.Write)
	stop := context.AfterFunc(r.Context(), m.close)
	defer stop()
	m.run()
	<-m.done
}

// enter counts a stream in, or returns CodeUnavailable.
func (s *Streams) enter(f follow) (*member, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || len(s.members) >= s.Max {
		return nil, &previewd.Error{
			Code: previewd.CodeUnavailable, Message: "There are as many streams as this server takes; try again.",
			RetryAfter: time.Second + rand.N(4*time.Second),
		}
	}
	if f.guard != nil {
		if s.owners[f.guard.owner] >= s.PerOwner {
			return nil, &previewd.Error{
				Code: previewd.CodeUnavailable, Message: "You have as many streams as one user may have: close one.", RetryAfter: time.Second + rand.N(4*time.Second),
			}
		}
		s.owners[f.guard.owner]++
	}
	g := s.groups[f.key]
	if g == nil {
		g = &group{streams: s, key: f.key, tail: f.tail}
		s.groups[f.key] = g
		g.unwatch = s.Hints.Watch(f.topic, g.poke)
	}
	g.refs++
	now := time.Now()
	m := &member{
		streams: s, group: g, begin: f.begin, at: f.at, guard: f.guard, encoding: f.encoding,
		busy: true, beat: now.Add(around(s.Heartbeat)), expires: now.Add(around(s.MaxAge)),
	}
	s.members[m] = struct{}{}
	s.opened++
	s.running.Add(1)
	return m, nil
}

// leave counts a stream out.
func (s *Streams) leave(m *member) {
	defer s.running.Done()
	m.group.remove(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.members, m)
	if m.guard != nil {
		if s.owners[m.guard.owner]--; s.owners[m.guard.owner] == 0 {
			delete(s.owners, m.guard.owner)
		}
	}
	if m.group.refs--; m.group.refs > 0 {
		return
	}
	m.group.unwatch()
	if s.groups[m.group.key] == m.group {
		delete(s.groups, m.group.key)
	}
}

// forget lets the next client of a group that has ended begin another.
func (s *Streams) forget(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.groups[g.key] == g {
		delete(s.groups, g.key)
	}
}

// read calls fn when few others read.
func (s *Streams) read(fn func(ctx context.Context) error) error {
	select {
	case s.readers <- struct{}{}:
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	defer func() { <-s.readers }()
	return fn(s.ctx)
}

// encoding is how frames are written.
type encoding struct {
	contentType string
	pulse       string // a sign of life, which clients ignore
	encode      func(id, kind string, data any) []byte
}

// sse writes server-sent events (WHATWG HTML §9.2). Only what is durable has an
// id: a client resumes after the last one that it saw.
var sse = encoding{"text/event-stream", ": hb\n\n", func(id, kind string, data any) []byte {
	text, err := json.Marshal(data)
	if err != nil {
		panic(err) // our own types: they always can
	}
	if id != "" {
		id = "id: " + id + "\n"
	}
	return fmt.Appendf(nil, "%sevent: %s\ndata: %s\n\n", id, kind, text)
}}

// ndjson writes a JSON object a line. An event says its own type and cursor.
var ndjson = encoding{"application/x-ndjson", "\n", func(_, kind string, data any) []byte {
	if control, ok := data.(map[string]any); ok {
		control["type"] = kind
	}
	text, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	return append(text, '\n')
}}

func refuseBody(r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	return &previewd.Error{Code: previewd.CodeInvalid, Message: "A stream is asked for without a body."}
}

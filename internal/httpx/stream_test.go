package httpx_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
	"github.com/previewd/previewd/internal/workerapi"
)

var cuts = flag.Int("cuts", 100, "how often TestResumeAtAnyByte cuts its connection")

// fixture is an API on a real port.
type fixture struct {
	*worker.Service
	t       *testing.T
	db      *store.DB
	hub     *event.Hub
	streams *httpx.Streams
	server  *httptest.Server
	stop    func() // stops the streams, and waits
}

func setup(t *testing.T, db *store.DB, change ...func(*httpx.StreamConfig)) *fixture {
	t.Helper()
	artifacts, err := artifact.NewFolder(t.TempDir())
	require.NoError(t, err)
	quiet := slog.New(slog.DiscardHandler)
	f := &fixture{t: t, db: db, hub: new(event.Hub)}
	f.Service, err = worker.New(worker.Config{
		Store: db, Artifacts: artifacts, Changes: f.hub, Log: quiet, PreviewURL: func(label string) string { return "http://" + label + "/" },
	})
	require.NoError(t, err)
	// A slow machine would send signs of life between the frames that tests expect.
	cfg := httpx.StreamConfig{Source: f.Service, Hints: f.hub, FeedTopic: worker.FeedTopic, Log: quiet, Heartbeat: time.Hour}
	for _, c := range change {
		c(&cfg)
	}
	f.streams = httpx.NewStreams(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- f.streams.Run(ctx) }()
	relay := event.Relay{Feed: db, Hub: f.hub, Holder: "test", Wake: worker.EventTopic, Grown: worker.FeedTopic, Pause: time.Millisecond}
	go func() { done <- relay.Run(ctx) }()
	stopped := false
	f.stop = func() {
		if cancel(); !stopped {
			require.NoError(t, <-done)
			require.NoError(t, <-done)
			stopped = true
		}
	}
	mux := http.NewServeMux()
	workerapi.Register(mux, workerapi.Config{Worker: f.Service, Streams: f.streams, Callers: httpx.Tokens{{Secret: "t", Caller: previewd.Caller{Principal: "p", Service: "s"}}}})
	f.server = httptest.NewServer(httpx.WithRequest(quiet, mux))
	t.Cleanup(func() {
		f.stop()
		f.server.Close()
	})
	return f
}

func (f *fixture) create(user string) *previewd.Preview {
	f.t.Helper()
	p, err := f.CreatePreview(f.t.Context(), previewd.CreatePreviewRequest{
		UserID: user, TemplateFiles: previewd.Files{"index.html": []byte("x")}, IdempotencyKey: previewd.NewRequestID(),
		Caller: previewd.Caller{Principal: "p", Service: "s"},
	})
	require.NoError(f.t, err)
	return p
}

// tell appends events to a build, of about the size.
func (f *fixture) tell(p *previewd.Preview, n, size int) {
	for range n {
		err := f.db.Tx(context.Background(), "tell", func(tx *store.DB) error {
			return tx.AppendEvents(context.Background(), p.ProjectID, previewd.Event{
				Type: previewd.EventBuildStep, BuildID: p.BuildID, Data: map[string]any{"step": strings.Repeat("x", size)},
			})
		})
		if err != nil {
			f.t.Error(err)
		}
		f.hub.Notify(p.ProjectID)
		f.hub.Notify(worker.EventTopic)
	}
}

// frame is one of a stream's.
type frame struct{ id, kind, data string }

// String tells what matters of a frame.
func (f frame) String() string { return strings.TrimSpace(f.kind + " " + f.id) }

// stream is a client's end.
type stream struct {
	t      *testing.T
	conn   net.Conn
	status int
	header http.Header
	lines  *bufio.Reader
}

func (f *fixture) open(path string, header ...string) *stream {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.server.Listener.Addr().String())
	require.NoError(f.t, err)
	f.t.Cleanup(func() { conn.Close() })
	return f.ask(conn, path, header...)
}

func (f *fixture) ask(conn net.Conn, path string, header ...string) *stream {
	f.t.Helper()
	require.NoError(f.t, conn.SetDeadline(time.Now().Add(2*time.Minute)))
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nX-Request-Id: mine\r\n%s\r\n", path, strings.Join(header, ""))
	require.NoError(f.t, err)
	lines := bufio.NewReader(conn)
	response, err := http.ReadResponse(lines, nil)
	require.NoError(f.t, err)
	return &stream{f.t, conn, response.StatusCode, response.Header, bufio.NewReader(response.Body)}
}

// next returns the next frame; ok is false at the end.
func (s *stream) next() (f frame, ok bool) {
	s.t.Helper()
	for {
		line, err := s.lines.ReadString('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return f, false
		}
		require.NoError(s.t, err)
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			f.id = value
		case "event":
			f.kind = value
		case "data":
			f.data = value
		case "retry":
			f.kind = "retry"
			require.Regexp(s.t, `^[2-5]\d\d\d$`, value)
		case "":
			if value == "hb" {
				f.kind = "hb"
			}
			if f.kind != "" {
				return f, true
			}
		}
	}
}

// frames reads until one of the kind has come, or the end.
func (s *stream) frames(until string) (list []string) {
	s.t.Helper()
	for {
		f, ok := s.next()
		if !ok {
			return append(list, "EOF")
		}
		if list = append(list, f.String()); f.kind == until {
			return list
		}
	}
}

func (f *fixture) events(p *previewd.Preview) string { return "/v1/builds/" + p.BuildID + "/events" }

func (f *fixture) cancel(p *previewd.Preview) {
	f.t.Helper()
	_, err := f.CancelBuild(f.t.Context(), previewd.CancelBuildRequest{BuildID: p.BuildID, Caller: previewd.Caller{Principal: "p"}})
	require.NoError(f.t, err)
}

// A stream's whole life, frame by frame. What is not durable has no id, so that
// it moves no cursor.
func TestBuildStreamFrames(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db)
		p := f.create("u")
		s := f.open(f.events(p))
		require.Equal(t, http.StatusOK, s.status)
		require.Equal(t, "text/event-stream", s.header.Get("Content-Type"))
		require.Equal(t, "no-store, no-transform", s.header.Get("Cache-Control"))
		require.Equal(t, "no", s.header.Get("X-Accel-Buffering"))
		require.Equal(t, "mine", s.header.Get("X-Request-Id"))
		require.Equal(t, []string{"retry", "snapshot 1-2", "build.position"}, s.frames("build.position"))
		f.tell(p, 1, 3)
		step, _ := s.next()
		require.Equal(t, "build.step 1-3", step.String())
		at := regexp.MustCompile(`"at":"[^"]*"`).ReplaceAllString(step.data, `"at":"…"`)
		require.Equal(t, `{"id":"1-3","seq":3,"type":"build.step","projectId":"`+p.ProjectID+`","buildId":"`+p.BuildID+`","at":"…","data":{"step":"xxx"}}`, at)
		f.cancel(p)
		require.Equal(t, []string{"build.canceled 1-4", "end"}, s.frames("end"))
		require.Equal(t, []string{"EOF"}, s.frames(""))

		require.Equal(t, []string{"retry", "project.created 1-1", "build.queued 1-2", "build.step 1-3", "build.canceled 1-4", "end", "EOF"},
			f.open(f.events(p)+"?after=0").frames(""))
		require.Equal(t, []string{"retry", "build.canceled 1-4", "end", "EOF"}, f.open(f.events(p)+"?after=0", "Last-Event-ID: 1-3\r\n").frames(""))
		require.Equal(t, []string{"retry", "build.canceled 1-4", "end", "EOF"}, f.open(f.events(p)+"?after=3").frames(""), "a number alone")
		require.Equal(t, http.StatusNoContent, f.open(f.events(p)+"?after=1-4").status)
		for _, cursor := range []string{"2-3", "1-5", "9"} {
			require.Equal(t, []string{"retry", "reset", "snapshot 1-4", "end", "EOF"}, f.open(f.events(p)+"?after="+cursor).frames(""), cursor)
		}
		other := f.create("u2")
		f.tell(other, 3, 1)
		require.Equal(t, http.StatusBadRequest, f.open(f.events(p)+"?after=1_4").status)
	})
}

// Places in the queue are told when they change.
func TestPositionFrames(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db)
		first, second := f.create("a"), f.create("b")
		s := f.open(f.events(second) + "?after=0")
		require.Equal(t, []string{"retry", "project.created 1-1", "build.queued 1-2"}, s.frames("build.queued"))
		place := func() (position httpx.PositionFrame) {
			frame, ok := s.next()
			require.True(t, ok)
			require.Equal(t, "build.position", frame.String(), "without an id")
			require.NoError(t, json.Unmarshal([]byte(frame.data), &position))
			return position
		}
		require.Equal(t, 2, place().QueuePosition)
		f.cancel(first)
		for place().QueuePosition != 1 { // at most one more that tells the first place again
		}
		f.cancel(second)
		require.Equal(t, []string{"build.canceled 1-3", "end"}, s.frames("end"))
	})
}

// A connection that breaks at any byte is taken up again without a gap or a
// repeat, while events keep coming.
func TestResumeAtAnyByte(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db)
		p := f.create("u")
		last, written := int64(0), int64(2)
		for range *cuts {
			n := 1 + rand.IntN(5)
			told := make(chan struct{})
			go func() {
				f.tell(p, n, rand.IntN(300))
				close(told)
			}()
			last = f.readSome(p, last, rand.IntN(4000), patience)
			<-told
			written += int64(n)
		}
		for wait := patience; last < written; {
			before := last
			if last = f.readSome(p, last, 1<<20, wait); last == before {
				wait *= 2 // until what comes first comes in time
				require.Less(t, wait, time.Minute, "nothing comes after %d", last)
			}
		}
		require.Equal(t, written, last)
	})
}

const patience = 40 * time.Millisecond // after which no more comes

// readSome resumes after an event, takes so many bytes, or what comes in time, and
// hangs up. It returns the last event that came whole.
func (f *fixture) readSome(p *previewd.Preview, after int64, bytes int, wait time.Duration) int64 {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.server.Listener.Addr().String())
	require.NoError(f.t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "GET %s?after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nLast-Event-ID: 1-%d\r\n\r\n", f.events(p), after)
	require.NoError(f.t, err)
	require.NoError(f.t, conn.SetReadDeadline(time.Now().Add(wait)))
	raw, _ := io.ReadAll(io.LimitReader(conn, int64(bytes)))
	frames := strings.Split(string(raw), "\n\n")
	for _, text := range frames[:len(frames)-1] { // the last is not whole
		_, rest, ok := strings.Cut(text, "id: 1-")
		if !ok {
			require.NotContains(f.t, text, "event: reset")
			continue
		}
		var seq int64
		_, err := fmt.Sscanf(rest, "%d\n", &seq)
		require.NoError(f.t, err)
		require.Equal(f.t, after+1, seq, "no gap and no repeat")
		after = seq
	}
	return after
}

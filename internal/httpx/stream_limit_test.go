package httpx_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// A reader that stalls is cut and not left out of anything; it delays nobody.
func TestStalledReaderIsCutAndResumes(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		// A write that lasts too long ends the stream too, and counts as no cut.
		f := setup(t, db, func(cfg *httpx.StreamConfig) { cfg.SendBytes, cfg.Write = 4<<10, time.Minute })
		p := f.create("u")
		conn, err := net.Dial("tcp", f.server.Listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
		stalled := f.ask(conn, f.events(p)+"?after=1-1")
		first, healthy := stalled.frames("build.queued"), f.open(f.events(p)+"?after=1-2")
		require.Equal(t, []string{"retry", "build.queued 1-2"}, first)
		require.Equal(t, []string{"retry", "build.position"}, healthy.frames("build.position"))
		told := int64(2)
		cut := func() int64 {
			_, n := f.streams.Counts()
			return n
		}
		for cut() == 0 {
			f.tell(p, 1, 20<<10)
			told++
			frame, ok := healthy.next()
			for ok && frame.kind == "build.position" {
				frame, ok = healthy.next()
			}
			require.True(t, ok)
			require.Equal(t, fmt.Sprintf("build.step 1-%d", told), frame.String(), "at once, while the other stalls")
			require.Less(t, told, int64(500), "it is cut some time")
		}
		last := int64(2)
		for { // what it was sent before is in order and ends somewhere
			frame, ok := stalled.next()
			if !ok {
				break
			}
			if frame.id != "" {
				last++
				require.Equal(t, fmt.Sprintf("1-%d", last), frame.id)
			}
		}
		require.Less(t, last, told)
		again := f.open(f.events(p), fmt.Sprintf("Last-Event-ID: 1-%d\r\n", last))
		for last < told {
			frame, ok := again.next()
			require.True(t, ok)
			if frame.id != "" {
				last++
				require.Equal(t, fmt.Sprintf("1-%d", last), frame.id, "it resumes without a gap")
			}
		}
	})
}

// A reader that takes nothing for as long as one write may last is cut too.
func TestWritesHaveADeadline(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db, func(cfg *httpx.StreamConfig) { cfg.SendBytes, cfg.Write = 4<<10, 2*time.Second })
		p := f.create("u")
		conn, err := net.Dial("tcp", f.server.Listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
		f.ask(conn, f.events(p)).frames("snapshot")
		f.tell(p, 20, 30<<10)
		testkit.Eventually(t, "the stream is closed", func() bool {
			open, _ := f.streams.Counts()
			return open == 0
		})
	})
}

// A server that stops says bye to everybody, in time, and leaves nothing behind.
func TestStopSaysBye(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		// Streams that have not taken their bye after a quarter of it are closed.
		f := setup(t, db, func(cfg *httpx.StreamConfig) { cfg.Linger = time.Minute })
		p := f.create("u")
		var streams []*stream
		for i := range 20 {
			path := f.events(p)
			if i%2 == 1 {
				path = "/v1/events?after=0"
			}
			s := f.open(path, "Accept: text/event-stream\r\n")
			require.Contains(t, strings.Join(s.frames([]string{"snapshot", "build.queued"}[i%2]), ","), "retry")
			streams = append(streams, s)
		}
		began := time.Now()
		f.stop()
		require.Less(t, time.Since(began), 14*time.Second)
		for _, s := range streams {
			list := s.frames("")
			require.Equal(t, []string{"bye", "EOF"}, list[len(list)-2:])
		}
		open, _ := f.streams.Counts()
		require.Zero(t, open)
		require.Equal(t, http.StatusServiceUnavailable, f.open(f.events(p)).status, "no new ones")
	})
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db, func(cfg *httpx.StreamConfig) { cfg.Max = 2 })
		p := f.create("u")
		first, second := f.open(f.events(p)), f.open(f.events(p))
		first.frames("snapshot")
		second.frames("snapshot")
		refused := f.open(f.events(p))
		require.Equal(t, http.StatusServiceUnavailable, refused.status)
		require.Regexp(t, `^[1-5]$`, refused.header.Get("Retry-After"))
		require.Equal(t, "application/problem+json", refused.header.Get("Content-Type"))
		first.conn.Close()
		testkit.Eventually(t, "it is noticed that a client has gone", func() bool {
			open, _ := f.streams.Counts()
			return open == 1
		})
		require.Equal(t, http.StatusOK, f.open(f.events(p)).status)
	})
}

// Signs of life come to whoever has nothing else, and no stream lasts for ever.
func TestHeartbeatAndAge(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db, func(cfg *httpx.StreamConfig) { cfg.Heartbeat = time.Second })
		p := f.create("u")
		require.Contains(t, f.open(f.events(p)).frames("hb"), "hb")
		// By another server, or a slow stream would be too old before its first sign.
		f = setup(t, db, func(cfg *httpx.StreamConfig) { cfg.MaxAge = time.Second })
		require.Contains(t, f.open(f.events(p)).frames(""), "EOF", "it ends, and the client comes back")
	})
}

// The feed in its three forms, all with one cursor.
func TestFeedForms(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db)
		p := f.create("u")
		page := func(query string) (page previewd.EventPage) {
			s := f.open("/v1/events" + query)
			require.Equal(t, http.StatusOK, s.status)
			require.NoError(t, json.NewDecoder(s.lines).Decode(&page))
			return page
		}
		one := page("?limit=1&wait=60s")
		require.Len(t, one.Events, 1)
		require.Equal(t, "1-1", one.Next)
		require.Equal(t, []string{"1-1", "1-1", p.ProjectID}, []string{one.Events[0].ID, one.Events[0].Cursor, one.Events[0].ProjectID})
		two := page("?after=" + one.Next + "&wait=60s")
		require.Equal(t, "1-2", two.Next)
		require.Empty(t, page("?after=1-2").Events)
		require.Equal(t, "1-2", page("?after=1-2").Next)
		for _, cursor := range []string{"2-1", "1-99", "99"} {
			again := page("?wait=60s&after=" + cursor)
			require.True(t, again.Reset, cursor)
			require.Len(t, again.Events, 2, "from the beginning")
		}
		for _, bad := range []string{"?after=x", "?limit=501", "?limit=-1", "?wait=soon"} {
			require.Equal(t, http.StatusBadRequest, f.open("/v1/events"+bad).status, bad)
		}
		stream := f.open("/v1/events?after=0", "Accept: text/event-stream\r\n")
		require.Equal(t, []string{"retry", "project.created 1-1", "build.queued 1-2"}, stream.frames("build.queued"))
		lines := f.open("/v1/events?after=2-7", "Accept: application/x-ndjson\r\n")
		require.Equal(t, "application/x-ndjson", lines.header.Get("Content-Type"))
		waiting := make(chan previewd.EventPage)
		go func() { waiting <- page("?after=1-2&wait=60s") }()
		f.tell(p, 1, 1)
		require.Equal(t, "1-3", (<-waiting).Next, "a long poll ends when there is something")
		require.Equal(t, []string{"build.step 1-3"}, stream.frames("build.step"))
		for _, want := range []string{`^{.*"type":"reset"}`, `"cursor":"1-1"`, `"cursor":"1-2"`, `"type":"build.step".*|"cursor":"1-3"`} {
			line, err := lines.lines.ReadString('\n')
			require.NoError(t, err)
			require.Regexp(t, want, line)
		}
	})
}

// Where a connection cannot be taken from net/http the handler stays.
func TestStreamWithoutHijack(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db)
		p := f.create("u")
		f.cancel(p)
		w := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodGet, f.events(p)+"?after=0", nil)
		req.Header.Set("Authorization", "Bearer t")
		f.server.Config.Handler.ServeHTTP(w, req)
		require.Equal(t, http.StatusOK, w.Code)
		require.Contains(t, w.Body.String(), "id: 1-1\nevent: project.created\n")
		require.True(t, strings.HasSuffix(w.Body.String(), "event: end\ndata: {\"status\":\"canceled\"}\n\n"))
	})
}

// Streams that have ended leave no goroutine.
func TestStreamsLeaveNothing(t *testing.T) {
	db, err := store.Open(t.Context(), store.Config{Path: t.TempDir() + "/test.db"})
	require.NoError(t, err)
	defer db.Close()
	f := setup(t, db)
	p := f.create("u")
	f.open(f.events(p)).frames("snapshot")
	before := streamGoroutines()
	for range 50 {
		s := f.open(f.events(p))
		s.frames("snapshot")
		s.conn.Close()
	}
	testkit.Eventually(t, "what streams began has ended", func() bool { return streamGoroutines() <= before })
}

func streamGoroutines() int {
	buf := make([]byte, 4<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "httpx.(*member)")
}

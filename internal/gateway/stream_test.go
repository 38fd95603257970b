package gateway_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// api is the fixture behind its API on a real port.
type api struct {
	*fixture
	server  *httptest.Server
	streams *httpx.Streams
	stop    context.CancelFunc // the streams
}

// token is one that serve's verifier takes: whose, and for how long.
func token(user string, good ...time.Duration) string {
	if len(good) == 0 {
		return user
	}
	return user + "/" + time.Now().Add(good[0]).Format(time.RFC3339Nano)
}

func verify(_ context.Context, token string) (*previewd.User, error) {
	id, until, _ := strings.Cut(token, "/")
	user := &previewd.User{ID: id, SessionID: "session-of-" + id}
	if until != "" {
		user.Expires, _ = time.Parse(time.RFC3339Nano, until)
	}
	return user, nil
}

func (f *fixture) serve(change ...func(*gateway.APIConfig, *httpx.StreamConfig)) *api {
	f.t.Helper()
	streams := httpx.StreamConfig{Hints: f.cfg.Changes.(httpx.Hints), Log: quiet}
	cfg := gateway.APIConfig{Service: f.Service, Verify: verify, Denials: gateway.NewDenials(f.Store)}
	for _, c := range change {
		c(&cfg, &streams)
	}
	a := &api{fixture: f, streams: httpx.NewStreams(streams)}
	cfg.Streams = a.streams
	mux := http.NewServeMux()
	gateway.Register(mux, cfg)
	a.server = httptest.NewServer(httpx.WithRequest(quiet, mux))
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	done := make(chan error, 1)
	go func() { done <- a.streams.Run(ctx) }()
	f.t.Cleanup(func() {
		stop()
		require.NoError(f.t, <-done)
		a.server.Close()
	})
	return a
}

func (a *api) follow(token, path string, header ...string) *testkit.Events {
	a.t.Helper()
	return testkit.FollowEvents(a.t, a.server.URL+path, append(header, "Authorization", "Bearer "+token)...)
}

// kinds are the types of frames.
func kinds(frames []testkit.Frame) (list []string) {
	for _, f := range frames {
		list = append(list, f.Type)
	}
	return list
}

// isControl reports whether a frame is no event, and so moves no cursor.
func isControl(f testkit.Frame) bool { return !strings.Contains(f.Type, ".") && f.Type != "snapshot" }

// quieten makes the last change of a project an old one.
func (a *api) quieten(shell *testkit.Shell) {
	shell.Do("UPDATE gateway_projects SET updated_at = updated_at - 31000000")
}

// world of streams: two users, one with a project of every end.
func streamWorld(t *testing.T, f *fixture, change ...func(*gateway.APIConfig, *httpx.StreamConfig)) (*api, *previewd.AppProject) {
	t.Helper()
	f.create(bob)
	f.build(previewd.Outcome{Kind: previewd.OutcomeCompleted})
	p := f.ended()
	return f.serve(change...), p
}

func manyStreams(_ *gateway.APIConfig, cfg *httpx.StreamConfig) { cfg.PerOwner = 1000 }

// A stream shows how things are and then what happens; from the beginning, or
// from any event on, it leaves nothing out and repeats nothing.
func TestStreamsResumeAnywhere(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		a, p := streamWorld(t, f, manyStreams)
		for _, path := range []string{"/api/projects/" + p.ID + "/events", "/api/events"} {
			now := a.follow(token(ann), path)
			require.Equal(t, http.StatusOK, now.Status)
			require.Equal(t, "no-store, no-transform", now.Header.Get("Cache-Control"))
			require.Equal(t, "no", now.Header.Get("X-Accel-Buffering"))
			snapshot := now.Take(1)[0]
			require.Equal(t, "snapshot", snapshot.Type)
			require.Contains(t, snapshot.Data, `"id":"`+p.ID+`"`)

			rows, err := f.Store.ListAppProjectEvents(t.Context(), p.ID, 0, 500)
			require.NoError(t, err)
			all := a.follow(token(ann), path+"?after=0").Take(len(rows))
			for i, frame := range all {
				require.Equal(t, string(rows[i].Type), frame.Type)
				require.NotEmpty(t, frame.ID)
				require.NotContains(t, frame.Data, "idempotencyKey", "is between gateway and worker")
				var e previewd.Event
				require.NoError(t, json.Unmarshal([]byte(frame.Data), &e))
				require.Equal(t, int64(i+1), e.Seq)
			}
			require.LessOrEqual(t, all[len(all)-1].ID, snapshot.ID)
			for cut := range len(all) - 1 {
				rest := a.follow(token(ann), path+"?after=0", "Last-Event-ID", all[cut].ID).Take(len(all) - cut - 1)
				require.Equal(t, all[cut+1:], rest, "the header goes before, cut at %d", cut)
				require.Equal(t, all[cut+1:cut+2], a.follow(token(ann), path+"?after="+all[cut].ID).Take(1))
			}
			made, err := f.CreateBuild(t.Context(), as(ann, previewd.NewRequestID()), gateway.CreateBuild{ProjectID: p.ID, TemplateFiles: page().TemplateFiles})
			require.NoError(t, err)
			f.follow()
			live := now.Take(1)[0]
			require.Equal(t, "build.queued", live.Type)
			require.Contains(t, live.Data, made.Build.ID)
			require.Contains(t, live.Data, `"status":"queued"`)
			_, err = f.CancelBuild(t.Context(), as(ann), made.Build.ID)
			require.NoError(t, err)
			f.follow()
			require.Equal(t, "build.canceled", now.Take(1)[0].Type)
			now.Close()
		}
	}, priced)
}

// A cursor of another log is told so and gets how things are; one that is none is
// refused.
func TestStreamsDoNotBelieveCursors(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		a, p := streamWorld(t, f, manyStreams)
		for _, path := range []string{"/api/projects/" + p.ID + "/events", "/api/events"} {
			for _, cursor := range []string{"9999", "1-9999", "2-1", "7-0"} {
				frames := a.follow(token(ann), path, "Last-Event-ID", cursor).Take(2)
				require.Equal(t, []string{"reset", "snapshot"}, kinds(frames), cursor)
				require.Empty(t, frames[0].ID, "what is not durable moves no cursor")
				require.NotEmpty(t, frames[1].ID)
			}
			for _, cursor := range []string{"x", "-1", "1-", "-", "1-2-3", "0-1", "1-+1", "99999999999999999999"} {
				refused := a.follow(token(ann), path, "Last-Event-ID", cursor)
				require.Equal(t, http.StatusBadRequest, refused.Status, cursor)
				require.Equal(t, "application/problem+json", refused.Header.Get("Content-Type"))
				require.Contains(t, refused.Body, `"referenceId":"ref_`)
			}
		}
	})
}

// near is a fixture on one engine, with a shell on its database.
func near(t *testing.T, e testkit.Engine, change ...func(*gateway.Config)) (*fixture, *testkit.Shell) {
	t.Helper()
	cfg := e.Config(t)
	e.Config = func(testing.TB) store.Config { return cfg }
	f := setup(t, e, false, change...)
	return f, testkit.OpenShell(t, cfg)
}

func eachNear(t *testing.T, test func(t *testing.T, f *fixture, shell *testkit.Shell)) {
	t.Helper()
	t.Parallel()
	for _, e := range testkit.Engines() {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			f, shell := near(t, e)
			test(t, f, shell)
		})
	}
}

// A stream ends when its project's build is over and all is quiet; who comes back
// is told to stay away. One that goes on later can be followed again.
func TestStreamEndsWhenAllIsQuiet(t *testing.T) {
	eachNear(t, func(t *testing.T, f *fixture, shell *testkit.Shell) {
		a, p := streamWorld(t, f)
		path := "/api/projects/" + p.ID + "/events"
		stream := a.follow(token(ann), path+"?after=0")
		rows, err := f.Store.ListAppProjectEvents(t.Context(), p.ID, 0, 500)
		require.NoError(t, err)
		all := stream.Take(len(rows))
		a.quieten(shell)
		rest := stream.Rest()
		require.Equal(t, []string{"end"}, kinds(rest))
		require.Empty(t, rest[0].ID)
		last := all[len(all)-1].ID
		require.Equal(t, http.StatusNoContent, a.follow(token(ann), path, "Last-Event-ID", last).Status)
		require.Equal(t, append(kinds(all[1:]), "end"), kinds(a.follow(token(ann), path, "Last-Event-ID", all[0].ID).Rest()), "who has not seen all gets the rest")
		require.Equal(t, []string{"snapshot", "end"}, kinds(a.follow(token(ann), path).Rest()))

		_, err = f.CreateBuild(t.Context(), as(ann, previewd.NewRequestID()), gateway.CreateBuild{ProjectID: p.ID, TemplateFiles: page().TemplateFiles})
		require.NoError(t, err)
		again := a.follow(token(ann), path, "Last-Event-ID", last)
		f.follow()
		require.Equal(t, "build.queued", again.Take(1)[0].Type)
	})
}

// A stream ends with the token that asked for it, and with the right to it.
func TestStreamEndsWithTheRightToIt(t *testing.T) {
	eachNear(t, func(t *testing.T, f *fixture, shell *testkit.Shell) {
		a, p := streamWorld(t, f, func(cfg *gateway.APIConfig, _ *httpx.StreamConfig) { cfg.Recheck = time.Millisecond })
		path := "/api/projects/" + p.ID + "/events"
		began, short := time.Now(), token(ann, 5*time.Second)
		for _, expiring := range []*testkit.Events{a.follow(short, path), a.follow(short, "/api/events")} {
			frames := expiring.Rest()
			require.Equal(t, []string{"snapshot", "reauth"}, kinds(frames))
			require.Empty(t, frames[1].ID)
			require.Less(t, time.Since(began), 25*time.Second)
		}
		lost, deleted := a.follow(token(ann), path), f.create(ann)
		require.Equal(t, "snapshot", lost.Take(1)[0].Type)
		f.follow()
		gone := a.follow(token(ann), "/api/projects/"+deleted.Project.ID+"/events")
		require.Equal(t, "snapshot", gone.Take(1)[0].Type)
		_, err := f.DeleteProject(t.Context(), as(ann), deleted.Project.ID)
		require.NoError(t, err)
		f.follow()
		frames := gone.Rest()
		require.Equal(t, "end", frames[len(frames)-1].Type)

		shell.Do("UPDATE gateway_projects SET owner_id = '" + bob + "' WHERE id = '" + p.ID + "'")
		require.Equal(t, []string{"end"}, kinds(lost.Rest()))
		require.Equal(t, http.StatusNotFound, a.follow(token(ann), path).Status)
		shell.Do("UPDATE gateway_projects SET owner_id = '" + ann + "' WHERE id = '" + p.ID + "'")

		denied := a.follow(token(ann), "/api/events")
		require.Equal(t, "snapshot", denied.Take(1)[0].Type)
		ticket, err := f.NewTicket(t.Context(), previewd.User{ID: ann, SessionID: "session-of-" + ann})
		require.NoError(t, err)
		began = time.Now()
		require.NoError(t, f.Deny(t.Context(), as(bob), store.DeniedSubject{Kind: "session", Subject: "session-of-" + ann}, "test"))
		require.Equal(t, []string{"end"}, kinds(denied.Rest()))
		require.Less(t, time.Since(began), 20*time.Second)
		require.Equal(t, http.StatusUnauthorized, testkit.FollowEvents(t, a.server.URL+"/api/events?ticket="+ticket.Ticket).Status, "a ticket lets no denied user in")
	})
}

// One user has twenty streams, and no stream of another's.
func TestStreamsAreEachUsersOwn(t *testing.T) {
	eachNear(t, func(t *testing.T, f *fixture, _ *testkit.Shell) {
		a, p := streamWorld(t, f)
		var open []*testkit.Events
		for range 20 {
			e := a.follow(token(ann), "/api/events")
			require.Equal(t, http.StatusOK, e.Status)
			e.Take(1)
			open = append(open, e)
		}
		refused := a.follow(token(ann), "/api/projects/"+p.ID+"/events")
		require.Equal(t, http.StatusServiceUnavailable, refused.Status)
		require.Regexp(t, `^[1-9]$`, refused.Header.Get("Retry-After"))
		theirs := a.follow(token(bob), "/api/events")
		require.NotContains(t, theirs.Take(1)[0].Data, ann)
		require.Equal(t, http.StatusNotFound, a.follow(token(bob), "/api/projects/"+p.ID+"/events").Status)
		open[0].Close()
		testkit.Eventually(t, "a place is free", func() bool {
			return a.follow(token(ann), "/api/projects/"+p.ID+"/events").Status == http.StatusOK
		})

		mine := f.create(bob)
		f.create(ann)
		f.build(previewd.Outcome{Kind: previewd.OutcomeCompleted})
		f.follow()
		for _, frame := range theirs.Take(5) { // created, queued, building, completed, activated
			require.Contains(t, frame.Data, mine.Project.ID)
		}
		for _, frame := range open[1].Take(2) {
			require.NotContains(t, frame.Data, mine.Project.ID)
		}
		for _, frame := range a.follow(token(bob), "/api/events?after=0").Take(10) {
			require.NotContains(t, frame.Data, p.ID)
		}
	})
}

// A reader that does not read is cut, and holds up nobody. A server that stops
// says so.
func TestStalledReaderIsCut(t *testing.T) {
	eachNear(t, func(t *testing.T, f *fixture, shell *testkit.Shell) {
		a, p := streamWorld(t, f, func(_ *gateway.APIConfig, cfg *httpx.StreamConfig) { cfg.SendBytes = 4 << 10 })
		conn, err := net.Dial("tcp", a.server.Listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
		_, err = conn.Write([]byte("GET /api/events?after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token(ann) + "\r\n\r\n"))
		require.NoError(t, err)
		good := a.follow(token(ann), "/api/events")
		good.Take(1)
		testkit.Eventually(t, "both follow", func() bool { open, _ := a.streams.Counts(); return open == 2 })
		feed, err := f.Store.FindAppFeed(t.Context())
		require.NoError(t, err)
		const n, big = 40, 100_000
		for i := range n {
			require.NoError(t, f.Store.Tx(t.Context(), "tell", func(tx *store.DB) error {
				feed.Position++
				err := tx.InsertAppEvent(t.Context(), feed.Position, ann, previewd.Event{
					Seq: int64(1000 + i), Type: previewd.EventBuildStep, ProjectID: p.ID, At: time.Now(), Data: map[string]any{"step": strings.Repeat("x", big)},
				})
				if err != nil {
					return err
				}
				return tx.MoveAppFeed(t.Context(), feed)
			}))
			f.cfg.Changes.Notify(gateway.UserTopic(ann))
			require.Greater(t, len(good.Take(1)[0].Data), big)
		}
		testkit.Eventually(t, "the stalled one is cut", func() bool { open, _ := a.streams.Counts(); return open == 1 })
		a.stop()
		rest := good.Rest()
		require.Equal(t, []string{"bye"}, kinds(rest))
		require.True(t, isControl(rest[0]))
		require.Empty(t, rest[0].ID)
		shell.Do("DELETE FROM gateway_events WHERE seq >= 1000\nUPDATE gateway_feed SET position = (SELECT MAX(position) FROM gateway_events)")
	})
}

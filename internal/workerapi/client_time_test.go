package workerapi_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/workerapi"
)

// pipes is a network inside a bubble, whose clock stands still while anybody
// waits for a real one.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.done)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bubble runs a test on a clock of its own, with a client and its worker.
func bubble(t *testing.T, test func(t *testing.T, worker *script, far *workerapi.Client)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		worker := &script{}
		server := &http.Server{Handler: worker, ErrorLog: slog.NewLogLogger(quiet.Handler(), slog.LevelDebug)}
		go func() { _ = server.Serve(network) }()
		transport := &http.Transport{DialContext: network.dial, DisableKeepAlives: true}
		far, err := workerapi.NewClient(workerapi.ClientConfig{URL: "http://worker.test", Token: token, Transport: transport, Jitter: noJitter})
		require.NoError(t, err)
		test(t, worker, far)
		transport.CloseIdleConnections()
		require.NoError(t, server.Close())
	})
}

// slow answers after a while, or not at all when the client has gone.
func slow(d time.Duration, then http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			then(w, r)
		case <-r.Context().Done():
		}
	}
}

func take(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

func TestTimeouts(t *testing.T) {
	bubble(t, func(t *testing.T, worker *script, far *workerapi.Client) {
		hang := slow(time.Hour, created())
		var err error
		worker.play(hang, created())
		took := take(func() { _, err = far.CreatePreview(t.Context(), request()) })
		require.NoError(t, err)
		require.Equal(t, 10*time.Second, took)

		worker.play(hang, answers(200, buildOf()))
		took = take(func() { _, err = far.FindBuild(t.Context(), aBuild, 0) })
		require.NoError(t, err)
		require.Equal(t, 5*time.Second, took)

		worker.play(hang, answers(200, buildOf()))
		took = take(func() { _, err = far.FindBuild(t.Context(), aBuild, 20*time.Second) })
		require.NoError(t, err)
		require.Equal(t, 25*time.Second, took)

		worker.play(slow(time.Hour, answers(200, buildOf())), answers(200, buildOf()))
		took = take(func() { _, err = far.FindBuild(t.Context(), aBuild, time.Hour) })
		require.NoError(t, err)
		require.Equal(t, 65*time.Second, took)
		require.Equal(t, "1m0s", worker.seen()[0].URL.Query().Get("wait"), "as long as the worker lets anybody")

		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		defer cancel()
		worker.play(hang)
		took = take(func() { _, err = far.CreatePreview(ctx, request()) })
		require.Equal(t, previewd.CodeUnavailable, previewd.ErrorCode(err))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 12*time.Second, took)
		require.Len(t, worker.seen(), 2)
	})
}

func TestRetryAfter(t *testing.T) {
	bubble(t, func(t *testing.T, worker *script, far *workerapi.Client) {
		var err error
		create := func(ctx context.Context) func() {
			return func() { _, err = far.CreatePreview(ctx, request()) }
		}
		for name, later := range map[string]http.HandlerFunc{
			"worker": problem(429, previewd.CodeQueueFull, "Retry-After", "3"),
			"proxy":  html(503, "Retry-After", "3"),
			"date": func(w http.ResponseWriter, r *http.Request) {
				html(503, "Retry-After", time.Now().Add(3*time.Second).UTC().Format(http.TimeFormat))(w, r)
			},
			"body": answers(503, object{"code": "unavailable", "referenceId": "ref", "retryAfterMs": 3000}, "Content-Type", "application/problem+json"),
		} {
			worker.play(later, created())
			require.Equal(t, 3*time.Second, take(create(t.Context())), name)
			require.NoError(t, err, name)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		worker.play(problem(429, previewd.CodeQueueFull, "Retry-After", "3"))
		require.Zero(t, take(create(ctx)), "who has no time to wait is told at once")
		require.Equal(t, previewd.CodeQueueFull, previewd.ErrorCode(err))
		worker.play(problem(429, previewd.CodeQueueFull, "Retry-After", "3600"))
		require.Zero(t, take(create(t.Context())), "nobody waits for an hour")
		require.Len(t, worker.seen(), 1)
	})
}

// The pauses grow, and are spread over all of their range.
func TestPausesHaveFullJitter(t *testing.T) {
	t.Parallel()
	var limits []time.Duration
	far, err := workerapi.NewClient(workerapi.ClientConfig{URL: "http://127.0.0.1:1", Retries: 4, Jitter: func(limit time.Duration) time.Duration {
		limits = append(limits, limit)
		return 0
	}})
	require.NoError(t, err)
	_, err = far.FindBuild(t.Context(), aBuild, 0)
	require.Equal(t, previewd.CodeUnavailable, previewd.ErrorCode(err))
	const ms = time.Millisecond
	require.Equal(t, []time.Duration{250 * ms, 500 * ms, 1000 * ms, 2000 * ms}, limits[:4])
}

func TestCircuit(t *testing.T) {
	bubble(t, func(t *testing.T, worker *script, far *workerapi.Client) {
		find := func() *previewd.Error {
			_, err := far.FindBuild(t.Context(), aBuild, 0)
			if err == nil {
				return nil
			}
			var e *previewd.Error
			require.ErrorAs(t, err, &e)
			return e
		}
		worker.play(problem(500, previewd.CodeInternal))
		find()
		require.Zero(t, far.Counts().CircuitOpened.Load())
		find()
		require.EqualValues(t, 5, far.Counts().Tries.Load(), "four tries and one")
		require.EqualValues(t, 1, far.Counts().CircuitOpened.Load())
		var pauses []time.Duration
		for range 6 { // it opens again after each probe, for longer
			e := find()
			require.Equal(t, previewd.CodeUnavailable, e.Code)
			pauses = append(pauses, e.RetryAfter)
			tries := far.Counts().Tries.Load()
			time.Sleep(e.RetryAfter - time.Nanosecond)
			find()
			require.Equal(t, tries, far.Counts().Tries.Load(), "open: nothing is sent")
			time.Sleep(time.Nanosecond)
			find()
			require.Equal(t, tries+1, far.Counts().Tries.Load(), "one probe, which is not tried again")
		}
		const s = time.Second
		require.Equal(t, []time.Duration{1 * s, 2 * s, 4 * s, 8 * s, 15 * s, 15 * s}, pauses, "and up to twice as long by chance")

		time.Sleep(15 * time.Second)
		worker.play(slow(time.Second, answers(200, buildOf())))
		var waited, refused atomic.Int64
		probes := make(chan struct{}, 50)
		for range cap(probes) {
			go func() {
				if _, err := far.FindBuild(t.Context(), aBuild, 30*time.Second); err == nil {
					waited.Add(1)
				} else {
					refused.Add(1)
				}
				probes <- struct{}{}
			}()
		}
		for range cap(probes) {
			<-probes
		}
		require.EqualValues(t, 1, waited.Load(), "one goes through")
		require.EqualValues(t, 49, refused.Load(), "the others are told at once")
		require.Len(t, worker.seen(), 1)
		require.Empty(t, worker.seen()[0].URL.Query().Get("wait"), "a probe does not wait for news")
		require.Nil(t, find(), "closed")
		require.EqualValues(t, 1, far.Counts().CircuitOpened.Load())
	})
}

// Callers that go away show nothing, and answers of any kind show life.
func TestWhatOpensNoCircuit(t *testing.T) {
	bubble(t, func(t *testing.T, worker *script, far *workerapi.Client) {
		worker.play(slow(time.Hour, created()))
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			_, err := far.CreatePreview(ctx, request())
			require.ErrorIs(t, err, context.Canceled)
		}
		for range 10 { // a long poll that its caller cuts short
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := far.ListEvents(ctx, previewd.EventFilter{Wait: time.Minute})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
		}
		for _, answer := range []http.HandlerFunc{
			problem(404, previewd.CodeNotFound), problem(401, previewd.CodeUnauthorized), html(200), problem(429, previewd.CodeQueueFull, "Retry-After", "60"),
		} {
			worker.play(answer)
			for range 10 {
				_, err := far.FindBuild(t.Context(), aBuild, 0)
				require.Error(t, err)
			}
		}
		require.Zero(t, far.Counts().CircuitOpened.Load())
		worker.play(slow(time.Hour, created()))
		for range 5 { // but who gave it time and got nothing
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := far.CreatePreview(ctx, request())
			require.Error(t, err)
			cancel()
		}
		require.EqualValues(t, 1, far.Counts().CircuitOpened.Load())
	})
}

func TestNotFoundAfterCreate(t *testing.T) {
	bubble(t, func(t *testing.T, worker *script, far *workerapi.Client) {
		missing := problem(404, previewd.CodeNotFound)
		create := func() {
			worker.play(created())
			_, err := far.CreatePreview(t.Context(), request())
			require.NoError(t, err)
		}
		lost := func(want time.Duration, counted int64) {
			before := far.Counts().NotFoundAfterCreate.Load()
			worker.play(missing)
			took := take(func() {
				_, err := far.FindBuild(t.Context(), aBuild, 0)
				require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
			})
			require.Equal(t, want, took)
			require.Equal(t, counted, far.Counts().NotFoundAfterCreate.Load()-before)
		}
		lost(0, 0) // nobody has created it
		create()
		worker.play(missing, missing, answers(200, buildOf()))
		require.Equal(t, 3*time.Second, take(func() {
			_, err := far.FindBuild(t.Context(), aBuild, 0)
			require.NoError(t, err)
		}))
		require.EqualValues(t, 2, far.Counts().NotFoundAfterCreate.Load())
		lost(6*time.Second, 3) // after 1, 2 and 3 seconds

		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		require.Equal(t, 1500*time.Millisecond, take(func() {
			_, err := far.FindProject(ctx, aProject)
			require.Error(t, err)
		}))
		time.Sleep(31 * time.Second)
		lost(0, 0)
		create()
		worker.play(answers(204, ""))
		require.NoError(t, far.DeleteProject(t.Context(), previewd.DeleteProjectRequest{ProjectID: aProject}))
		lost(0, 0)
		worker.play(answers(200, aPreview(), "Idempotent-Replayed", "true"))
		_, err := far.CreatePreview(t.Context(), request())
		require.NoError(t, err)
		lost(0, 0) // a replay can be old
	})
}

// Who asked us is told to the worker, and the trace goes on.
func TestRequestsAreTraced(t *testing.T) {
	bubble(t, func(t *testing.T, worker *script, far *workerapi.Client) {
		const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		var ctx context.Context
		gateway := httpx.WithRequest(quiet, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { ctx = r.Context() }))
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("X-Request-Id", "req_page")
		r.Header.Set("Traceparent", trace)
		gateway.ServeHTTP(httptest.NewRecorder(), r)

		find := func() error { _, err := far.FindBuild(ctx, aBuild, 0); return err }
		cancel := func(id string) func() error {
			return func() error {
				_, err := far.CancelBuild(ctx, previewd.CancelBuildRequest{BuildID: aBuild, Caller: previewd.Caller{RequestID: id}})
				return err
			}
		}
		for _, c := range []struct {
			ask  func() error
			want string
			keys bool
		}{{find, "req_page", false}, {cancel("req_own"), "req_own", true}, {cancel("bad\nid"), "req_page", true}} {
			worker.play(problem(503, previewd.CodeUnavailable), answers(200, buildOf()))
			require.NoError(t, c.ask())
			seen := worker.seen()
			require.Len(t, seen, 2)
			for _, sent := range seen {
				require.Equal(t, c.want, sent.Header.Get("X-Request-Id"))
				require.Equal(t, trace, sent.Header.Get("Traceparent"))
				require.Equal(t, "Bearer "+token, sent.Header.Get("Authorization"))
			}
			key := seen[0].Header.Get("Idempotency-Key")
			require.Equal(t, c.keys, key != "")
			require.Equal(t, key, seen[1].Header.Get("Idempotency-Key"), "one key for all tries")
		}
	})
}

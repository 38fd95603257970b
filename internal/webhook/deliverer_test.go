package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/webhook"
)

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestDeliversSigned(t *testing.T) {
	t.Parallel()
	eachSetup(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, "thank\x1b[31m you\x00\xff\u202e", strings.Repeat("é", 2000))
	}, func(t *testing.T, s *setup) {
		s.tell("e1")
		d := s.deliverer()
		require.Equal(t, 1, s.once(d))
		require.Zero(t, s.once(d))
		got := s.receiver.all()[0]
		reference, err := standardwebhooks.NewWebhook(s.endpoint.Secret)
		require.NoError(t, err)
		require.NoError(t, reference.Verify(got.body, got.header))
		require.Equal(t, "e1", got.header.Get("webhook-id"))
		require.Equal(t, "application/json", got.header.Get("Content-Type"))
		var payload struct {
			Type      string
			Timestamp time.Time
			Data      map[string]any
		}
		require.NoError(t, json.Unmarshal(got.body, &payload))
		require.Equal(t, "build.completed", payload.Type)
		require.WithinDuration(t, time.Now(), payload.Timestamp, time.Minute)
		require.Equal(t, map[string]any{"buildId": "b-e1"}, payload.Data)

		found := s.delivery("e1")
		require.Equal(t, previewd.WebhookDelivered, found.Status)
		require.NotNil(t, found.EndedAt)
		require.JSONEq(t, string(got.body), string(found.Payload))
		require.Len(t, found.Log, 1)
		require.Equal(t, http.StatusAccepted, found.Log[0].Status)
		require.True(t, strings.HasPrefix(found.Log[0].Excerpt, "thank[31m youé"), found.Log[0].Excerpt)
		require.LessOrEqual(t, len(found.Log[0].Excerpt), 1024)
	})
}

// Each attempt comes when the schedule says, by the database's clock, and after
// the last the delivery has failed.
func TestSchedule(t *testing.T) {
	t.Parallel()
	eachSetup(t, status(500), func(t *testing.T, s *setup) {
		s.clock.stop()
		s.tell("e1")
		d := s.deliverer()
		schedule := webhook.Schedule()
		require.Len(t, schedule, 10)
		for i := range schedule {
			require.Equal(t, 1, s.once(d), "attempt %d", i+1)
			require.Zero(t, s.once(d), "not before its time")
			got := s.delivery("e1")
			require.Len(t, got.Log, i+1)
			require.Equal(t, 500, got.LastStatus)
			if i == len(schedule)-1 {
				break
			}
			require.Equal(t, previewd.WebhookPending, got.Status)
			require.WithinDuration(t, s.clock.Now().Add(schedule[i+1]), *got.NextAttemptAt, 0)
			s.clock.advance(schedule[i+1] - time.Microsecond)
			require.Zero(t, s.once(d), "not before its time")
			s.clock.advance(time.Microsecond)
		}
		got := s.delivery("e1")
		require.Equal(t, previewd.WebhookFailed, got.Status)
		s.clock.advance(48 * time.Hour)
		require.Zero(t, s.once(d))
		for _, call := range s.receiver.all() {
			require.Equal(t, "e1", call.header.Get("webhook-id"), "the same in each attempt")
		}
	})
}

func TestDelays(t *testing.T) {
	t.Parallel()
	for attempt, want := range webhook.Schedule() {
		if attempt == 0 {
			continue
		}
		low, again := webhook.DelayAfter(attempt, 0, 0)
		require.True(t, again)
		high, _ := webhook.DelayAfter(attempt, 0, 1)
		require.InDelta(t, 0.9*want.Seconds(), low.Seconds(), 0.001)
		require.InDelta(t, min(1.1*want.Seconds(), 86400), high.Seconds(), 0.001)
	}
	_, again := webhook.DelayAfter(10, 0, 0.5)
	require.False(t, again)
	longer, _ := webhook.DelayAfter(1, time.Hour, 0.5)
	require.Equal(t, time.Hour, longer)
	bounded, _ := webhook.DelayAfter(1, 1000*time.Hour, 0.5)
	require.Equal(t, 24*time.Hour, bounded)
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	eachSetup(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", map[string]string{
			"seconds": "600", "date": time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), "never": "99999999999", "odd": "soon", "past": "-5",
		}[r.Header.Get("webhook-id")])
		w.WriteHeader(http.StatusServiceUnavailable)
	}, func(t *testing.T, s *setup) {
		s.clock.stop() // or the odd one would be tried again
		want := map[string]time.Duration{"seconds": 10 * time.Minute, "date": time.Hour, "never": 24 * time.Hour, "odd": 5 * time.Second, "past": 5 * time.Second}
		for id := range want {
			s.tell(id)
		}
		d, began := s.deliverer(), s.clock.Now().Truncate(time.Second) // a date has no smaller parts
		for len(s.receiver.all()) < len(want) {
			s.once(d)
		}
		for id, in := range want {
			require.WithinRange(t, *s.delivery(id).NextAttemptAt, began.Add(in), time.Now().Add(in), id)
		}
	})
}

func TestGoneDisables(t *testing.T) {
	t.Parallel()
	eachSetup(t, status(http.StatusGone), func(t *testing.T, s *setup) {
		s.tell("e1", "e2", "e3", "e4", "e5")
		require.Positive(t, s.once(s.deliverer()))
		e := s.found()
		require.Equal(t, previewd.WebhookDisabled, e.Status)
		require.Contains(t, e.DisabledReason, "410")
		require.Equal(t, previewd.WebhookDropped, s.delivery("e5").Status)
		require.Contains(t, s.audits, "webhook.disable webhook/"+e.ID+" ann")
		s.tell("e6")
		_, err := s.service.FindDelivery(t.Context(), owner, e.ID, e.ID+".e6")
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err), "nothing is told to it any more")
		require.Zero(t, s.once(s.deliverer()))
	})
}

// Five days with nothing but failures disable; one success in them does not.
func TestAutoDisable(t *testing.T) {
	t.Parallel()
	eachSetup(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("webhook-id") != "good" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}, func(t *testing.T, s *setup) {
		d := s.deliverer()
		fail := func(id string) {
			s.tell(id)
			require.Positive(t, s.once(d))
		}
		fail("e1")
		require.NotNil(t, s.found().FailingSince)
		s.clock.advance(4 * 24 * time.Hour)
		s.tell("good")
		require.Positive(t, s.once(d))
		s.clock.advance(time.Second)
		fail("e2")
		since := *s.found().FailingSince
		require.WithinDuration(t, s.clock.Now(), since, time.Minute)
		s.clock.advance(5*24*time.Hour - time.Minute)
		fail("e3")
		require.Equal(t, previewd.WebhookActive, s.found().Status)
		require.Equal(t, since, *s.found().FailingSince)
		s.clock.advance(time.Minute)
		fail("e4")
		e := s.found()
		require.Equal(t, previewd.WebhookDisabled, e.Status)
		require.Contains(t, e.DisabledReason, "five days")
		require.Equal(t, previewd.WebhookDropped, s.delivery("e3").Status)

		active := true
		e, err := s.service.Update(t.Context(), owner, e.ID, webhook.UpdateEndpoint{Active: &active})
		require.NoError(t, err)
		require.Equal(t, previewd.WebhookActive, e.Status)
		require.Nil(t, e.FailingSince)
		fail("e5")
		require.Equal(t, previewd.WebhookActive, s.found().Status, "it begins anew")
	})
}

// Who dies with a claim leaves it until the lease is over; then it is sent again,
// under the same id, and the dead one writes nothing any more.
func TestExpiredLeaseIsRedelivered(t *testing.T) {
	t.Parallel()
	eachSetup(t, nil, func(t *testing.T, s *setup) {
		s.tell("e1")
		var claims []store.WebhookClaim
		require.NoError(t, s.db.Tx(t.Context(), "test", func(tx *store.DB) (err error) {
			claims, err = tx.ClaimWebhooks(t.Context(), store.WebhookClaims{Holder: "dead", Lease: 30 * time.Second, Limit: 1, PerEndpoint: 1})
			return err
		}))
		require.Len(t, claims, 1)
		d := s.deliverer()
		require.Zero(t, s.once(d), "another holds it")
		s.clock.advance(31 * time.Second)
		require.Equal(t, 1, s.once(d))
		require.Equal(t, "e1", s.receiver.all()[0].header.Get("webhook-id"))
		err := s.db.Tx(t.Context(), "test", func(tx *store.DB) error {
			return tx.EndWebhookAttempt(t.Context(), &claims[0], previewd.WebhookAttempt{At: tx.Now()}, store.WebhookOutcome{Status: previewd.WebhookFailed})
		})
		require.Equal(t, previewd.CodeLeaseLost, previewd.ErrorCode(err))
		got := s.delivery("e1")
		require.Equal(t, previewd.WebhookDelivered, got.Status)
		require.Equal(t, 2, got.Attempts)
		require.Len(t, got.Log, 1)
		require.Equal(t, 2, got.Log[0].N, "the first left no trace")
	})
}

// A process is killed in the middle of a request.
func TestKilledDelivererIsReplaced(t *testing.T) {
	t.Parallel()
	eachSetup(t, nil, func(t *testing.T, s *setup) {
		hanging := make(chan struct{})
		var once sync.Once
		s.receiver.answers(func(_ http.ResponseWriter, r *http.Request) {
			wait := false
			once.Do(func() { wait = true })
			if wait {
				close(hanging)
				<-r.Context().Done() // until its sender is gone
			}
		})
		s.tell("e1")
		raw, err := json.Marshal(struct{ Path, URL string }{s.cfg.Path, s.cfg.URL})
		require.NoError(t, err)
		child := exec.Command(os.Args[0], "-test.run", "^$")
		child.Env = append(os.Environ(), childDatabase+"="+string(raw), fmt.Sprintf("%s=%d", childPort, s.receiver.port()))
		child.Stderr = os.Stderr
		require.NoError(t, child.Start())
		select {
		case <-hanging:
		case <-time.After(time.Minute):
			t.Error("the child sends nothing")
		}
		require.NoError(t, child.Process.Kill())
		require.Error(t, child.Wait())
		require.Equal(t, previewd.WebhookPending, s.delivery("e1").Status)

		s.clock.advance(2 * childLease)
		s.run(s.deliverer())
		testkit.Eventually(t, "the webhook arrives", func() bool { return s.delivery("e1").Status == previewd.WebhookDelivered })
		calls := s.receiver.all()
		require.Len(t, calls, 2)
		require.Equal(t, calls[0].header.Get("webhook-id"), calls[1].header.Get("webhook-id"))
		require.Equal(t, calls[0].body, calls[1].body)
	})
}

// Two deliverers share 2,000 deliveries: each is sent once, and no endpoint has
// more at a time than its share of both.
func TestTwoDeliverersSendEachOnce(t *testing.T) {
	t.Parallel()
	const endpoints, events = 40, 50
	var mu sync.Mutex
	at := map[string]int{}
	most := 0
	eachSetup(t, func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		at[r.Host+r.URL.Path]++
		most = max(most, at[r.Host+r.URL.Path])
		mu.Unlock()
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			at[r.Host+r.URL.Path]--
		}()
	}, func(t *testing.T, s *setup) {
		for i := range endpoints {
			e := &store.WebhookEndpoint{Secret: webhook.NewSecret()}
			e.ID, e.OwnerID, e.URL, e.Types = fmt.Sprintf("we_%d", i), fmt.Sprintf("owner-%d", i), fmt.Sprintf("%s/%d", s.receiver.URL, i), []string{"build.*"}
			require.NoError(t, s.db.Tx(t.Context(), "test", func(tx *store.DB) error { return tx.InsertWebhookEndpoint(t.Context(), e) }))
			require.NoError(t, s.db.Tx(t.Context(), "test", func(tx *store.DB) error {
				for n := range events {
					if _, err := tx.EnqueueWebhooks(t.Context(), store.WebhookEvent{ID: fmt.Sprintf("e-%d-%d", i, n), OwnerID: e.OwnerID, Type: "build.queued"}); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		s.egress = patient(s.receiver.port()) // what is given up, or is not recorded in its lease, is rightly sent again
		begun := time.Now()
		stops := []func(){s.run(s.deliverer()), s.run(s.deliverer())}
		for done := 0; done < endpoints*events; { // however slow the machine is, while it goes on
			testkit.Eventually(t, fmt.Sprint("more than ", done, " arrive"), func() bool { return len(s.receiver.all()) > done })
			done = len(s.receiver.all())
		}
		testkit.Eventually(t, "all are recorded", func() bool {
			pending, err := s.db.HasPendingWebhooks(context.Background())
			require.NoError(t, err)
			return !pending
		})
		took := time.Since(begun)
		for _, stop := range stops {
			stop()
		}
		seen := map[string]int{}
		for _, c := range s.receiver.all() {
			seen[c.path+" "+c.header.Get("webhook-id")]++
		}
		require.Len(t, seen, endpoints*events)
		for what, n := range seen {
			require.Equal(t, 1, n, what)
		}
		t.Logf("%d deliveries took %v, %.0f a second", endpoints*events, took, endpoints*events/took.Seconds())
	})
	t.Cleanup(func() {
		require.LessOrEqual(t, most, 2, "requests at once to one endpoint")
	})
}

// An endpoint that does not answer holds up no other.
func TestSlowEndpointHoldsUpNobody(t *testing.T) {
	t.Parallel()
	eachSetup(t, nil, func(t *testing.T, s *setup) {
		release := make(chan struct{})
		var hanging atomic.Int64
		s.receiver.answers(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hook" {
				hanging.Add(1)
				<-release
			}
		})
		s.tell(numbers("slow", 200)...) // before the others, and many
		s.create("/fast")
		s.egress = patient(s.receiver.port())
		cfg := s.config()
		cfg.Concurrency, cfg.Grace = 4, time.Millisecond
		stop := s.run(webhook.New(cfg))
		testkit.Eventually(t, "the slow one hangs", func() bool { return hanging.Load() == 2 })
		s.tell(numbers("fast", 200)...)
		fast := func() (n int) {
			for _, c := range s.receiver.all() {
				if c.path == "/fast" {
					n++
				}
			}
			return n
		}
		testkit.Eventually(t, "all others arrive", func() bool { return fast() == 200 })
		require.EqualValues(t, 2, hanging.Load())
		close(release)
		stop()
	})
}

func numbers(prefix string, n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%s-%d", prefix, i))
	}
	return list
}

// Who stops gives back what has not ended; it does not count as an attempt.
func TestStopGivesBack(t *testing.T) {
	t.Parallel()
	eachSetup(t, nil, func(t *testing.T, s *setup) {
		hangs := make(chan struct{}, 10)
		s.receiver.answers(func(_ http.ResponseWriter, r *http.Request) {
			hangs <- struct{}{}
			<-r.Context().Done()
		})
		s.tell("e1")
		cfg := s.config()
		cfg.Grace = time.Millisecond
		stop := s.run(webhook.New(cfg))
		<-hangs
		stop()
		got := s.delivery("e1")
		require.Equal(t, previewd.WebhookPending, got.Status)
		require.Zero(t, got.Attempts)
		require.Empty(t, got.Log)
		s.receiver.answers(nil)
		require.Equal(t, 1, s.once(s.deliverer()), "it waits for no lease")
		require.Equal(t, 1, s.delivery("e1").Attempts)
	})
}

// What goes wrong is told in words that say nothing of the network here.
func TestFailuresAreExplained(t *testing.T) {
	t.Parallel()
	eachSetup(t, nil, func(t *testing.T, s *setup) {
		s.receiver.answers(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/cut":
				conn, _, _ := w.(http.Hijacker).Hijack()
				conn.Close()
			case "/slow":
				<-r.Context().Done()
			case "/endless":
				w.WriteHeader(http.StatusTeapot)
				for r.Context().Err() == nil {
					fmt.Fprint(w, strings.Repeat("x", 10_000))
				}
			}
		})
		closed := newReceiver(t, nil)
		closed.Close()
		outside := func(url string) string { // as a name that points inside
			return strings.Replace(url, "127.0.0.1", "127.0.0.2", 1)
		}
		deliver := func(path, url string, within time.Duration) {
			e := &store.WebhookEndpoint{Secret: webhook.NewSecret()}
			e.ID, e.OwnerID, e.URL = "we_"+path, "bob", url
			require.NoError(t, s.db.Tx(t.Context(), "test", func(tx *store.DB) error {
				if err := tx.InsertWebhookEndpoint(t.Context(), e); err != nil {
					return err
				}
				_, err := tx.InsertWebhookTest(t.Context(), e.ID, "t")
				return err
			}))
			cfg := s.config()
			cfg.Egress, cfg.Lease = localWithin(within, s.receiver.port(), closed.port()), 10*time.Minute
			require.Equal(t, 1, s.once(webhook.New(cfg)))
		}
		for path, url := range map[string]string{
			"refused": closed.URL, "cut": s.receiver.URL + "/cut", "endless": s.receiver.URL + "/endless",
			"tls": strings.Replace(s.receiver.URL, "http", "https", 1), "inside": outside(s.receiver.URL),
		} {
			deliver(path, url, time.Minute)
		}
		deliver("slow", s.receiver.URL+"/slow", 500*time.Millisecond)
		for path, want := range map[string]string{
			"refused": "refused the connection", "cut": "broke", "endless": "answered 418", "slow": "in time", "tls": "does not speak TLS", "inside": "not a public one",
		} {
			d, err := s.service.FindDelivery(t.Context(), "bob", "we_"+path, "we_"+path+".t")
			require.NoError(t, err)
			require.Equal(t, previewd.WebhookFailed, d.Status, "a test is tried once")
			require.Contains(t, d.LastError, want, path)
			require.NotContains(t, d.LastError, "127.0.0")
		}
	})
}

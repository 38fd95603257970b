package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/webhook"
)

func TestMain(m *testing.M) {
	if os.Getenv(childDatabase) != "" {
		deliverUntilKilled()
	}
	testkit.Main(m)
}

const (
	childDatabase = "PREVIEWD_TEST_WEBHOOK_DATABASE"
	childPort     = "PREVIEWD_TEST_WEBHOOK_PORT"
	childLease    = 10 * time.Minute
)

// deliverUntilKilled is what the test binary does as a child.
func deliverUntilKilled() {
	port, _ := strconv.ParseUint(os.Getenv(childPort), 10, 16)
	var cfg store.Config
	if err := json.Unmarshal([]byte(os.Getenv(childDatabase)), &cfg); err != nil {
		panic(err)
	}
	db, err := store.Open(context.Background(), cfg)
	if err != nil {
		panic(err)
	}
	d := webhook.New(webhook.Config{Store: db, Egress: patient(uint16(port)), Poll: 10 * time.Millisecond, Lease: childLease})
	panic(d.Run(context.Background()))
}

// local is a way out to this machine's ports.
func local(ports ...uint16) *webhook.Egress { return localWithin(0, ports...) }

// patient is local for requests that hang for as long as the test says.
func patient(ports ...uint16) *webhook.Egress { return localWithin(5*time.Minute, ports...) }

func localWithin(timeout time.Duration, ports ...uint16) *webhook.Egress {
	return webhook.NewEgress(webhook.EgressConfig{
		Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, AllowPorts: ports, AllowHTTP: true, Timeout: timeout,
	})
}

// call is a request that a receiver has got.
type call struct {
	path   string
	header http.Header
	body   []byte
}

// receiver is a server that keeps what it is told.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	calls  []call
	answer http.HandlerFunc
}

func newReceiver(tb testing.TB, answer http.HandlerFunc) *receiver {
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		r.mu.Lock()
		r.calls = append(r.calls, call{request.URL.Path, request.Header, body})
		answer := r.answer
		r.mu.Unlock()
		if answer != nil {
			answer(w, request)
		}
	}))
	tb.Cleanup(r.Close)
	return r
}

// answers sets what it answers from now on.
func (r *receiver) answers(answer http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) port() uint16 { return uint16(r.Listener.Addr().(*net.TCPAddr).Port) }

func (r *receiver) all() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]call{}, r.calls...)
}

// clock is the database's time and the program's: the machine's until the test
// stops it, and from then on what the test says.
type clock struct {
	at    atomic.Int64   // in microseconds; 0 while it runs
	shell *testkit.Shell // nil where the database asks the program
}

func (c *clock) Now() time.Time {
	if at := c.at.Load(); at != 0 {
		return time.UnixMicro(at)
	}
	return time.Now()
}

// stop makes it stand still, so that nothing is due before the test says so.
func (c *clock) stop() { c.advance(0) }

// advance stops it, so much later.
func (c *clock) advance(d time.Duration) {
	at := c.Now().Add(d).UnixMicro()
	c.at.Store(at)
	if c.shell != nil {
		c.shell.Do(fmt.Sprintf("CREATE OR REPLACE FUNCTION worker_now() RETURNS BIGINT LANGUAGE sql VOLATILE AS $$ SELECT %d::bigint $$", at))
	}
}

// setup is one database with one owner's endpoint at a receiver.
type setup struct {
	t        *testing.T
	cfg      store.Config
	db       *store.DB
	clock    *clock
	receiver *receiver
	egress   *webhook.Egress
	service  *webhook.Service
	endpoint *webhook.CreatedEndpoint
	audits   []string
	mu       sync.Mutex
}

const owner = "ann"

// eachSetup runs a test on each engine. Receivers answer as told; nil is 200.
func eachSetup(t *testing.T, answer http.HandlerFunc, test func(t *testing.T, s *setup)) {
	t.Helper()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		s := &setup{t: t, cfg: cfg, clock: &clock{}, receiver: newReceiver(t, answer)}
		cfg.Now = s.clock.Now
		s.db = testkit.Open(t, cfg)
		if cfg.URL != "" {
			s.clock.shell = testkit.OpenShell(t, cfg)
		}
		s.egress = local(s.receiver.port())
		s.service = webhook.NewService(webhook.ServiceConfig{Store: s.db, Egress: s.egress, Audit: s.audit})
		s.endpoint = s.create("/hook")
		test(t, s)
	})
}

func (s *setup) audit(_ context.Context, _ *store.DB, action, subject string, data map[string]any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.audits = append(s.audits, fmt.Sprint(action, " ", subject, " ", data["ownerId"]))
	return nil
}

func (s *setup) create(path string, types ...string) *webhook.CreatedEndpoint {
	s.t.Helper()
	e, err := s.service.Create(s.t.Context(), webhook.NewEndpoint{OwnerID: owner, URL: s.receiver.URL + path, Types: types})
	require.NoError(s.t, err)
	return e
}

func (s *setup) deliverer() *webhook.Deliverer {
	return webhook.New(s.config())
}

func (s *setup) config() webhook.Config {
	return webhook.Config{
		Store: s.db, Egress: s.egress, Now: s.clock.Now, Audit: s.audit, Poll: 10 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Random: func() float64 { return 0.5 },
	}
}

func (s *setup) tell(ids ...string) {
	s.t.Helper()
	require.NoError(s.t, s.db.Tx(s.t.Context(), "test", func(tx *store.DB) error {
		for _, id := range ids {
			_, err := tx.EnqueueWebhooks(s.t.Context(), store.WebhookEvent{
				ID: id, OwnerID: owner, Type: "build.completed", Data: map[string]any{"buildId": "b-" + id},
			})
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

func (s *setup) once(d *webhook.Deliverer) int {
	s.t.Helper()
	n, err := d.Once(s.t.Context())
	require.NoError(s.t, err)
	return n
}

func (s *setup) delivery(id string) *previewd.WebhookDelivery {
	s.t.Helper()
	d, err := s.service.FindDelivery(s.t.Context(), owner, s.endpoint.ID, s.endpoint.ID+"."+id)
	require.NoError(s.t, err)
	return d
}

func (s *setup) found() *previewd.WebhookEndpoint {
	s.t.Helper()
	e, err := s.service.Find(s.t.Context(), owner, s.endpoint.ID)
	require.NoError(s.t, err)
	return e
}

// run runs a deliverer until the test ends, or stop is called.
func (s *setup) run(d *webhook.Deliverer) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			require.NoError(s.t, err)
		case <-time.After(time.Minute):
			s.t.Error("the deliverer does not stop")
		}
	})
	s.t.Cleanup(stop)
	return stop
}

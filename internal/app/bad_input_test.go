package app_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

// everyBad chooses which of the cases run: all of them, or one of so many.
var everyBad = flag.Int("every-bad", 80, "TestBadInputGetsProblems sends one of so many bad requests; 1 sends all")

var badRoute = flag.String("bad-route", "", "only the bad requests of this operation id are sent")

const (
	minBadCases = 15_000      // when all are sent
	maxBadTime  = time.Minute // on a machine that does other things too; see the log for what it really was
)

// Whatever a request holds, the answer comes soon, is no server error, and says
// what is wrong in the one form; the rows stay in order, which the server's end
// checks.
func TestBadInputGetsProblems(t *testing.T) {
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		s := startWith(t, config.Config{DatabaseURL: cfg.URL, SecretsKey: strings.Repeat("07", worker.SecretsKeySize), Builds: -1})
		newBadInput(s).run(*everyBad)
	})
}

// run sends one of so many cases, all of them when it is 1.
func (b *badInput) run(every int) {
	b.t.Helper()
	b.checkBaseline()
	tally := &tally{byStatus: map[int]int{}, byGroup: map[string]int{}, byRoute: map[string]int{}}
	var group errgroup.Group
	group.SetLimit(4)
	var heavy sync.Mutex
	n := 0
	for c := range b.cases() {
		if n++; n%every != 0 || *badRoute != "" && c.route != *badRoute {
			continue
		}
		group.Go(func() error {
			if c.heavy {
				heavy.Lock()
				defer heavy.Unlock()
			}
			a := b.send(c)
			for range 50 { // the streams of the cases before are not counted out yet
				if a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "as many streams as one user may have") {
					break
				}
				time.Sleep(200 * time.Millisecond)
				a = b.send(c)
			}
			tally.count(c, a)
			return nil
		})
	}
	require.NoError(b.t, group.Wait())
	b.checkBaseline()
	b.t.Log(tally)
	for _, failure := range tally.failures[:min(len(tally.failures), 40)] {
		b.t.Error(failure)
	}
	require.Empty(b.t, tally.failures)
	if *badRoute != "" {
		return
	}
	require.GreaterOrEqual(b.t, tally.cases, minBadCases/every)
	for _, op := range b.operations {
		require.GreaterOrEqual(b.t, tally.byRoute[op.OperationID], 300/every, op.OperationID)
	}
}

// checkBaseline makes sure that what the cases spoil works as it is: each
// operation, and each of its parameters and fields.
func (b *badInput) checkBaseline() {
	b.t.Helper()
	for _, op := range b.operations {
		check := func(what string, w wire) {
			a := b.send(badCase{method: op.method, send: b.bytes(w)})
			require.NoError(b.t, a.err, "%s %s with %s", op.method, op.path, what)
			if a.status != b.baseline[op.OperationID] {
				require.Less(b.t, a.status, 300, "%s %s with %s: %s", op.method, op.path, what, a.body)
			}
		}
		check("nothing else", b.request(op))
		for _, p := range op.Parameters {
			w, line := b.request(op), p.Name+": "+b.value(op, p.Name)
			w.target = b.target(op, p.Name, b.value(op, p.Name))
			if p.In == "header" && p.Name != "Idempotency-Key" {
				w.lines = &line
			}
			check(p.Name, w)
		}
		for _, field := range b.fields[op.OperationID] {
			w := b.request(op)
			w.body = b.body(op, field, b.value(op, "body."+field))
			check(field, w)
		}
	}
}

// answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   string
	rest   int // bytes after the answer
	took   time.Duration
	err    error
}

// send sends a case on a connection of its own.
func (b *badInput) send(c badCase) (a answer) {
	began := time.Now()
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.Config.BaseURL, "http://"))
	if err != nil {
		return answer{err: err}
	}
	defer conn.Close()
	_ = conn.SetDeadline(began.Add(90 * time.Second))
	sent := make(chan struct{})
	go func() { // an answer can come before the whole request is sent
		defer close(sent)
		_, _ = io.WriteString(conn, c.send)
		if c.cut {
			_ = conn.(*net.TCPConn).CloseWrite()
		}
	}()
	defer func() { <-sent }()
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for a.status < 200 {
		response, err := http.ReadResponse(reader, &http.Request{Method: c.method})
		if err != nil {
			return answer{err: err, took: time.Since(began)}
		}
		if response.Header.Get("Content-Type") == "text/event-stream" && b.prefix == "/api" {
			return answer{status: response.StatusCode, header: response.Header, took: time.Since(began)} // some never end
		}
		raw, err := io.ReadAll(response.Body)
		a = answer{status: response.StatusCode, header: response.Header, body: string(raw), err: err, took: time.Since(began)}
	}
	if strings.Contains(c.send, "\r\nConnection: close\r\n") {
		rest, _ := io.Copy(io.Discard, reader)
		a.rest = int(rest)
	}
	return a
}

// tally counts answers and keeps those that break a rule.
type tally struct {
	mu                         sync.Mutex
	cases, early, hungUp, over int // early: answered by net/http, before any handler
	serverErrors               int // of ours
	byStatus                   map[int]int
	byGroup, byRoute           map[string]int
	slowest                    time.Duration
	slowestCase                string
	failures                   []error
}

func (t *tally) count(c badCase, a answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cases++
	t.byGroup[c.group]++
	t.byRoute[c.route]++
	t.byStatus[a.status]++
	if a.took > t.slowest {
		t.slowest, t.slowestCase = a.took, fmt.Sprintf("%s %s: %.100q", c.route, c.group, c.name)
	}
	if a.took > time.Second {
		t.over++
	}
	early := a.status != 0 && a.header.Get("X-Request-Id") == ""
	if early && !c.page {
		t.early++
	}
	if a.status == 0 {
		t.hungUp++
	}
	if a.status >= 500 && (!early || c.page) {
		t.serverErrors++
	}
	if err := judge(c, a); err != nil {
		t.failures = append(t.failures, fmt.Errorf("%s %s %.120q: %w; answer %d %.300q", c.route, c.group, c.name, err, a.status, a.body))
	}
}

var reference = regexp.MustCompile(`^ref_[0-9a-z]{16}$`)

// judge says which rule an answer breaks.
func judge(c badCase, a answer) error {
	early := a.header.Get("X-Request-Id") == ""
	switch {
	case a.took > maxBadTime && c.route != "check-integrity": // which reads whole tables
		return fmt.Errorf("took %s", a.took)
	case a.err != nil && c.broken && !errors.Is(a.err, os.ErrDeadlineExceeded):
		return nil // net/http has hung up
	case a.err != nil:
		return fmt.Errorf("no answer: %w", a.err)
	case a.rest > 0:
		return fmt.Errorf("%d bytes after the answer", a.rest)
	case early && c.broken && slices.Contains([]int{400, 413, 417, 431, 501, 505}, a.status) || early && c.broken && c.method == http.MethodOptions && a.status == http.StatusOK:
		return nil // net/http knows no handler yet
	case a.status >= 500:
		return errors.New("a server error")
	case c.page:
		return nil
	case early:
		return errors.New("no handler of ours has answered")
	case a.status < 300:
		return nil
	case a.header.Get("Content-Type") != "application/problem+json":
		return errors.New("no problem")
	case c.method == http.MethodHead:
		return nil
	}
	var p struct {
		Status                                 int
		Type, Title, Detail, Code, ReferenceID string
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		return fmt.Errorf("no JSON: %w", err)
	}
	if p.Status != a.status || p.Code == "" || p.Title == "" || p.Detail == "" || p.Type != "urn:previewd:problem:"+p.Code || !reference.MatchString(p.ReferenceID) {
		return errors.New("not a whole problem")
	}
	return nil
}

// String is the summary.
func (t *tally) String() string {
	var out strings.Builder
	for _, status := range slices.Sorted(maps.Keys(t.byStatus)) {
		fmt.Fprintf(&out, " %d: %d", status, t.byStatus[status])
	}
	return fmt.Sprintf("%d cases, %d broke a rule\nby status:%s (5xx of ours: %d; net/http answered %d before any handler and hung up on %d)\nslowest %s: %s; over 1 s: %d\nby group: %v\nby route: %v",
		t.cases, len(t.failures), out.String(), t.serverErrors, t.early, t.hungUp, t.slowest, t.slowestCase, t.over, t.byGroup, t.byRoute)
}

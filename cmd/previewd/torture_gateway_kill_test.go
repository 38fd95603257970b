package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

const userWorkload = 15 // creates a second

// What a point needs beside the users' work to be passed.
var leadsTo = map[string]string{
	"intent.postpone":       "gateway.after_worker=half;",
	"intent.request_cancel": "gateway.before_worker=half;",
	"intent.cancel":         "gateway.after_worker=half;",
	"intent.renew":          "gateway.after_worker=delay:5s;",
	"feed.release":          "gateway.after_worker=delay:8s;",
}

// A process that dies at any point of the gateway's, or while it works for one,
// loses nothing that users were told, makes and bills nothing twice, and leaves
// nothing behind.
func TestGatewayKilledAtEachPoint(t *testing.T) {
	onEachLayout(t, func(c *apps) {
		points := map[fault.Role][]string{fault.Gateway: fault.Points(fault.Gateway), fault.Worker: fault.Points(fault.Worker)}
		c.killAt(*gatewayKills, func(i int) (fault.Role, string) {
			side := fault.Gateway
			if i%5 == 4 { // and now and then the worker's
				side, i = fault.Worker, i/5
			} else {
				i -= i / 5
			}
			list := points[side]
			if i%len(list) == 0 {
				c.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			}
			return side, list[i%len(list)]
		})
	})
}

// The same at every step between a project and what is paid for it.
func TestBillingKilled(t *testing.T) {
	onEachLayout(t, func(c *apps) {
		points := []string{
			"feed.apply.before_commit", "intent.confirm.before_commit", "biller.told.before_commit", "feed.apply.after_commit",
			"intent.confirm.after_commit", "biller.told.after_commit", "gateway.after_worker", "feed.release.before_commit",
			"feed.release.after_commit", "biller.claim.after_commit", "app.deleted.before_commit", "app.cancel.before_commit",
		}
		c.killAt(*billingKills, func(i int) (fault.Role, string) { return fault.Gateway, points[(i+int(c.seed%12))%len(points)] })
	})
}

// killAt kills processes while users work: each time at the point that next names.
func (c *apps) killAt(times int, next func(i int) (fault.Role, string)) {
	c.Helper()
	biller := c.addBiller()
	c.startAll()
	work := &users{apps: c, gateways: []*node{c.gateway}, rate: userWorkload, name: "point"}
	work.begin()
	passed := map[string]int{}
	for i := range times {
		side, point := next(i)
		if !c.reachable(point) {
			continue
		}
		n := c.at(string(side))
		n.kill()
		c.lead(n, side, point)
		passed[point]++
	}
	for _, n := range c.nodes {
		n.kill()
		n.start("")
	}
	work.end()
	biller.wait()
	c.checkApps()
	biller.check()
	c.Logf("killed %d times at %d points", times, len(passed))
}

// reachable leaves out what this layout does not lead to: no worker is away from
// a gateway in its own process.
func (c *apps) reachable(point string) bool {
	return !strings.HasPrefix(point, "intent.hasten_all.") || c.far()
}

// lead starts the process and waits until it has died at the point.
func (c *apps) lead(n *node, side fault.Role, point string) {
	c.Helper()
	tx := strings.TrimSuffix(strings.TrimSuffix(point, ".before_commit"), ".after_commit")
	pass, failpoints, flags := 1+c.random.IntN(3), leadsTo[tx], n.flags
	switch tx {
	case "prune", "reap", "reap.find", "compare", "intent.recover", "intent.hasten_all", "feed.parked":
		pass = 1 // once at each start, or seldom
	case "heartbeat":
		failpoints, n.flags = "step.after_commit=delay:300ms;", append(n.flags[:len(n.flags):len(n.flags)], "--lease", "600ms")
	}
	if tx == "reap" {
		n.holdBuilds(point)
	}
	n.run(fmt.Sprintf("%s%s=kill@%d", failpoints, point, pass))
	if tx == "intent.hasten_all" {
		defer c.cutOff()()
	}
	n.flags = flags
	n.waitDead(fmt.Sprintf("%s@%d as the %s", point, pass, side))
	n.run("")
}

// cutOff keeps the worker from the gateway for a while.
func (c *apps) cutOff() (heal func()) {
	c.way.Refuse(true)
	timer := time.AfterFunc(2*time.Second, func() { c.way.Refuse(false) })
	return func() {
		timer.Stop()
		c.way.Refuse(false)
	}
}

// billingSystem is one that writes down what it is told.
type billingSystem struct {
	*apps
	mu   sync.Mutex
	told map[string]previewd.BillingSession
	odd  []string
}

const billingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// addBiller has the gateway tell a biller, that fails now and then.
func (c *apps) addBiller() *billingSystem {
	b := &billingSystem{apps: c, told: map[string]previewd.BillingSession{}}
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var message struct{ Data previewd.BillingSession }
		err := json.NewDecoder(r.Body).Decode(&message)
		b.mu.Lock()
		defer b.mu.Unlock()
		if asked++; asked == 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		s := message.Data
		before, known := b.told[s.BuildID]
		if err != nil || r.Header.Get("Webhook-Id") != "bill_"+s.BuildID || known && (before.AmountMicros != s.AmountMicros || before.State != s.State) {
			b.odd = append(b.odd, fmt.Sprintf("%v: %+v and then %+v", err, before, s))
		}
		b.told[s.BuildID] = s
	}))
	c.Cleanup(server.Close)
	c.gateway.env = append(c.gateway.env[:len(c.gateway.env):len(c.gateway.env)], "PREVIEWD_BILLING_URL="+server.URL+"/closed", "PREVIEWD_BILLING_SECRET="+billingSecret)
	return b
}

// wait waits until no session is due that the biller was not told of. One that it
// has refused, or that it was not told of in time, is due a minute later.
func (b *billingSystem) wait() {
	b.Helper()
	b.settle(2 * time.Minute)
	b.waitUntil("the biller was told", time.Minute, func() bool {
		now := time.Now().UnixMicro()
		return b.countIn(b.users, `SELECT COUNT(*) FROM gateway_billing_sessions WHERE state <> 'open' AND told_at IS NULL AND tell_at <= $1`, now) == 0
	})
}

// check compares what the biller was told with the ledger.
func (b *billingSystem) check() {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.odd) > 0 {
		b.Errorf("%d sessions were told twice and not the same, or under another name; the first: %s (seed %d)", len(b.odd), b.odd[0], b.seed)
	}
	db, done := b.open(b.users)
	defer done()
	found, err := db.Query(`SELECT build_id, state, amount_micros, told_at IS NOT NULL FROM gateway_billing_sessions`)
	require.NoError(b, err)
	defer found.Close()
	sessions := 0
	for found.Next() {
		var id, state string
		var amount int64
		var noted bool
		require.NoError(b, found.Scan(&id, &state, &amount, &noted))
		told, known := b.told[id]
		if noted && !known || known && (string(told.State) != state || told.AmountMicros != amount) {
			b.Errorf("session %s is %s over %d here, and the biller was told %+v (seed %d)", id, state, amount, told, b.seed)
		}
		sessions++
	}
	require.NoError(b, found.Err())
	b.Logf("%d sessions, %d of them told", sessions, len(b.told))
}

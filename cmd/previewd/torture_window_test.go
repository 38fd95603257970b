package main_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// window is a moment in a creation in which a process dies.
type window struct {
	name   string
	side   fault.Role
	point  string
	passes int // of the point by who takes the creation up again
	lost   bool
}

// Before and after each commit on the way of a creation, and where the worker's
// answer is on its way.
var crashWindows = []window{
	{name: "before-the-intent", side: fault.Gateway, point: "intent.before_commit", passes: 1, lost: true},
	{name: "intent-stored", side: fault.Gateway, point: "intent.after_commit"},
	{name: "before-the-worker", side: fault.Gateway, point: "gateway.before_worker", passes: 1},
	{name: "worker-before-commit", side: fault.Worker, point: "create.before_commit", passes: 1},
	{name: "worker-after-commit", side: fault.Worker, point: "create.after_commit", passes: 1},
	{name: "answer-there", side: fault.Gateway, point: "gateway.after_worker", passes: 1},
	{name: "before-confirm", side: fault.Gateway, point: "intent.confirm.before_commit", passes: 1},
	{name: "confirmed", side: fault.Gateway, point: "intent.confirm.after_commit"},
}

// adoptWithin is how soon what was left open must be taken up: the claim of 10 s
// of a process that never comes back, the next look, and as long again on a
// machine that is busy.
const adoptWithin = time.Minute

// Whatever moment a process dies in, what it was doing is taken up: by the next
// start, or by the user who asks again with the same key.
func TestCrashWindows(t *testing.T) {
	onEachLayout(t, func(c *apps) {
		c.startAll()
		for _, w := range crashWindows {
			if *onlyWindow != "" && *onlyWindow != w.name {
				continue
			}
			var took []time.Duration
			for i := range *windows {
				took = append(took, c.crashIn(w, i))
			}
			c.summarize(w.name, took)
			c.at(string(w.side)).kill()
			c.at(string(w.side)).start("")
		}
		c.checkApps()
	})
}

func (c *apps) summarize(name string, took []time.Duration) {
	c.Helper()
	slices.Sort(took)
	median, slowest := took[len(took)/2], took[len(took)-1]
	c.Logf("%s: adopted %d/%d, median %s, slowest %s", name, len(took), len(took), median.Round(time.Millisecond), slowest.Round(time.Millisecond))
	require.Less(c, slowest, adoptWithin, name)
}

// crashIn kills a process in the window, once, and returns how long the creation
// took to be confirmed afterwards. The process that takes it up is already
// prepared to die in the next one's.
func (c *apps) crashIn(w window, i int) time.Duration {
	c.Helper()
	n, prompt := c.at(string(w.side)), fmt.Sprintf("%s-%04d", w.name, i)
	if i == 0 || !c.armed {
		n.kill()
		n.start(w.point + "=kill@1")
	}
	c.waitUntil("the servers answer", 60*time.Second, func() bool { return c.worker.answers() && c.gateway.answers() })
	a := &ask{user: i % 5, began: time.Now(), asked: 1}
	r := request{user: a.user, method: http.MethodPost, path: "/api/projects", key: "torture-key-" + prompt, body: pageOf(prompt, nil)}
	first := make(chan *reply, 1)
	go func() {
		got, err := c.send(c.gateway, r)
		if err != nil {
			got = nil
		}
		first <- got
	}()
	n.waitDead(w.name)
	began := time.Now()
	n.run(fmt.Sprintf("%s=kill@%d", w.point, w.passes+1))
	c.armed = true
	got := <-first
	if w.lost || i%2 == 1 || got != nil && got.again() { // the user asks again
		got, a.asked = c.insistWhile(n, r)
		a.asked++
	}
	c.confirmed(n, prompt, a)
	took := time.Since(began)
	if got != nil {
		c.heard(prompt, a, got)
	}
	c.tell(func() { c.told[prompt] = a })
	return took
}

// insistWhile is insistOn for a process that may die again.
func (c *apps) insistWhile(n *node, r request) (*reply, int) {
	over := make(chan struct{})
	var revive sync.WaitGroup
	revive.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-n.died:
				c.disarm(n)
			case <-time.After(time.Millisecond):
			}
		}
	})
	got, asked := c.insistOn([]*node{c.gateway}, r)
	close(over)
	revive.Wait()
	return got, asked
}

// disarm starts a process that has died while it took something up.
func (c *apps) disarm(n *node) {
	c.armed = false
	n.run("")
}

// confirmed waits until the intent of a prompt is confirmed, and writes down with what.
func (c *apps) confirmed(n *node, prompt string, a *ask) {
	c.Helper()
	c.waitUntil(prompt+" is confirmed", 60*time.Second, func() bool {
		select {
		case <-n.died: // it was passed once more than by who takes it up
			c.disarm(n)
		default:
		}
		state, id := c.intentOf(prompt)
		a.intent = id
		return state == string(previewd.IntentConfirmed)
	})
	db, done := c.open(c.users)
	defer done()
	require.NoError(c, db.QueryRow(`SELECT project_id, build_id FROM gateway_intents WHERE id = $1`, a.intent).Scan(&a.projectID, &a.buildID))
}

// What is on its way between gateway and worker is lost at any byte, in
// either direction.
func TestCutAtAnyByte(t *testing.T) {
	onTwo(t, func(c *apps) {
		c.startAll()
		var took []time.Duration
		for i := range 3 * *windows {
			c.way.CutAfter(1 + c.random.Int64N(3000))
			if i%3 == 0 {
				c.way.Refuse(true)
				time.AfterFunc(time.Duration(rand.N(300))*time.Millisecond, func() { c.way.Refuse(false) })
			}
			began, prompt := time.Now(), fmt.Sprintf("cut-%04d", i)
			a := c.create([]*node{c.gateway}, i%5, prompt, false, nil)
			if a.answered != http.StatusCreated && a.answered != http.StatusAccepted {
				c.Errorf("%s was answered %d (seed %d)", prompt, a.answered, c.seed)
			}
			c.follow([]*node{c.gateway}, a)
			took = append(took, time.Since(began))
		}
		c.way.Heal()
		c.summarize("cut", took)
		c.checkApps()
	})
}

// What is taken back while it is pending is gone in the end, whether it had
// been made or not.
func TestTakenBackWhilePending(t *testing.T) {
	onEachLayout(t, func(c *apps) {
		c.startAll()
		for name, failpoints := range map[string]string{
			"not-made": "gateway.before_worker=fail", "made": "gateway.after_worker=fail",
			"killed": "gateway.after_worker=fail",
		} {
			c.gateway.kill()
			c.gateway.start(failpoints)
			n := *windows
			if name == "killed" {
				n = 1
			}
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					a := c.create([]*node{c.gateway}, i%5, fmt.Sprintf("%s-%04d", name, i), false, nil)
					if a.intent == "" {
						c.Errorf("%+v is not pending", a)
						return
					}
					(&users{apps: c, gateways: []*node{c.gateway}}).takeBack(a)
				})
			}
			wg.Wait()
			c.gateway.kill()
			if name == "killed" {
				c.gateway.run("intent.cancel.before_commit=kill@1")
				c.gateway.waitDead("intent.cancel")
			}
			c.gateway.start("")
			began := time.Now()
			c.waitUntil("all is taken back", 90*time.Second, func() bool { return c.countIn(c.users, pendingIntents) == 0 })
			c.Logf("%s: %d taken back within %s", name, n, time.Since(began).Round(time.Millisecond))
		}
		require.Equal(c, 2**windows+1, c.countIn(c.users, `SELECT COUNT(*) FROM gateway_intents WHERE state = 'canceled'`))
		c.checkApps()
	})
}

// A build's events come before its project is stored, and wait for it.
func TestEventsBeforeTheirProject(t *testing.T) {
	onEachLayout(t, func(c *apps) {
		c.startAll()
		c.gateway.kill()
		c.gateway.start("gateway.after_worker=delay:5s")
		var wg sync.WaitGroup
		for i := range max(*windows, 5) {
			wg.Go(func() {
				a := c.create([]*node{c.gateway}, i%5, fmt.Sprintf("early-%04d", i), false, nil)
				c.follow([]*node{c.gateway}, a)
			})
		}
		parked := 0
		all := make(chan struct{})
		go func() { wg.Wait(); close(all) }()
		for done := false; !done; {
			select {
			case <-all:
				done = true
			case <-time.After(50 * time.Millisecond):
				parked = max(parked, c.countIn(c.users, `SELECT COUNT(DISTINCT project_id) FROM gateway_parked_events`))
			}
		}
		require.Positive(c, parked)
		took := c.settle(60 * time.Second)
		c.checkApps()
		c.Logf("events of %d projects waited at once; all are settled %s after the last answer", parked, took.Round(time.Millisecond))
	})
}

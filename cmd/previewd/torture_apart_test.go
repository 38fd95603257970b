package main_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/testkit"
)

const apartRate = 5 // creates a second

// While the gateway cannot reach the worker, users are answered 201 or 202, and
// what they were promised is there a minute after the worker is back.
func TestWorkerAway(t *testing.T) {
	onTwo(t, func(c *apps) {
		c.startAll()
		stop := make(chan struct{})
		var pending sync.WaitGroup
		var asks []*ask
		pending.Go(func() {
			every := time.NewTicker(time.Second / apartRate)
			defer every.Stop()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-every.C:
				}
				a := &ask{user: i % 5, began: time.Now(), asked: 1, keyless: i%4 == 0}
				asks = append(asks, a)
				pending.Go(func() { c.askOnce(a, fmt.Sprintf("away-%06d", i)) })
			}
		})
		time.Sleep(*away / 10)
		c.way.Refuse(true) // nobody answers
		time.Sleep(*away / 2)
		c.way.Pause() // and now: nothing comes back
		c.way.Refuse(false)
		time.Sleep(*away / 2)
		c.way.Heal()
		healed := time.Now()
		time.Sleep(*away / 10)
		close(stop)
		pending.Wait()
		c.waitUntil("all is confirmed", time.Minute, func() bool { return c.countIn(c.users, pendingIntents) == 0 })
		converged := time.Since(healed)
		answers := map[int]int{}
		for _, a := range asks {
			answers[a.answered]++
			c.follow([]*node{c.gateway}, a)
		}
		require.Equal(c, len(asks), answers[http.StatusCreated]+answers[http.StatusAccepted], "answers %v", answers)
		require.Positive(c, answers[http.StatusAccepted])
		var slowest time.Duration
		db, done := c.open(c.users)
		var last int64
		require.NoError(c, db.QueryRow(`SELECT MAX(updated_at) FROM gateway_intents WHERE state = 'confirmed' AND created_at < $1`, healed.UnixMicro()).Scan(&last))
		done()
		slowest = time.UnixMicro(last).Sub(healed)
		require.Less(c, slowest, time.Minute)
		c.checkApps()
		c.Logf("away for %s: answers %v; all confirmed %s after it was back (the last accepted before: %s)",
			*away, answers, converged.Round(time.Millisecond), slowest.Round(time.Millisecond))
	})
}

// askOnce creates a project and does not ask again whatever the answer.
func (c *apps) askOnce(a *ask, prompt string) {
	r := request{user: a.user, method: http.MethodPost, path: "/api/projects", body: pageOf(prompt, nil)}
	if !a.keyless {
		r.key = "torture-key-" + prompt
	}
	got, err := c.send(c.gateway, r)
	if err != nil {
		c.ledger.lie("%s was not answered: %v", prompt, err)
		return
	}
	if got.status >= 400 {
		c.ledger.lie("%s was answered %s", prompt, got)
	}
	c.heard(prompt, a, got)
}

// repeater is a way to the worker that loses some requests and some answers,
// and sends every create once more, later.
type repeater struct {
	*apps
	target  string
	late    time.Duration
	waiting sync.WaitGroup
	sent    atomic.Int64 // second copies
	changed atomic.Int64 // of them, those that made something
}

func (p *repeater) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	create := r.Method == http.MethodPost && r.Header.Get("Idempotency-Key") != "" && !strings.HasSuffix(r.URL.Path, "/cancel")
	dice := rand.IntN(20)
	if create {
		second := r.Clone(context.Background())
		p.waiting.Go(func() {
			time.Sleep(time.Duration(rand.Int64N(int64(p.late) + 1)))
			p.sent.Add(1)
			if answer, err := p.pass(second, body); err == nil {
				_, _ = io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
				if answer.StatusCode < 300 && answer.Header.Get("Idempotent-Replayed") == "" {
					p.changed.Add(1)
				}
			}
		})
		if dice == 0 { // the first is lost: the second is the first to arrive
			panic(http.ErrAbortHandler)
		}
	}
	answer, err := p.pass(r, body)
	if err != nil || create && dice == 1 {
		panic(http.ErrAbortHandler)
	}
	defer answer.Body.Close()
	for name, values := range answer.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body)
}

func (p *repeater) pass(r *http.Request, body []byte) (*http.Response, error) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, p.target+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	out.Header = r.Header.Clone()
	return p.http.Do(out)
}

// Every create reaches the worker twice, the second time when it has long been
// answered, and some answers are lost: nothing is made twice, and what was
// refused stays refused.
func TestEachRequestTwice(t *testing.T) {
	onTwo(t, func(c *apps) {
		way := &repeater{apps: c, target: "http://" + c.worker.addr, late: *late}
		server := httptest.NewServer(way)
		c.Cleanup(server.Close)
		c.gateway.flags = []string{"--roles", "gateway", "--worker-url", server.URL}
		c.startAll()
		c.refusedTwice()
		var users sync.WaitGroup
		slots := make(chan struct{}, 20)
		for i := range *twice {
			slots <- struct{}{}
			users.Go(func() {
				defer func() { <-slots }()
				a := c.create([]*node{c.gateway}, i%50, fmt.Sprintf("twice-%06d", i), i%5 == 0, nil)
				c.follow([]*node{c.gateway}, a)
			})
		}
		users.Wait()
		way.waiting.Wait() // all of the second copies have arrived
		c.checkApps()
		c.Logf("%d creates, %d second copies up to %s later; %d of them came before the first, 0 made anything twice", *twice, way.sent.Load(), *late, way.changed.Load())
	})
}

// refusedTwice has a build refused because another is active, which then ends:
// the second copy of the refused request comes too late. The worker runs none.
func (c *apps) refusedTwice() {
	c.Helper()
	c.worker.kill()
	flags := c.worker.flags
	c.worker.flags = append(flags[:len(flags):len(flags)], "--builds=-1")
	c.worker.start("")
	n := max(*twice/50, 3)
	for i := range n {
		a := c.create([]*node{c.gateway}, 60+i, fmt.Sprintf("refused-%04d", i), false, nil)
		c.follow([]*node{c.gateway}, a)
		prompt := fmt.Sprintf("refused-%04d-build", i)
		b := &ask{user: a.user, build: true, began: time.Now()}
		got, asked := c.insistOn([]*node{c.gateway}, request{
			user: a.user, method: http.MethodPost, path: "/api/projects/" + a.projectID + "/builds", key: "torture-key-" + prompt,
			body: pageOf(prompt, map[string]any{"policy": previewd.PolicyReject}),
		})
		b.asked = asked
		c.heard(prompt, b, got)
		c.follow([]*node{c.gateway}, b)
		require.Equal(c, previewd.CodeBuildActive, b.refused, "%+v", got)
		got, _ = c.insistOn([]*node{c.gateway}, request{user: a.user, method: http.MethodPost, path: "/api/builds/" + a.buildID + "/cancel"})
		require.Equal(c, http.StatusOK, got.status, "%s", got)
	}
	c.worker.kill()
	c.worker.flags = flags
	c.worker.start("")
	c.Logf("%d builds refused, whose second copy comes when nothing is in its way any more", n)
}

// Without a reconciler what is left open stays so, and converges once there is one.
func TestReconcilerOff(t *testing.T) {
	onEachLayout(t, func(c *apps) {
		c.startAll()
		c.gateway.kill()
		env := c.gateway.env
		c.gateway.env = append(env[:len(env):len(env)], "PREVIEWD_MUTATE=reconciler")
		c.gateway.start("gateway.after_worker=err@2")
		work := &users{apps: c, gateways: []*node{c.gateway}, rate: apartRate, name: "off", plain: true}
		work.begin()
		for over := time.Now().Add(*unreconciled); time.Now().Before(over); {
			time.Sleep(*unreconciled / 6)
			if c.random.IntN(3) == 0 {
				c.gateway.kill() // with what it has in its hands
			} else if !isAlive(c.gateway.server.Process.Pid) {
				c.gateway.kill()
			} else {
				continue
			}
			c.gateway.start([]string{"gateway.after_worker=kill@3", "gateway.before_worker=fail", "gateway.after_worker=err@1"}[c.random.IntN(3)])
		}
		left := c.countIn(c.users, pendingIntents)
		c.gateway.kill()
		c.gateway.env = env
		began := time.Now()
		c.gateway.start("")
		work.end()
		took := c.settle(60 * time.Second)
		require.Less(c, time.Since(began), 5*time.Minute)
		c.checkApps()
		c.Logf("%s without a reconciler left %d open; all converged %s after it was back (%s after the users were done)",
			*unreconciled, left, time.Since(began).Round(time.Millisecond), took.Round(time.Millisecond))
	})
}

// Two gateways on one database work on the same intents, while one dies.
func TestTwoGatewaysOneDatabase(t *testing.T) {
	t.Parallel()
	c := newApps(t, postgresEngine(t), true)
	other := c.addGateway()
	claim := 2 * time.Second
	for _, n := range []*node{c.gateway, other} {
		n.flags = append(n.flags, "--intent-claim", claim.String())
	}
	c.startAll()
	both := []*node{c.gateway, other}
	c.way.Refuse(true)
	asks := make([]*ask, max(*windows, 8))
	var pending sync.WaitGroup
	for i := range asks {
		pending.Go(func() { asks[i] = c.create(both[i%2:], i%5, fmt.Sprintf("two-%04d", i), false, nil) })
	}
	pending.Wait()
	other.kill()
	other.start("gateway.after_worker=kill@" + strconv.Itoa(1+c.random.IntN(3)))
	c.way.Heal()
	began := time.Now()
	c.waitUntil("all is confirmed", 60*time.Second, func() bool { return c.countIn(c.users, pendingIntents) == 0 })
	took := time.Since(began)
	for _, a := range asks {
		c.follow(both[:1], a)
	}
	c.checkApps()
	c.Logf("two gateways confirmed %d intents within %s; one of them died (%v) and did not come back", len(asks), took.Round(time.Millisecond), !isAlive(other.server.Process.Pid))
	require.Less(c, took, claim+adoptWithin)
}

func postgresEngine(t *testing.T) testkit.Engine {
	t.Helper()
	engines := testkit.Engines()
	return engines[slices.IndexFunc(engines, func(e testkit.Engine) bool { return e.Name == "postgres" })]
}

// A gateway whose database is older than its projects takes them up again.
func TestOlderBackup(t *testing.T) {
	onTwo(t, func(c *apps) {
		c.startAll()
		all := []*node{c.gateway}
		before := c.create(all, 1, "before", false, nil)
		c.follow(all, before)
		c.settle(60 * time.Second)
		c.gateway.kill()
		restore := c.backup()
		c.gateway.start("")
		var pending sync.WaitGroup
		for i := range *restores {
			pending.Go(func() {
				a := c.create(all, i%5, fmt.Sprintf("after-%04d", i), false, nil)
				c.follow(all, a)
				if i%10 == 9 {
					(&users{apps: c, gateways: all}).remove(a)
				}
			})
		}
		(&users{apps: c, gateways: all}).rebuild(c.random, before, "before-build")
		pending.Wait()
		c.settle(60 * time.Second)
		c.gateway.kill()
		restore()
		began := time.Now()
		c.gateway.start("")
		c.waitUntil("all is adopted", 2*time.Minute, func() bool {
			return c.countIn(c.users, `SELECT COUNT(*) FROM gateway_projects WHERE state <> 'deleted'`) ==
				c.count(`SELECT COUNT(*) FROM worker_projects WHERE state <> 'deleted'`)
		})
		took := time.Since(began)
		c.forgetDeleted()
		c.checkApps()
		c.Logf("%d projects that an older backup did not have are adopted within %s", *restores-len(c.gone), took.Round(time.Millisecond))
	})
}

// forgetDeleted drops what was deleted before the gateway heard of it: the older
// backup does not know it and never will.
func (c *apps) forgetDeleted() {
	for prompt, a := range c.told {
		if c.gone[a.projectID] {
			delete(c.told, prompt)
		}
	}
}

// backup copies the database of a gateway that is dead.
func (c *apps) backup() (restore func()) {
	c.Helper()
	if c.onPostgres() {
		copied := c.copyDatabase(c.users.URL)
		return func() {
			c.users.URL = c.copyDatabase(copied)
			c.gateway.database = c.users.URL
		}
	}
	kept := map[string][]byte{}
	for _, name := range []string{"previewd.db", "previewd.db-wal"} {
		if raw, err := os.ReadFile(filepath.Join(c.gateway.data, name)); err == nil {
			kept[name] = raw
		}
	}
	return func() {
		for _, name := range []string{"previewd.db", "previewd.db-wal", "previewd.db-shm"} {
			path := filepath.Join(c.gateway.data, name)
			if raw := kept[name]; raw != nil {
				require.NoError(c, os.WriteFile(path, raw, 0o600))
			} else if err := os.Remove(path); err != nil {
				require.ErrorIs(c, err, os.ErrNotExist)
			}
		}
	}
}

// copyDatabase returns the URL of a copy.
func (c *apps) copyDatabase(of string) string {
	c.Helper()
	server := testkit.Postgres(c)
	if db := c.postgres[of]; db != nil {
		require.NoError(c, db.Close())
		delete(c.postgres, of)
	}
	return server.Copy(c, of)
}

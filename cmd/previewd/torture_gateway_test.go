package main_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// The same for the gateway: users who ask /api, while what answers them is killed
// and what it asks is cut off.
var (
	windows      = flag.Int("windows", 1, "how often TestCrashWindows kills a process in each window, and how many creations its neighbours break, per engine and layout")
	onlyWindow   = flag.String("window", "", "the only window of TestCrashWindows, or all")
	gatewayKills = flag.Int("gateway-kills", 1, "how often TestGatewayKilledAtEachPoint kills a process, per engine and layout")
	billingKills = flag.Int("billing-kills", 1, "how often TestBillingKilled kills the gateway, per engine and layout")
	away         = flag.Duration("away", 4*time.Second, "how long TestWorkerAway keeps the worker from the gateway, per engine")
	twice        = flag.Int("twice", 50, "how many creates TestEachRequestTwice sends, per engine")
	late         = flag.Duration("late", 2*time.Second, "how late TestEachRequestTwice sends the second of two")
	unreconciled = flag.Duration("unreconciled", 2*time.Second, "how long TestReconcilerOff goes without a reconciler, per engine and layout")
	restores     = flag.Int("restores", 3, "how many projects TestOlderBackup makes after the backup, per engine")
	gateStorms   = flag.Int("gateway-storms", 1, "how many rounds of each storm TestGatewayStorm raises")
)

// apps is a torture of a gateway and its worker: one process with one database,
// or two with one each.
type apps struct {
	*torture
	users   store.Config    // the gateway's database
	worker  *node           // the same process as the gateway's, or another
	gateway *node           // the first of its kind
	way     *testkit.Proxy  // between the two; nil when they are one
	http    *http.Client    // of the users
	tokens  map[int]string  // of users, by number
	told    map[string]*ask // by prompt, which names what is asked for
	gone    map[string]bool // projects that are deleted
	armed   bool            // the process that crashIn kills is prepared to die
	telling sync.Mutex
}

// onEachLayout runs a scenario on both engines, in one process and in two;
// without any flag on each engine in one of them.
func onEachLayout(t *testing.T, scenario func(*apps)) {
	t.Helper()
	onLayouts(t, []bool{false, true}, scenario)
}

// onTwo is onEachLayout for what needs two processes.
func onTwo(t *testing.T, scenario func(*apps)) {
	t.Helper()
	onLayouts(t, []bool{true}, scenario)
}

func onLayouts(t *testing.T, layouts []bool, scenario func(*apps)) {
	t.Helper()
	t.Parallel()
	full := len(givenFlags()) > 0
	for _, e := range testkit.Engines() {
		for _, far := range layouts {
			if len(layouts) > 1 && !full && far != (e.Name == "postgres") {
				continue
			}
			t.Run(e.Name+map[bool]string{false: "/One", true: "/Two"}[far], func(t *testing.T) {
				t.Parallel()
				scenario(newApps(t, e, far))
			})
		}
	}
}

// What the gateway's processes have in common.
const (
	jwtSecret = "torture-secret-of-the-issuer-0123456789"
	jwtIssuer = "https://issuer.test"
)

var (
	gatewayEnv = []string{
		"PREVIEWD_JWT_SECRET=" + jwtSecret, "PREVIEWD_JWT_ISSUER=" + jwtIssuer, "PREVIEWD_WORKER_TOKEN=" + crashToken,
		"PREVIEWD_PRICE_BUILD_SECOND=1000000", "PREVIEWD_PRICE_STORED_GIB=5000000000",
	}
	faulty = []string{"failpoint", "mutate"}
)

func newApps(t *testing.T, e testkit.Engine, far bool) *apps {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	c := &apps{
		torture: newTorture(t, e.Config(t)), tokens: map[int]string{}, told: map[string]*ask{}, gone: map[string]bool{},
		http: &http.Client{Transport: transport, Timeout: 40 * time.Second},
	}
	if !far {
		c.worker = c.addNode(nil, faulty...)
		c.worker.env, c.gateway, c.users = gatewayEnv, c.worker, c.store
		return c
	}
	c.worker = c.addNode([]string{"--roles", "worker,runner,preview"}, faulty...)
	c.way = testkit.NewProxy(t, c.worker.addr)
	if c.onPostgres() {
		c.users = e.Config(t)
	}
	c.gateway = c.addGateway()
	if !c.onPostgres() {
		c.users = store.Config{Path: filepath.Join(c.gateway.data, "previewd.db")}
	}
	return c
}

// addGateway makes a gateway by itself; several of them share a database.
func (c *apps) addGateway() *node {
	n := c.addServer([]string{"--roles", "gateway", "--worker-url", "http://" + c.way.Addr}, faulty...)
	n.env, n.database = gatewayEnv, c.users.URL
	return n
}

func (c *apps) far() bool { return c.way != nil }

// startAll starts the worker and the gateways.
func (c *apps) startAll() {
	c.Helper()
	for _, n := range c.nodes {
		n.start("")
	}
}

// at returns who passes the points of one side.
func (c *apps) at(side string) *node {
	if side == "worker" {
		return c.worker
	}
	return c.gateway
}

// ask is what a user wants once, however often it is asked for.
type ask struct {
	user      int
	keyless   bool
	build     bool // of a project that is there, and not a project
	began     time.Time
	took      time.Duration
	asked     int
	answered  int    // the status, once there was an answer
	intent    string // of a 202
	projectID string
	buildID   string
	refused   previewd.Code
	canceled  bool // taken back
}

// userID is a user as tokens name one.
func userID(i int) string { return fmt.Sprintf("6e2f9a34-77c1-4c66-9f0a-%012d", i) }

func (c *apps) token(user int) string {
	c.telling.Lock()
	defer c.telling.Unlock()
	if c.tokens[user] == "" {
		now := time.Now()
		c.tokens[user] = testkit.SignHS256(c, []byte(jwtSecret), map[string]any{"alg": "HS256", "typ": "JWT"}, map[string]any{
			"iss": jwtIssuer, "aud": "authenticated", "sub": userID(user), "role": "authenticated", "session_id": fmt.Sprint("session-", user),
			"iat": now.Unix(), "exp": now.Add(12 * time.Hour).Unix(),
		})
	}
	return c.tokens[user]
}

// request is one call of /api.
type request struct {
	user         int
	method, path string
	key          string
	body         any
}

// reply is what came of it.
type reply struct {
	status  int
	raw     []byte
	problem httpx.Problem
}

func (r *reply) read(v any) error { return json.Unmarshal(r.raw, v) }

func (r *reply) String() string { return fmt.Sprintf("%d %s", r.status, r.raw) }

// send calls a gateway once.
func (c *apps) send(n *node, r request) (*reply, error) {
	var body io.Reader
	if r.body != nil {
		raw, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(r.method, "http://"+n.addr+r.path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token(r.user))
	req.Header.Set("Content-Type", "application/json")
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	out := &reply{status: answer.StatusCode}
	if out.raw, err = io.ReadAll(answer.Body); err != nil {
		return nil, err
	}
	if out.status >= 400 {
		if err := out.read(&out.problem); err != nil || out.problem.ReferenceID == "" {
			return nil, fmt.Errorf("no problem but %s", out)
		}
	}
	return out, nil
}

// again reports whether the same request is to be sent again.
func (r *reply) again() bool { return r.status >= 500 || r.problem.Code == previewd.CodeKeyInFlight }

// insistOn repeats a request until it is answered, at any of the gateways.
func (c *apps) insistOn(gateways []*node, r request) (got *reply, asked int) {
	for over := time.Now().Add(patience); ; time.Sleep(time.Duration(50+asked%7*20) * time.Millisecond) {
		var err error
		got, err = c.send(gateways[asked%len(gateways)], r)
		asked++
		if err == nil && !got.again() {
			return got, asked
		}
		if time.Now().After(over) {
			c.ledger.lie("a user has waited for %s: %s %s: %v, %v", patience, r.method, r.path, got, err)
			return nil, asked
		}
	}
}

// page is the body of a create.
func pageOf(prompt string, more map[string]any) map[string]any {
	body := map[string]any{"prompt": prompt, "templateFiles": map[string]string{"index.html": "<h1>" + prompt + "</h1>"}}
	for name, value := range more {
		body[name] = value
	}
	return body
}

// heard writes down how a create was answered.
func (c *apps) heard(prompt string, a *ask, got *reply) {
	c.telling.Lock()
	defer c.telling.Unlock()
	a.took = time.Since(a.began)
	c.told[prompt] = a
	if got == nil {
		return
	}
	a.answered, a.refused = got.status, got.problem.Code
	var answer previewd.AppCreation
	if err := got.read(&answer); err != nil {
		c.ledger.lie("%s was answered %s", prompt, got)
	}
	switch {
	case got.status == http.StatusAccepted && answer.Intent != nil:
		a.intent = answer.Intent.ID
		if answer.Intent.State == previewd.IntentConfirmed {
			a.projectID, a.buildID = answer.Intent.ProjectID, answer.Intent.BuildID
		}
	case got.status < 300 && answer.Project != nil && answer.Build != nil:
		a.projectID, a.buildID = answer.Project.ID, answer.Build.ID
	case got.status < 400:
		c.ledger.lie("%s was answered %s", prompt, got)
	}
}

// tell changes what is written down of an ask.
func (c *apps) tell(change func()) {
	c.telling.Lock()
	defer c.telling.Unlock()
	change()
}

// create makes a project of a user's and returns what was heard of it.
func (c *apps) create(gateways []*node, user int, prompt string, keyless bool, more map[string]any) *ask {
	a := &ask{user: user, keyless: keyless, began: time.Now()}
	r := request{user: user, method: http.MethodPost, path: "/api/projects", body: pageOf(prompt, more)}
	if !keyless {
		r.key = "torture-key-" + prompt
	}
	got, asked := c.insistOn(gateways, r)
	a.asked = asked
	c.heard(prompt, a, got)
	return a
}

// pendingIntents are those whose outcome is open.
const pendingIntents = `SELECT COUNT(*) FROM gateway_intents WHERE state IN ('pending', 'attention')`

// intentOf returns the state of the intent of a prompt, "" when there is none.
// A prompt is found by the client key, which names it.
func (c *apps) intentOf(prompt string) (state, id string) {
	c.Helper()
	db, done := c.open(c.users)
	defer done()
	row := db.QueryRow(`SELECT state, id FROM gateway_intents WHERE client_key = $1`, "torture-key-"+prompt)
	if err := row.Scan(&state, &id); err != nil && !strings.Contains(err.Error(), "no rows") && !strings.Contains(err.Error(), "no such table") {
		require.NoError(c, err)
	}
	return state, id
}

package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/client"
)

// ledger is what clients were told: all of it must be there in the end.
type ledger struct {
	sync.Mutex
	intents   map[string]*intent              // by prompt, which names an intent
	statuses  map[string]previewd.BuildStatus // the last word that clients had of a build
	activated map[string]map[int64]bool       // versions by project
	deleted   map[string]bool                 // projects
	lied      []string                        // what contradicts an earlier answer
}

// intent is one thing that a client wants once, however often it asks.
type intent struct {
	keyless bool
	asked   int // times
	began   time.Time
	took    time.Duration
	build   string // what it got; "" when it was refused
	project string
	refused previewd.Code
}

func (l *ledger) answer(prompt string, in *intent) {
	l.Lock()
	defer l.Unlock()
	if l.intents == nil {
		l.intents = map[string]*intent{}
	}
	in.took = time.Since(in.began)
	l.intents[prompt] = in
}

// saw writes down what a client was told of a build. What is over stays so, and
// what is being canceled never completes.
func (l *ledger) saw(id string, now previewd.BuildStatus) {
	l.Lock()
	defer l.Unlock()
	if l.statuses == nil {
		l.statuses = map[string]previewd.BuildStatus{}
	}
	before := l.statuses[id]
	if before.Terminal() {
		if now.Terminal() && now != before {
			l.lied = append(l.lied, fmt.Sprintf("build %s was %s and then %s", id, before, now))
		}
		return // a slow answer can come late
	}
	if before != previewd.BuildCanceling || now.Terminal() {
		if before == previewd.BuildCanceling && now == previewd.BuildCompleted {
			l.lied = append(l.lied, "build "+id+" was being canceled and has completed")
		}
		l.statuses[id] = now
	}
}

func (l *ledger) lie(format string, args ...any) {
	l.Lock()
	defer l.Unlock()
	l.lied = append(l.lied, fmt.Sprintf(format, args...))
}

// keyless sends every request without its Idempotency-Key.
type keyless struct{ http.RoundTripper }

func (k keyless) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("Idempotency-Key")
	return k.RoundTripper.RoundTrip(r)
}

// clients are how a scenario calls its servers.
type clients struct{ keyed, keyless []*client.Client }

func (c *torture) clients(addrs ...string) *clients {
	c.Helper()
	if len(addrs) == 0 {
		for _, n := range c.nodes {
			addrs = append(addrs, n.addr)
		}
	}
	all := &clients{}
	for _, addr := range addrs {
		transport := client.NewTransport()
		transport.MaxIdleConnsPerHost, transport.MaxIdleConns = 256, 0
		c.Cleanup(transport.CloseIdleConnections)
		for list, way := range map[*[]*client.Client]http.RoundTripper{&all.keyed: transport, &all.keyless: keyless{transport}} {
			one, err := client.New(client.Config{URL: "http://" + addr, Token: crashToken, Retries: -1, HTTP: &http.Client{Transport: way, Timeout: 40 * time.Second}})
			if err != nil {
				c.Fatal(err)
			}
			*list = append(*list, one)
		}
	}
	return all
}

// load is clients that go on whatever happens to the servers.
type load struct {
	*torture
	clients *clients
	rate    int              // creates a second
	most    int              // intents under way; more would only queue
	builds  bool             // and not creates alone
	files   previewd.Files   // of all projects; default several small ones
	mix     []previewd.Files // of one after another, instead
	name    string           // begins the names of intents
	made    int              // by createSome
	stop    context.CancelFunc
	pending sync.WaitGroup
	ahead   atomic.Int64 // builds that waited at the last create
}

// maxAhead is how many builds may wait before creates become rare: all of them
// are waited for in the end.
const maxAhead = 300

// begin starts the load. Its clients stop when end is called.
func (l *load) begin() {
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.Cleanup(stop)
	slots := make(chan struct{}, l.most)
	l.pending.Go(func() {
		every := time.NewTicker(time.Second / time.Duration(l.rate))
		defer every.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			if <-every.C; l.ahead.Load() > maxAhead && i%20 > 0 {
				continue
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			l.pending.Go(func() {
				defer func() { <-slots }()
				l.live(ctx, i)
			})
		}
	})
}

// end lets the clients get the answers that they wait for.
func (l *load) end() {
	l.stop()
	l.pending.Wait()
}

// patience is how long a client goes on asking: longer than any scenario keeps
// its servers down.
const patience = 3 * time.Minute

// insist repeats a call until it is answered, by any server.
func (l *load) insist(random *rand.Rand, servers []*client.Client, call func(*client.Client) error) (asked int, err error) {
	for over := time.Now().Add(patience); ; {
		asked++
		err = call(servers[random.IntN(len(servers))])
		switch previewd.ErrorCode(err) {
		case previewd.CodeUnavailable, previewd.CodeInternal, previewd.CodeKeyInFlight:
		default:
			return asked, err
		}
		if time.Now().After(over) {
			l.ledger.lie("a client has waited for %s: %v", patience, err)
			return asked, err
		}
		pause := min(20*time.Millisecond<<min(asked, 4), 200*time.Millisecond)
		time.Sleep(pause/2 + time.Duration(random.Int64N(int64(pause))))
	}
}

var loadTrees = []map[string]any{nil, nil, nil, {"template": "landing"}, nil, nil, nil, {"template": "app"}}

// randomOf is what the ith client throws its dice with.
func (l *load) randomOf(i int) *rand.Rand { return rand.New(rand.NewPCG(l.seed, uint64(i))) }

// live is one client: it creates a project and does something with it.
func (l *load) live(ctx context.Context, i int) {
	random := l.randomOf(i)
	preview := l.create(random, i)
	if preview == nil {
		return
	}
	l.read(random, preview.BuildID)
	if !l.builds {
		return
	}
	last := preview.BuildID
	for step := range 1 + random.IntN(3) {
		switch random.IntN(5) {
		case 0, 1:
			if id := l.rebuild(random, preview.ProjectID, fmt.Sprintf("%s-%06d-build-%d", l.name, i, step)); id != "" {
				last = id
			}
		case 2:
			l.cancel(random, last)
		case 3:
			l.activate(random, preview.ProjectID)
		case 4:
			l.read(random, last)
		}
	}
	for i%4 == 0 && ctx.Err() == nil && !l.wait(random, last) {
		continue
	}
	l.activate(random, preview.ProjectID)
	if random.IntN(4) == 0 {
		l.remove(random, preview.ProjectID)
	}
}

// remove deletes a project: from then on nobody finds it.
func (l *load) remove(random *rand.Rand, projectID string) {
	_, err := l.insist(random, l.clients.keyed, func(server *client.Client) error {
		return server.DeleteProject(context.Background(), previewd.DeleteProjectRequest{ProjectID: projectID})
	})
	if err != nil {
		l.ledger.lie("delete of %s: %v", projectID, err)
		return
	}
	_, err = l.insist(random, l.clients.keyed, func(server *client.Client) error {
		_, err := server.FindProject(context.Background(), projectID)
		return err
	})
	if previewd.ErrorCode(err) != previewd.CodeNotFound {
		l.ledger.lie("project %s was deleted and is there: %v", projectID, err)
	}
	l.ledger.Lock()
	defer l.ledger.Unlock()
	if l.ledger.deleted == nil {
		l.ledger.deleted = map[string]bool{}
	}
	l.ledger.deleted[projectID] = true
}

func (l *load) create(random *rand.Rand, i int) *previewd.Preview {
	prompt := fmt.Sprintf("%s-%06d", l.name, i)
	req := previewd.CreatePreviewRequest{UserID: fmt.Sprintf("user-%d", i%7), Prompt: prompt, Metadata: loadTrees[i%len(loadTrees)]}
	switch {
	case len(l.mix) > 0:
		req.Metadata, req.TemplateFiles = nil, l.mix[i%len(l.mix)]
	case l.files != nil:
		req.Metadata, req.TemplateFiles = nil, l.files
	case req.Metadata == nil:
		req.TemplateFiles = previewd.Files{"index.html": []byte("<h1>" + prompt + "</h1>")}
	}
	in := &intent{began: time.Now(), keyless: random.IntN(4) == 0}
	servers := l.clients.keyless
	if !in.keyless {
		servers, req.IdempotencyKey = l.clients.keyed, "torture-key-"+prompt
	}
	var preview *previewd.Preview
	var err error
	in.asked, err = l.insist(random, servers, func(server *client.Client) (err error) {
		preview, err = server.CreatePreview(context.Background(), req)
		return err
	})
	if err != nil {
		in.refused = previewd.ErrorCode(err)
		l.ledger.lie("create %s was refused: %v", prompt, err)
		l.ledger.answer(prompt, in)
		return nil
	}
	in.build, in.project = preview.BuildID, preview.ProjectID
	l.ahead.Store(int64(preview.QueuePosition))
	l.ledger.answer(prompt, in)
	if !in.keyless && random.IntN(4) == 0 { // what was answered is answered so again
		var again *previewd.Preview
		_, err := l.insist(random, servers, func(server *client.Client) (err error) {
			again, err = server.CreatePreview(context.Background(), req)
			return err
		})
		if err != nil || again.ProjectID != in.project || again.BuildID != in.build {
			l.ledger.lie("create %s was answered %s and then %v, %v", prompt, in.project, again, err)
		}
	}
	return preview
}

func (l *load) rebuild(random *rand.Rand, projectID, prompt string) string {
	req := previewd.CreateBuildRequest{
		ProjectID: projectID, Prompt: prompt, TemplateFiles: previewd.Files{"index.html": []byte("<h1>" + prompt + "</h1>")},
		Policy:         []previewd.BuildPolicy{previewd.PolicySupersede, previewd.PolicyQueue, previewd.PolicyReject}[random.IntN(3)],
		IdempotencyKey: "torture-key-" + prompt,
	}
	in := &intent{began: time.Now()}
	var build *previewd.Build
	var err error
	in.asked, err = l.insist(random, l.clients.keyed, func(server *client.Client) (err error) {
		build, err = server.CreateBuild(context.Background(), req)
		return err
	})
	if err == nil {
		in.build, in.project = build.ID, build.ProjectID
	} else if in.refused = previewd.ErrorCode(err); in.refused != previewd.CodeBuildActive {
		l.ledger.lie("build %s was refused: %v", prompt, err)
	}
	l.ledger.answer(prompt, in)
	return in.build
}

func (l *load) cancel(random *rand.Rand, buildID string) {
	var build *previewd.Build
	_, err := l.insist(random, l.clients.keyed, func(server *client.Client) (err error) {
		build, err = server.CancelBuild(context.Background(), previewd.CancelBuildRequest{BuildID: buildID})
		return err
	})
	if err != nil {
		l.ledger.lie("cancel of %s: %v", buildID, err)
		return
	}
	l.ledger.saw(buildID, build.Status)
}

// read looks at a build that the client has been told of: it must be there.
func (l *load) read(random *rand.Rand, buildID string) { l.find(random, buildID, 0) }

// wait waits for the end of a build, and reports whether it has come.
func (l *load) wait(random *rand.Rand, buildID string) bool {
	return l.find(random, buildID, 2*time.Second).Terminal()
}

func (l *load) find(random *rand.Rand, buildID string, wait time.Duration) previewd.BuildStatus {
	var build *previewd.Build
	_, err := l.insist(random, l.clients.keyed, func(server *client.Client) (err error) {
		build, err = server.FindBuild(context.Background(), buildID, wait)
		return err
	})
	if err != nil {
		l.ledger.lie("build %s was told of and is not to be found: %v", buildID, err)
		return previewd.BuildFailed
	}
	l.ledger.saw(buildID, build.Status)
	return build.Status
}

// activate shows any version of the project, if it has one.
func (l *load) activate(random *rand.Rand, projectID string) {
	var versions *previewd.VersionPage
	_, err := l.insist(random, l.clients.keyed, func(server *client.Client) (err error) {
		versions, err = server.ListVersions(context.Background(), projectID, previewd.Page{})
		return err
	})
	if err != nil || len(versions.Versions) == 0 {
		return
	}
	number := versions.Versions[random.IntN(len(versions.Versions))].Number
	_, err = l.insist(random, l.clients.keyed, func(server *client.Client) error {
		_, err := server.ActivateVersion(context.Background(), previewd.ActivateVersionRequest{ProjectID: projectID, Number: number})
		return err
	})
	if err != nil {
		l.ledger.lie("version %d of %s was told of and cannot be activated: %v", number, projectID, err)
		return
	}
	l.ledger.Lock()
	defer l.ledger.Unlock()
	if l.ledger.activated == nil {
		l.ledger.activated = map[string]map[int64]bool{}
	}
	if l.ledger.activated[projectID] == nil {
		l.ledger.activated[projectID] = map[int64]bool{}
	}
	l.ledger.activated[projectID][number] = true
}

package worker_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

var (
	histories   = flag.Int("histories", 2, "histories that TestHistoriesAreLinearizable checks on each engine")
	historySeed = flag.Uint64("history-seed", 0, "seed of their choices; 0 makes one")
)

const (
	historyOps     = 2000
	historyClients = 32
	historyKeys    = 48
)

// call is one operation on what one key has made.
type call struct {
	kind  string // create, get, cancel, claim, finish, release
	key   int
	epoch int64 // finish, release: the claim's
}

// answer is what came back. Unknown stands for a broken connection: the
// operation may have happened or not.
type answer struct {
	unknown bool
	code    previewd.Code
	project string
	status  previewd.BuildStatus
	epoch   int64
	version bool
}

// fact is the sequential truth about one key.
type fact struct {
	project string // "" while nothing is made; "?" when nobody has been told its id
	status  previewd.BuildStatus
	epoch   int64
}

// sequential is what the worker must look like, whatever runs at once: each
// operation takes place at one moment between its call and its return.
var sequential = (&porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[int][]porcupine.Operation{}
		for _, op := range history {
			byKey[op.Input.(call).key] = append(byKey[op.Input.(call).key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() []any { return []any{fact{}} },
	Step: func(state, input, output any) []any {
		before, c, got := state.(fact), input.(call), output.(answer)
		after, want := before.apply(c)
		switch {
		case got.unknown:
			return []any{before, after}
		case want.project == "?" && got.project != "":
			want.project = got.project // this is how the id becomes known
			after.project = got.project
		}
		if got != want {
			return nil
		}
		return []any{after}
	},
	Equal:             func(a, b any) bool { return a == b },
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
}).ToModel()

// apply returns the fact after an operation, and its answer.
func (f fact) apply(c call) (fact, answer) {
	if f.project == "" && c.kind == "create" {
		f = fact{project: "?", status: previewd.BuildQueued}
		return f, answer{project: "?"}
	}
	if f.project == "" {
		return f, answer{code: previewd.CodeNotFound}
	}
	switch c.kind {
	case "create":
		return f, answer{project: f.project}
	case "get":
		return f, answer{project: f.project, status: f.status, epoch: f.epoch, version: f.status == previewd.BuildCompleted}
	case "cancel":
		switch f.status {
		case previewd.BuildQueued:
			f.status = previewd.BuildCanceled
		case previewd.BuildBuilding:
			f.status = previewd.BuildCanceling
		}
		return f, answer{status: f.status}
	case "claim":
		if f.status != previewd.BuildQueued {
			return f, answer{code: "not_claimable"}
		}
		f.status, f.epoch = previewd.BuildBuilding, f.epoch+1
		return f, answer{epoch: f.epoch}
	}
	return f.end(c)
}

// end is a runner's finish or release.
func (f fact) end(c call) (fact, answer) {
	switch {
	case c.epoch != f.epoch || f.status == previewd.BuildQueued:
		return f, answer{code: previewd.CodeLeaseLost}
	case f.status.Terminal():
		return f, answer{status: f.status} // the answer to an earlier call was lost
	case f.status == previewd.BuildCanceling && c.kind == "finish":
		return f, answer{code: previewd.CodeBuildCanceling}
	case f.status == previewd.BuildCanceling:
		f.status = previewd.BuildCanceled
	case c.kind == "finish":
		f.status = previewd.BuildCompleted
	default:
		f.status = previewd.BuildQueued
	}
	return f, answer{status: f.status}
}

// history records what clients of two servers on one database do and see.
type history struct {
	*testing.T
	servers  []*fixture
	manifest previewd.Digest
	began    time.Time

	mu     sync.Mutex
	ops    []porcupine.Operation
	builds [historyKeys]string
	claims []call // that somebody has held; old ones stay
	seen   map[previewd.Lease]bool
}

func TestHistoriesAreLinearizable(t *testing.T) {
	t.Parallel()
	if *historySeed == 0 {
		*historySeed = rand.Uint64()
	}
	t.Logf("replay with: go test ./internal/worker -run Linearizable -histories %d -history-seed %d", *histories, *historySeed)
	for _, e := range testkit.Engines() {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			unknown, ops := 0, 0
			for i := range *histories {
				// Each closes its database at its end: a server has not so many connections.
				var h *history
				require.True(t, t.Run(strconv.Itoa(i), func(t *testing.T) { h = record(t, e.Config(t), *historySeed+uint64(i)) }))
				ops += len(h.ops)
				for _, op := range h.ops {
					if op.Output.(answer).unknown {
						unknown++
					}
				}
				verdict, info := porcupine.CheckOperationsVerbose(sequential, h.ops, 5*time.Minute) // a busy machine overlaps more
				if verdict != porcupine.Ok {
					path := t.TempDir() + "/history.html"
					require.NoError(t, porcupine.VisualizePath(sequential, info, path))
				}
				require.Equal(t, porcupine.Ok, verdict)
			}
			t.Logf("%d histories, %d operations by %d clients, %d with an unknown outcome: all Ok", *histories, ops, historyClients, unknown)
		})
	}
}

func record(t *testing.T, cfg store.Config, seed uint64) *history {
	t.Helper()
	db := testkit.Open(t, cfg)
	h := &history{T: t, servers: []*fixture{setup(t, db), setup(t, db)}, began: time.Now(), seen: map[previewd.Lease]bool{}}
	h.servers[1].Artifacts = h.servers[0].Artifacts
	h.manifest = h.servers[0].manifest()
	done := make(chan struct{})
	var cutting, clients sync.WaitGroup
	if cfg.URL != "" {
		cutting.Go(func() { cutConnections(t, cfg, done) })
	}
	for client := range historyClients {
		clients.Go(func() {
			choose := rand.New(rand.NewPCG(seed, uint64(client)))
			for range historyOps / historyClients {
				h.step(client, choose)
			}
		})
	}
	clients.Wait()
	close(done)
	cutting.Wait()
	h.addLostClaims(db)
	return h
}

// cutConnections ends a connection of the database now and then, in whatever it is.
func cutConnections(t *testing.T, cfg store.Config, done <-chan struct{}) {
	t.Helper()
	every := time.NewTicker(30 * time.Millisecond)
	defer every.Stop()
	for {
		select {
		case <-done:
			return
		case <-every.C:
			testkit.Postgres(t).CutOne(t, cfg.URL)
		}
	}
}

// step does one operation and records it.
func (h *history) step(client int, choose *rand.Rand) {
	server := h.servers[client%2]
	c := call{kind: []string{"create", "get", "get", "cancel", "claim", "claim", "finish", "finish", "release"}[choose.IntN(9)], key: choose.IntN(historyKeys)}
	var lease previewd.Lease
	if c.kind == "finish" || c.kind == "release" {
		h.mu.Lock()
		if len(h.claims) == 0 {
			h.mu.Unlock()
			return
		}
		held := h.claims[max(0, len(h.claims)-1-choose.IntN(40))]
		c.key, c.epoch, lease = held.key, held.epoch, previewd.Lease{BuildID: h.builds[held.key], Epoch: held.epoch}
		h.mu.Unlock()
	}
	op := porcupine.Operation{ClientId: client, Call: time.Since(h.began).Nanoseconds()}
	got, ok := h.do(server, &c, lease)
	op.Return = time.Since(h.began).Nanoseconds()
	if !ok {
		return
	}
	if got.unknown {
		op.Return = time.Hour.Nanoseconds() // it may yet happen
	}
	op.Input, op.Output = c, got
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

// do sends one operation; false means that there is nothing to record.
func (h *history) do(server *fixture, c *call, lease previewd.Lease) (got answer, ok bool) {
	ctx := context.Background()
	var err error
	switch c.kind {
	case "create":
		var p *previewd.Preview
		if p, err = server.CreatePreview(ctx, keyed(func(r *previewd.CreatePreviewRequest) {
			r.IdempotencyKey, r.Prompt = fmt.Sprintf("history-key-%06d", c.key), fmt.Sprintf("history %d", c.key)
		})); err == nil {
			h.mu.Lock()
			h.builds[c.key] = p.BuildID
			h.mu.Unlock()
			got.project = p.ProjectID
		}
	case "claim":
		return h.claim(server, c)
	case "finish", "release":
		out := previewd.Outcome{Kind: previewd.OutcomeCompleted, Manifest: h.manifest}
		if c.kind == "release" {
			out = previewd.Outcome{Kind: previewd.OutcomeReleased}
		}
		got.status, err = server.FinishBuild(ctx, lease, out)
	default:
		h.mu.Lock()
		id := h.builds[c.key]
		h.mu.Unlock()
		if id == "" {
			return got, false
		}
		got, err = h.look(server, c, id)
	}
	if err != nil {
		got = answer{code: previewd.ErrorCode(err)}
		if got.code == previewd.CodeKeyInFlight {
			return got, false // too slow a machine: nothing was done
		}
		got.unknown = got.code == previewd.CodeUnavailable || got.code == previewd.CodeInternal
		if got.code == previewd.CodeInternal {
			h.Errorf("%s: %v", c.kind, err)
		}
	}
	return got, true
}

func (h *history) look(server *fixture, c *call, id string) (got answer, err error) {
	if c.kind == "cancel" {
		b, err := server.CancelBuild(context.Background(), previewd.CancelBuildRequest{BuildID: id, Caller: caller})
		if err == nil {
			got.status = b.Status
		}
		return got, err
	}
	b, err := server.db.FindBuild(context.Background(), id) // one statement: one moment
	if err == nil {
		got = answer{project: b.ProjectID, status: b.Status, epoch: b.Epoch, version: b.Version == 1}
	}
	return got, err
}

func (h *history) claim(server *fixture, c *call) (got answer, ok bool) {
	ctx := context.Background()
	claimed, err := server.ClaimBuild(ctx, "runner", 0)
	if err != nil || claimed == nil {
		if code := previewd.ErrorCode(err); err != nil && code != previewd.CodeUnavailable {
			h.Errorf("claim: %v", err)
		}
		return got, false // what it may have taken is found at the end
	}
	var b *store.Build
	for b == nil { // which key it is of is in the row, whatever breaks
		b, _ = server.db.FindBuild(ctx, claimed.BuildID)
	}
	_, err = fmt.Sscanf(b.Prompt, "history %d", &c.key)
	require.NoError(h, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.builds[c.key] = b.ID
	h.claims = append(h.claims, call{key: c.key, epoch: claimed.Epoch})
	h.seen[claimed.Lease] = true
	return answer{epoch: claimed.Epoch}, true
}

// addLostClaims records the claims whose answer was lost: they took place at
// some moment.
func (h *history) addLostClaims(db *store.DB) {
	for key, id := range h.builds {
		events, err := db.ListBuildEvents(context.Background(), id, 0, historyOps)
		require.NoError(h, err)
		for _, e := range events {
			if e.Type == previewd.EventBuildBuilding && !h.seen[previewd.Lease{BuildID: id, Epoch: e.Epoch}] {
				h.ops = append(h.ops, porcupine.Operation{
					ClientId: historyClients, Input: call{kind: "claim", key: key}, Output: answer{epoch: e.Epoch},
					Return: time.Hour.Nanoseconds(),
				})
			}
		}
	}
}

package worker_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

var (
	seed      = flag.Uint64("seed", 0, "seed of everything that is random in races; 0 makes one")
	races     = flag.Int("races", 300, "how many builds TestCancelRacesFinish finishes while they are canceled, per engine")
	reversals = flag.Int("reversals", 30, "how many projects TestReverseOrderNeverRegresses builds in reverse order, per engine")
)

// random returns a source for the test and prints how to get it again.
func random(t *testing.T, flagName string, count int) *rand.Rand {
	t.Helper()
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("replay with: go test ./internal/worker -run '^%s$' -%s %d -seed %d -count 1 -v", t.Name(), flagName, count, s)
	return rand.New(rand.NewPCG(s, 1))
}

// unlimited lets all that a test makes wait.
func unlimited(cfg *worker.Config) { cfg.Queue = &store.QueueLimits{} }

// A build that is canceled while it finishes is either canceled and has no
// version, or completed and has one; and whoever asked was told which.
func TestCancelRacesFinish(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db, unlimited)
		dice, manifest, began := random(t, "races", *races), f.manifest(), time.Now()
		var next, canceled, completed atomic.Int64
		var lanes sync.WaitGroup
		for range 8 {
			moments := rand.New(rand.NewPCG(dice.Uint64(), 1))
			lanes.Go(func() {
				for next.Add(1) <= int64(*races) && !t.Failed() {
					if f.race(moments, manifest) == previewd.BuildCompleted {
						completed.Add(1)
					} else {
						canceled.Add(1)
					}
				}
			})
		}
		lanes.Wait()
		require.NotZero(t, canceled.Load(), "cancel wins sometimes")
		require.NotZero(t, completed.Load(), "so does finish")
		t.Logf("%s: %d races, %d canceled, %d completed, 0 both", time.Since(began).Round(time.Second), *races, canceled.Load(), completed.Load())
	})
}

// race finishes and cancels a build at once, by its user or by a newer build,
// and returns how it ended.
func (f *fixture) race(moments *rand.Rand, manifest previewd.Digest) previewd.BuildStatus {
	ctx := context.Background()
	req := request()
	req.IdempotencyKey = previewd.NewRequestID()
	_, err := f.CreatePreview(ctx, req)
	f.must(err)
	c, err := f.ClaimBuild(ctx, "runner-1", time.Minute)
	f.must(err)
	build, err := f.FindBuild(ctx, c.BuildID, 0)
	f.must(err)
	byNewer := moments.IntN(4) == 0
	wait := [2]time.Duration{time.Duration(moments.Int64N(int64(time.Millisecond))), time.Duration(moments.Int64N(int64(time.Millisecond)))}
	var told previewd.BuildStatus
	var both sync.WaitGroup
	both.Go(func() {
		time.Sleep(wait[0])
		if byNewer {
			_, err := f.CreateBuild(ctx, previewd.CreateBuildRequest{
				ProjectID: build.ProjectID, TemplateFiles: previewd.Files{"index.html": []byte("again")}, Caller: caller,
			})
			f.must(err)
			return
		}
		b, err := f.CancelBuild(ctx, previewd.CancelBuildRequest{BuildID: c.BuildID, Caller: caller})
		f.must(err)
		told = b.Status
	})
	both.Go(func() {
		time.Sleep(wait[1])
		_, err := f.FinishBuild(ctx, c.Lease, previewd.Outcome{
			Kind: previewd.OutcomeCompleted, Manifest: manifest, Runner: "static", Isolation: "process",
		})
		if previewd.ErrorCode(err) == previewd.CodeBuildCanceling {
			_, err = f.FinishBuild(ctx, c.Lease, previewd.Outcome{Kind: previewd.OutcomeCanceled})
		}
		f.must(err)
	})
	both.Wait()
	if byNewer { // it waits, and would be claimed by another lane
		page, err := f.FindProject(ctx, build.ProjectID)
		f.must(err)
		_, err = f.CancelBuild(ctx, previewd.CancelBuildRequest{BuildID: page.LatestBuild.ID, Caller: caller})
		f.must(err)
	}
	return f.ended(c.BuildID, build.ProjectID, told)
}

// ended checks that a build is over one way only, and as its canceler was told.
func (f *fixture) ended(buildID, projectID string, told previewd.BuildStatus) previewd.BuildStatus {
	b, err := f.FindBuild(context.Background(), buildID, 0)
	f.must(err)
	page, err := f.ListVersions(context.Background(), projectID, previewd.Page{})
	f.must(err)
	made := 0
	for _, v := range page.Versions {
		if v.BuildID == buildID {
			made++
		}
	}
	switch {
	case b.Status == previewd.BuildCompleted && made == 1 && (told == "" || told == previewd.BuildCompleted):
	case (b.Status == previewd.BuildCanceled || b.Status == previewd.BuildSuperseded) && made == 0 && told != previewd.BuildCompleted:
	default:
		f.t.Errorf("build %s is %s with %d versions, and its canceler was told %q", buildID, b.Status, made, told)
	}
	return b.Status
}

// must is require.NoError for goroutines.
func (f *fixture) must(err error) {
	if err != nil {
		f.t.Error(err)
	}
}

// A create whose equal is under way in another process is told so in time, and
// not after as many waits as a broken connection would be given.
func TestCreateWaitsOnceForItsEqual(t *testing.T) {
	t.Parallel()
	database := testkit.Postgres(t).Database(t)
	f := setup(t, testkit.Open(t, store.Config{URL: database}))
	req := request()
	req.IdempotencyKey = "under-way-elsewhere"
	other, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	defer other.Close(context.Background())
	_, err = other.Exec(t.Context(), `SELECT pg_advisory_lock(hashtextextended($1, 0))`, "key svc "+req.IdempotencyKey)
	require.NoError(t, err)
	began := time.Now()
	_, err = f.CreatePreview(t.Context(), req)
	require.Equal(t, previewd.CodeKeyInFlight, previewd.ErrorCode(err))
	require.Less(t, time.Since(began), 9*time.Second, "it waits two seconds, once and not five times")
	require.NoError(t, other.Close(t.Context()))
	_, err = f.CreatePreview(t.Context(), req)
	require.NoError(t, err)
}

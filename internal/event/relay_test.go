package event_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

var feedEvents = flag.Int("feed-events", 1500, "how many events the feed's test writes")

const writers = 12

// feed is a worker with a project for each writer, and relays that come and go.
type feed struct {
	*worker.Service
	t        *testing.T
	db       *store.DB
	hub      *event.Hub
	projects []*previewd.Preview
	written  atomic.Int64
}

func newFeed(t *testing.T, db *store.DB) *feed {
	t.Helper()
	artifacts, err := artifact.NewFolder(t.TempDir())
	require.NoError(t, err)
	f := &feed{t: t, db: db, hub: new(event.Hub)}
	f.Service, err = worker.New(worker.Config{
		Store: db, Artifacts: artifacts, Changes: f.hub, Log: slog.New(slog.DiscardHandler),
		PreviewURL: func(label string) string { return "http://" + label + "/" },
	})
	require.NoError(t, err)
	for i := range writers {
		p, err := f.CreatePreview(t.Context(), previewd.CreatePreviewRequest{
			UserID: fmt.Sprint("u", i), TemplateFiles: previewd.Files{"index.html": []byte("x")}, Caller: previewd.Caller{Principal: "p", Service: "s"},
		})
		require.NoError(t, err)
		f.projects = append(f.projects, p)
		f.written.Add(2)
	}
	return f
}

// relay runs a relay of the name until stop is called.
func (f *feed) relay(cfg event.Relay) (stop func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	cfg.Hub, cfg.Wake, cfg.Grown = f.hub, worker.EventTopic, worker.FeedTopic
	if cfg.Feed == nil {
		cfg.Feed = f.db
	}
	cfg.Poll = 20 * time.Millisecond
	done := make(chan error, 1)
	go func() { done <- cfg.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(f.t, <-done)
	}
}

// killed is a store whose relay dies in a batch, and without a word.
type killed struct {
	*store.DB
	batches int // that it lives to give
	once    sync.Once
	struck  chan struct{}
}

func (k *killed) AssignFeed(ctx context.Context, holder string, lease time.Duration, limit int) (int, bool, error) {
	if k.batches < 0 {
		k.once.Do(func() { close(k.struck) })
	}
	given, leads, err := k.DB.AssignFeed(ctx, holder, lease, limit)
	if given > 0 {
		k.batches--
	}
	return given, leads, err
}

func (*killed) ReleaseFeed(context.Context, string) error { return nil }

var errRolledBack = errors.New("rolled back")

// write appends n events to a project, in transactions of which some roll back.
func (f *feed) write(p *previewd.Preview, n int) {
	for n > 0 {
		group := 1 + rand.IntN(min(n, 3))
		events := make([]previewd.Event, group)
		for i := range events {
			events[i] = previewd.Event{Type: previewd.EventBuildStep, BuildID: p.BuildID, Data: map[string]any{"n": n}}
		}
		back := rand.IntN(4) == 0
		err := f.db.Tx(context.Background(), "write", func(tx *store.DB) error {
			if err := tx.AppendEvents(context.Background(), p.ProjectID, events...); err != nil || !back {
				return err
			}
			return errRolledBack
		})
		if back != errors.Is(err, errRolledBack) || !back && err != nil {
			f.t.Error(err)
			return
		}
		if !back {
			n -= group
			f.written.Add(int64(group))
		}
		f.hub.Notify(worker.EventTopic)
	}
}

// read pages through the feed until written is closed and all have places.
func (f *feed) read(written <-chan struct{}) (seen []previewd.Event) {
	after := ""
	for last := false; ; {
		page, err := f.ListEvents(f.t.Context(), previewd.EventFilter{After: after, Limit: 1 + rand.IntN(50)})
		require.NoError(f.t, err)
		require.False(f.t, page.Reset)
		seen = append(seen, page.Events...)
		after = page.Next
		if len(page.Events) > 0 {
			continue
		}
		if last {
			return seen
		}
		select {
		case <-written:
			last = true
		default:
			_, err = f.ListEvents(f.t.Context(), previewd.EventFilter{After: after, Wait: 10 * time.Millisecond})
			require.NoError(f.t, err)
		}
	}
}

// check compares what a reader saw with what is committed.
func (f *feed) check(seen []previewd.Event) {
	f.t.Helper()
	got := map[string][]int64{}
	for _, e := range seen {
		got[e.ProjectID] = append(got[e.ProjectID], e.Seq)
	}
	total := 0
	for _, p := range f.projects {
		committed, err := f.db.ListProjectEvents(f.t.Context(), p.ProjectID, 0, *feedEvents*2)
		require.NoError(f.t, err)
		want := make([]int64, len(committed))
		for i := range want {
			want[i] = int64(i + 1)
		}
		require.Equal(f.t, want, got[p.ProjectID], "each committed event once, in the project's order")
		total += len(want)
	}
	require.Len(f.t, seen, total)
	for i, e := range seen {
		require.Equal(f.t, previewd.Cursor{Generation: 1, Position: int64(i + 1)}.String(), e.Cursor, "no gap")
	}
}

// Whoever leads, dies or is replaced: a reader that pages by its cursor while
// others write gets every committed event.
func TestFeedIsWhole(t *testing.T) {
	t.Parallel()
	for name, keep := range map[string]func(f *feed, written <-chan struct{}){
		"LeadersAreKilled": (*feed).killLeaders,
		"TwoLead":          (*feed).twoLead,
	} {
		t.Run(name, func(t *testing.T) {
			testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
				f := newFeed(t, db)
				written := make(chan struct{})
				placed := make(chan struct{})
				var relays, all sync.WaitGroup
				relays.Go(func() { keep(f, placed) })
				for _, p := range f.projects {
					all.Go(func() { f.write(p, *feedEvents/writers) })
				}
				go func() {
					defer close(written)
					all.Wait()
					f.waitForPlaces()
				}()
				seen := f.read(written)
				close(placed)
				relays.Wait()
				f.check(seen)
			})
		})
	}
}

func (f *feed) waitForPlaces() {
	testkit.Eventually(f.t, "places for all events", func() bool {
		head, err := f.db.FindFeed(context.Background())
		return err == nil && head.Position >= f.written.Load()
	})
}

// killLeaders runs one relay after another, each killed in the midst of a batch.
func (f *feed) killLeaders(stop <-chan struct{}) {
	for i := 0; ; i++ {
		dying := &killed{DB: f.db, batches: rand.IntN(3), struck: make(chan struct{})}
		kill := f.relay(event.Relay{Feed: dying, Holder: fmt.Sprint("relay-", i), Lease: 10 * time.Millisecond, Pause: time.Millisecond})
		select {
		case <-stop:
			kill()
			return
		case <-dying.struck:
			kill()
		}
	}
}

// twoLead forces two leaders by leases that are over as they begin.
func (f *feed) twoLead(stop <-chan struct{}) {
	for _, name := range []string{"one", "two"} {
		defer f.relay(event.Relay{Holder: name, Lease: time.Nanosecond, Pause: time.Millisecond})()
	}
	<-stop
}

// A transaction that commits after a later one has been read is not lost.
func TestFeedWaitsForLateCommits(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		if db.Engine() == "sqlite" {
			t.Skip("transactions that write come one after another")
		}
		f := newFeed(t, db)
		defer f.relay(event.Relay{Holder: "relay"})()
		inserted, commit, committed := make(chan struct{}), make(chan struct{}), make(chan error)
		go func() {
			committed <- db.Tx(t.Context(), "late", func(tx *store.DB) error {
				err := tx.AppendEvents(t.Context(), f.projects[0].ProjectID, previewd.Event{Type: previewd.EventBuildStep})
				close(inserted)
				for {
					select {
					case <-commit:
						return err
					case <-time.After(time.Second): // PostgreSQL ends a transaction that does nothing for five
						_, failed := tx.FindFeed(t.Context())
						err = errors.Join(err, failed)
					}
				}
			})
		}()
		<-inserted
		f.write(f.projects[1], 1)
		var seen []previewd.Event
		testkit.Eventually(t, "the event that committed first", func() bool {
			page, err := f.ListEvents(t.Context(), previewd.EventFilter{Limit: 500})
			require.NoError(t, err)
			seen = page.Events
			return len(seen) == 2*writers+1
		})
		close(commit)
		require.NoError(t, <-committed)
		f.hub.Notify(worker.EventTopic)
		page, err := f.ListEvents(t.Context(), previewd.EventFilter{After: seen[len(seen)-1].Cursor, Wait: time.Minute})
		require.NoError(t, err)
		f.check(append(seen, page.Events...))
	})
}

// An idle server writes nothing, and a hint is enough to wake the relay.
func TestRelayRestsAndWakes(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := newFeed(t, db)
		given, _, err := db.AssignFeed(t.Context(), "relay", 0, 100)
		require.NoError(t, err)
		require.Equal(t, 2*writers, given)
		counted := &counting{DB: db}
		stop := f.relay(event.Relay{Feed: counted, Holder: "relay", Lease: time.Hour})
		testkit.Eventually(t, "some rounds", func() bool { return counted.rounds() > 3 })
		require.Zero(t, counted.total(), "nothing to do")
		f.write(f.projects[0], 1)
		page, err := f.ListEvents(t.Context(), previewd.EventFilter{After: fmt.Sprintf("1-%d", 2*writers), Wait: time.Minute})
		require.NoError(t, err)
		require.Len(t, page.Events, 1)
		_, leads, err := db.AssignFeed(t.Context(), "other", time.Hour, 1)
		require.NoError(t, err)
		require.True(t, leads, "there is nothing to lead in")
		f.write(f.projects[0], 1)
		stop()
		_, leads, err = db.AssignFeed(t.Context(), "other", time.Hour, 10)
		require.NoError(t, err)
		require.True(t, leads, "who stops lets go of the lead")
		f.write(f.projects[0], 1)
		given, leads, err = db.AssignFeed(t.Context(), "third", time.Hour, 10)
		require.NoError(t, err)
		require.False(t, leads, "a lease keeps others out")
		require.Zero(t, given)
	})
}

type counting struct {
	*store.DB
	mu           sync.Mutex
	calls, given int
}

func (c *counting) AssignFeed(ctx context.Context, holder string, lease time.Duration, limit int) (int, bool, error) {
	given, leads, err := c.DB.AssignFeed(ctx, holder, lease, limit)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls, c.given = c.calls+1, c.given+given
	return given, leads, err
}

// ReleaseFeed takes its time: a lease of an hour does not run out by itself.
func (c *counting) ReleaseFeed(ctx context.Context, holder string) error {
	return c.DB.ReleaseFeed(context.WithoutCancel(ctx), holder)
}

func (c *counting) rounds() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

func (c *counting) total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.given
}

package store_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

var endpointNames struct {
	sync.Mutex
	n int
}

func insertEndpoint(t require.TestingT, db *store.DB, owner string, types ...string) *store.WebhookEndpoint {
	endpointNames.Lock()
	endpointNames.n++
	e := &store.WebhookEndpoint{Secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
	e.ID, e.OwnerID, e.URL, e.Types = fmt.Sprintf("we_%d", endpointNames.n), owner, "https://example.com/", types
	endpointNames.Unlock()
	require.NoError(t, db.Tx(context.Background(), "test", func(tx *store.DB) error {
		return tx.InsertWebhookEndpoint(context.Background(), e)
	}))
	return e
}

func enqueue(t require.TestingT, db *store.DB, e store.WebhookEvent) (n int) {
	require.NoError(t, db.Tx(context.Background(), "test", func(tx *store.DB) (err error) {
		n, err = tx.EnqueueWebhooks(context.Background(), e)
		return err
	}))
	return n
}

// Whatever endpoints there are, an event is told to those that want it and once.
func TestEnqueueWebhooksOnce(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		filters := append(previewd.WebhookTypes(), "build.*", "project.*", "version.*")
		round := 0
		rapid.Check(t, func(t *rapid.T) {
			round++
			owner := fmt.Sprintf("owner-%d", round)
			types := rapid.SliceOfN(rapid.SliceOfNDistinct(rapid.SampledFrom(filters), 0, 4, rapid.ID[string]), 0, 5).Draw(t, "endpoints")
			for _, some := range types {
				insertEndpoint(t, db, owner, some...)
			}
			for i, kind := range rapid.SliceOfN(rapid.SampledFrom(previewd.WebhookTypes()), 1, 3).Draw(t, "events") {
				e := store.WebhookEvent{ID: fmt.Sprintf("e%d-%d", round, i), OwnerID: owner, Type: kind, Data: map[string]any{"n": i}}
				want := 0
				group, _, _ := strings.Cut(kind, ".")
				for _, some := range types {
					if len(some) == 0 || slices.Contains(some, kind) || slices.Contains(some, group+".*") {
						want++
					}
				}
				require.Equal(t, want, enqueue(t, db, e))
				require.Zero(t, enqueue(t, db, e), "told twice")
			}
		})
	})
}

func TestEnqueueWebhooksToOwnerAndOperator(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		ann, operator := insertEndpoint(t, db, "ann"), insertEndpoint(t, db, store.Operator)
		insertEndpoint(t, db, "bob")
		require.Equal(t, 2, enqueue(t, db, store.WebhookEvent{ID: "1", OwnerID: "ann", Type: "build.failed"}))
		require.Equal(t, 1, enqueue(t, db, store.WebhookEvent{ID: "2", Type: "build.failed"}))
		long := store.WebhookEvent{ID: "3", OwnerID: "ann", Type: "build.failed", Data: map[string]any{
			"projectId": "p", "excerpt": strings.Repeat("x", 30_000),
		}}
		require.Equal(t, 2, enqueue(t, db, long))
		d, err := db.FindWebhookDelivery(t.Context(), ann.ID, ann.ID+".3")
		require.NoError(t, err)
		require.Regexp(t, `^\{"type":"build.failed","timestamp":"20[^"]+Z","data":\{"projectId":"p","truncated":true\}\}$`, string(d.Payload))
		require.Zero(t, enqueue(t, db, store.WebhookEvent{ID: "4", OwnerID: "ann", Type: "build.failed", At: time.Now().Add(-8 * 24 * time.Hour)}),
			"what is old is not told again")
		require.Zero(t, enqueue(t, db, store.WebhookEvent{ID: "5", OwnerID: "ann", Type: "build.failed", At: time.Now().Add(-time.Hour)}),
			"nor what happened before the endpoint was made")
		for _, bad := range []string{"", "a.b", "a b", strings.Repeat("a", 65)} {
			require.Error(t, db.Tx(t.Context(), "test", func(tx *store.DB) error {
				_, err := tx.EnqueueWebhooks(t.Context(), store.WebhookEvent{ID: bad, Type: "build.failed"})
				return err
			}))
		}
		_, err = db.EnqueueWebhooks(t.Context(), store.WebhookEvent{ID: "6", Type: "build.failed"})
		require.ErrorContains(t, err, "outside a transaction")
		page, err := db.ListWebhookDeliveries(t.Context(), operator.ID, store.WebhookListing{Limit: 10})
		require.NoError(t, err)
		require.Len(t, page, 3)
	})
}

func TestOwnersHaveTwentyEndpointsAtMost(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		var mu sync.Mutex
		var made, refused int
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				e := &store.WebhookEndpoint{Secret: "whsec_x"}
				e.ID, e.OwnerID, e.URL = fmt.Sprintf("many_%d", i), "ann", "https://example.com/"
				err := db.Tx(context.Background(), "test", func(tx *store.DB) error {
					return tx.InsertWebhookEndpoint(context.Background(), e)
				})
				mu.Lock()
				defer mu.Unlock()
				switch previewd.ErrorCode(err) {
				case "":
					made++
				case previewd.CodeConflict:
					refused++
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 20, made)
		require.Equal(t, 10, refused)
		insertEndpoint(t, db, "bob")
	})
}

func claimAll(t *testing.T, db *store.DB, c store.WebhookClaims) (claims []store.WebhookClaim) {
	t.Helper()
	require.NoError(t, db.Tx(t.Context(), "test", func(tx *store.DB) (err error) {
		claims, err = tx.ClaimWebhooks(t.Context(), c)
		return err
	}))
	return claims
}

// However much waits for one endpoint, it takes no more than its share, and
// claims that are made at once share nothing.
func TestClaimWebhooks(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		busy, calm := insertEndpoint(t, db, "busy"), insertEndpoint(t, db, "calm")
		for i := range 50 {
			enqueue(t, db, store.WebhookEvent{ID: fmt.Sprintf("b%d", i), OwnerID: "busy", Type: "build.queued"})
		}
		enqueue(t, db, store.WebhookEvent{ID: "c", OwnerID: "calm", Type: "build.queued"})
		ask := store.WebhookClaims{Holder: "h", Lease: time.Hour, Limit: 10, PerEndpoint: 2}
		claims := claimAll(t, db, ask)
		require.Len(t, claims, 3)
		require.Equal(t, busy.ID, claims[0].Endpoint.ID, "it waits longest")
		require.Equal(t, calm.ID, claims[2].Endpoint.ID)
		require.Empty(t, claimAll(t, db, ask), "both are held by others up to their share")

		ask.PerEndpoint, ask.Limit = 4, 1
		var mu sync.Mutex
		seen := map[string]bool{}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				err := db.Tx(context.Background(), "test", func(tx *store.DB) error {
					more, err := tx.ClaimWebhooks(context.Background(), ask)
					mu.Lock()
					defer mu.Unlock()
					for _, c := range more {
						seen[c.ID] = true
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.LessOrEqual(t, len(seen), 2, "two were held, four are allowed")
	})
}

// What an endpoint takes at a time counts what is held already.
func TestClaimsCountWhatIsHeld(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		insertEndpoint(t, db, "ann")
		for i := range 5 {
			enqueue(t, db, store.WebhookEvent{ID: strconv.Itoa(i), OwnerID: "ann", Type: "build.queued"})
		}
		ask := store.WebhookClaims{Holder: "h", Lease: time.Hour, Limit: 1, PerEndpoint: 2}
		require.Len(t, claimAll(t, db, ask), 1)
		ask.Limit = 10
		require.Len(t, claimAll(t, db, ask), 1)
		require.Empty(t, claimAll(t, db, ask))

		insertEndpoint(t, db, "bob")
		enqueue(t, db, store.WebhookEvent{ID: "b", OwnerID: "bob", Type: "build.queued"})
		ask.Limit = 1
		require.Len(t, claimAll(t, db, ask), 1, "what takes no more stands in nobody's way")
	})
}

// Who loses a claim, even to itself, writes nothing any more.
func TestLostClaimWritesNothing(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		insertEndpoint(t, db, "ann")
		enqueue(t, db, store.WebhookEvent{ID: "1", OwnerID: "ann", Type: "build.queued"})
		ask := store.WebhookClaims{Holder: "h", Lease: -time.Second, Limit: 1, PerEndpoint: 1}
		lost := claimAll(t, db, ask)[0] // over at once
		other := ask
		other.Holder = "other"
		lostToo := claimAll(t, db, other)[0]
		ask.Lease = time.Hour
		held := claimAll(t, db, ask)[0]
		require.Equal(t, 3, held.Attempt)
		end := func(c store.WebhookClaim) error {
			return db.Tx(t.Context(), "test", func(tx *store.DB) error {
				return tx.EndWebhookAttempt(t.Context(), &c, previewd.WebhookAttempt{At: tx.Now()}, store.WebhookOutcome{Status: previewd.WebhookFailed})
			})
		}
		for _, c := range []store.WebhookClaim{lost, lostToo} {
			require.Equal(t, previewd.CodeLeaseLost, previewd.ErrorCode(end(c)))
			require.NoError(t, db.Tx(t.Context(), "test", func(tx *store.DB) error { return tx.ReleaseWebhook(t.Context(), &c) }))
		}
		require.Empty(t, claimAll(t, db, ask), "it is held")
		require.NoError(t, end(held))
	})
}

// Who claims passes over an endpoint whose deliveries somebody else is claiming.
func TestClaimsDoNotWait(t *testing.T) {
	t.Parallel()
	db := testkit.Open(t, store.Config{URL: testkit.Postgres(t).Database(t)})
	first, second := insertEndpoint(t, db, "ann"), insertEndpoint(t, db, "bob")
	for i := range 4 {
		enqueue(t, db, store.WebhookEvent{ID: fmt.Sprint("a", i), OwnerID: "ann", Type: "build.queued"})
		enqueue(t, db, store.WebhookEvent{ID: fmt.Sprint("b", i), OwnerID: "bob", Type: "build.queued"})
	}
	ask := store.WebhookClaims{Holder: "h", Lease: time.Hour, Limit: 1, PerEndpoint: 2}
	require.NoError(t, db.Tx(t.Context(), "test", func(tx *store.DB) error {
		claims, err := tx.ClaimWebhooks(t.Context(), ask)
		require.NoError(t, err)
		require.Len(t, claims, 1)
		require.Equal(t, first.ID, claims[0].Endpoint.ID)
		more := ask
		more.Limit = 10
		others := claimAll(t, db, more) // while the first is open
		require.Len(t, others, 2)
		require.Equal(t, second.ID, others[0].Endpoint.ID)
		return nil
	}))
}

func TestEndedDeliveriesStaySo(t *testing.T) {
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		db := testkit.Open(t, cfg)
		e := insertEndpoint(t, db, "ann")
		enqueue(t, db, store.WebhookEvent{ID: "1", OwnerID: "ann", Type: "build.queued"})
		claim := claimAll(t, db, store.WebhookClaims{Holder: "h", Lease: time.Hour, Limit: 1, PerEndpoint: 1})[0]
		end := func(status previewd.WebhookDeliveryStatus) error {
			return db.Tx(t.Context(), "test", func(tx *store.DB) error {
				return tx.EndWebhookAttempt(t.Context(), &claim, previewd.WebhookAttempt{At: tx.Now()}, store.WebhookOutcome{Status: status})
			})
		}
		require.NoError(t, end(previewd.WebhookDelivered))
		require.Equal(t, previewd.CodeLeaseLost, previewd.ErrorCode(end(previewd.WebhookFailed)))
		revive := "UPDATE gateway_webhook_deliveries SET state = 'pending', ended_at = NULL, next_attempt_at = 0"
		err := db.Tx(t.Context(), "test", func(tx *store.DB) error { return store.Exec(t.Context(), tx, revive) })
		require.Equal(t, previewd.CodeConflict, previewd.ErrorCode(err))

		// Deleting takes all along; whoever enqueues meanwhile is not disturbed.
		require.NoError(t, db.Tx(t.Context(), "test", func(tx *store.DB) error {
			return tx.DeleteWebhookEndpoint(t.Context(), e.ID)
		}))
		for _, table := range []string{"endpoints", "deliveries", "attempts"} {
			require.Equal(t, []string{"0"}, testkit.OpenShell(t, cfg).Texts("SELECT COUNT(*) FROM gateway_webhook_"+table))
		}
	})
}

func TestEnqueueRacesDeletion(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		var wg sync.WaitGroup
		for round := range 20 {
			e := insertEndpoint(t, db, "ann")
			wg.Go(func() {
				err := db.Tx(context.Background(), "test", func(tx *store.DB) error { return tx.DeleteWebhookEndpoint(context.Background(), e.ID) })
				if err != nil {
					t.Error(err)
				}
			})
			for i := range 4 {
				wg.Go(func() {
					err := db.Tx(context.Background(), "test", func(tx *store.DB) error {
						_, err := tx.EnqueueWebhooks(context.Background(), store.WebhookEvent{ID: fmt.Sprintf("%d-%d", round, i), OwnerID: "ann", Type: "build.queued"})
						return err
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
	})
}

func TestPruneWebhooks(t *testing.T) {
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		db := testkit.Open(t, cfg)
		insertEndpoint(t, db, "ann")
		for i := range 8 {
			enqueue(t, db, store.WebhookEvent{ID: strconv.Itoa(i), OwnerID: "ann", Type: "build.queued"})
		}
		shell := testkit.OpenShell(t, cfg)
		ended := func(id, state string, days int) {
			at := time.Now().Add(-time.Duration(days) * 24 * time.Hour).UnixMicro()
			shell.Do(fmt.Sprintf("UPDATE gateway_webhook_deliveries SET state = '%s', ended_at = %d, next_attempt_at = NULL WHERE webhook_id = '%s'", state, at, id))
		}
		ended("0", "delivered", 6)
		ended("1", "delivered", 8)
		ended("2", "failed", 8)
		ended("3", "failed", 31)
		ended("4", "dropped", 29)
		ended("5", "dropped", 31)
		var touched int64
		prune := func() int64 {
			require.NoError(t, db.Tx(t.Context(), "test", func(tx *store.DB) (err error) {
				touched, err = tx.PruneWebhooks(t.Context(), 10)
				return err
			}))
			return touched
		}
		require.EqualValues(t, 3, prune())
		require.Equal(t, []string{"0", "2", "4", "6", "7"}, shell.Texts("SELECT webhook_id FROM gateway_webhook_deliveries ORDER BY webhook_id"))
		require.Zero(t, prune())

		shell.Do("UPDATE gateway_webhook_endpoints SET state = 'disabled', disabled_reason = 'x', previous_secret = 'y', previous_until = 1")
		require.EqualValues(t, 3, prune(), "two that nobody would send, and an old secret")
		require.Zero(t, prune())
	})
}

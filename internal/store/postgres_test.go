package store_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// newCreation is a create of a project for the user, with a key or without.
func newCreation(user, key string) *store.Creation {
	b := newBuild(previewd.NewID())
	b.OwnerID = user
	createKey := key
	if key == "" {
		createKey = "none:" + b.ProjectID
	}
	return &store.Creation{
		Key:     store.Key{Principal: "p", Key: key, Operation: "op", Fingerprint: "f " + user, Status: 201, Body: []byte("{}"), ResourceID: b.ProjectID},
		Window:  10 * time.Second,
		Project: store.NewProject{ID: b.ProjectID, OwnerID: user, CreatePrincipal: "p", CreateKey: createKey, CreatedByService: "s", IDSource: previewd.IDSourceServer, Events: 2},
		Build:   b,
		Created: previewd.Event{Type: previewd.EventProjectCreated, BuildID: b.ID},
		Queued:  previewd.Event{Type: previewd.EventBuildQueued, BuildID: b.ID},
		Audit:   store.AuditEntry{Actor: "service/s", Action: "project.create", Subject: "project/" + b.ProjectID},
		Fair:    true, Wait: 2 * time.Second,
	}
}

// Both engines say the same of every kind of create.
func TestCreatePreview(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		create := func(c *store.Creation) *store.Created {
			created, err := db.CreatePreview(t.Context(), c)
			require.NoError(t, err)
			return created
		}
		first := newCreation("a", "key")
		first.Pace = store.Pace{Base: time.Minute, Step: time.Second}
		made := create(first)
		require.Equal(t, store.OutcomeCreated, made.Outcome)
		require.Zero(t, made.Place.Ahead)
		require.WithinDuration(t, time.Now().Add(time.Minute), made.Place.ETA, 10*time.Second)
		again := create(newCreation("a", "key"))
		require.Equal(t, store.OutcomeKnown, again.Outcome)
		require.Equal(t, first.Project.ID, again.Stored.ResourceID)
		require.Equal(t, []byte("{}"), again.Stored.Body)
		require.Equal(t, made.Place.ETA, again.Stored.ETA)

		click := newCreation("b", "")
		require.Equal(t, 1, create(click).Place.Ahead)
		window := create(newCreation("b", ""))
		require.Equal(t, store.OutcomeWindow, window.Outcome)
		require.Equal(t, click.Project.ID, window.Stored.ResourceID)

		full := newCreation("a", "another")
		full.Limits = store.QueueLimits{Owner: 1}
		require.Equal(t, store.OutcomeOwnerFull, create(full).Outcome)
		full.Limits = store.QueueLimits{Total: 2}
		require.Equal(t, store.OutcomeFull, create(full).Outcome)
		full.Limits = store.QueueLimits{Total: 3}
		require.Equal(t, store.OutcomeCreated, create(full).Outcome, "a refusal has stored nothing")
	})
}

// An equal request of another process that does not end is told of, in time.
func TestEqualRequestElsewhereIsInFlight(t *testing.T) {
	t.Parallel()
	server := testkit.Postgres(t)
	url := server.Database(t)
	db := testkit.Open(t, store.Config{URL: url})
	c := newCreation("a", "key")
	c.Wait = 200 * time.Millisecond
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	other, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = other.Exec(t.Context(), `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, "key p key")
	require.NoError(t, err)
	_, err = db.CreatePreview(t.Context(), c)
	require.Equal(t, previewd.CodeKeyInFlight, previewd.ErrorCode(err))
	require.NoError(t, other.Rollback(t.Context()))
	_, err = db.CreatePreview(t.Context(), c)
	require.NoError(t, err)
}

// Creates that wait share a transaction, and each gets its own answer.
func TestCreatesShareCommits(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				user := fmt.Sprint("user-", i/2)
				created, err := db.CreatePreview(context.Background(), newCreation(user, "key-"+user))
				if err != nil {
					t.Error(err)
				} else if created.Outcome != store.OutcomeCreated && created.Outcome != store.OutcomeKnown {
					t.Error(created.Outcome)
				}
			})
		}
		wg.Wait()
		projects, err := db.ListProjects(t.Context(), previewd.ProjectFilter{}, "g", 1000)
		require.NoError(t, err)
		require.Len(t, projects, 100)
	})
}

// A pooler may keep no prepared statements, or know only the simple protocol.
func TestStatementModes(t *testing.T) {
	t.Parallel()
	server := testkit.Postgres(t)
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			db := testkit.Open(t, store.Config{URL: server.Database(t) + "?default_query_exec_mode=" + mode})
			created, err := db.CreatePreview(t.Context(), newCreation("a", "key"))
			require.NoError(t, err)
			require.Equal(t, store.OutcomeCreated, created.Outcome)
			created, err = db.CreatePreview(t.Context(), newCreation("a", "key"))
			require.NoError(t, err)
			require.Equal(t, store.OutcomeKnown, created.Outcome)
			require.NoError(t, db.Tx(t.Context(), "test", func(tx *store.DB) error {
				b, err := tx.FindRunnableBuild(t.Context())
				require.NoError(t, err)
				b, err = tx.LockBuild(t.Context(), b.ID)
				require.NoError(t, err)
				return tx.AppendEvents(t.Context(), b.ProjectID, previewd.Event{Type: previewd.EventBuildStep, BuildID: b.ID})
			}))
		})
	}
}

func TestOldServersAndOtherURLsAreRefused(t *testing.T) {
	t.Parallel()
	_, err := store.Open(t.Context(), store.Config{URL: "postgres://nobody@127.0.0.1:1/none?connect_timeout=1"})
	require.ErrorContains(t, err, "cannot reach the database")
	_, err = store.Open(t.Context(), store.Config{URL: "postgres://%zz"})
	require.ErrorContains(t, err, "--database-url")
	require.NotContains(t, err.Error(), "%zz", "a URL holds a password")
	server := testkit.Postgres(t)
	_, err = store.Open(t.Context(), store.Config{URL: strings.Replace(server.EmptyDatabase(t), "postgres@", "nobody@", 1)})
	require.Error(t, err)
}

// Two processes can have one SQLite file: each waits for the other's turn.
func TestTwoWritersOnOneFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "two.db")
	first := testkit.Open(t, store.Config{Path: path})
	second := testkit.Open(t, store.Config{Path: path})
	b := insertProject(t, first)
	var wg sync.WaitGroup
	for _, db := range []*store.DB{first, second} {
		wg.Go(func() {
			for range 200 {
				err := db.Tx(context.Background(), "test", func(tx *store.DB) error {
					if _, err := tx.FindBuild(context.Background(), b.ID); err != nil { // read first, then write
						return err
					}
					return tx.AppendEvents(context.Background(), b.ProjectID, previewd.Event{Type: previewd.EventBuildStep, BuildID: b.ID})
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// The newest build's version is shown, in whatever order builds complete.
func TestPointerNeverGoesBack(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		b := insertProject(t, db)
		require.ErrorIs(t, db.Tx(t.Context(), "test", func(tx *store.DB) error {
			moved, err := tx.AdvanceVersion(t.Context(), b.ProjectID, previewd.NewID(), 1)
			require.NoError(t, err)
			require.True(t, moved)
			moved, err = tx.AdvanceVersion(t.Context(), b.ProjectID, previewd.NewID(), 1)
			require.NoError(t, err)
			require.False(t, moved, "the same build does not move it twice, nor an older one")
			return context.Canceled // there are no such versions
		}), context.Canceled)
	})
}

package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// insertProject stores a project with its first build, as a create does.
func insertProject(t *testing.T, db *store.DB) *store.Build {
	t.Helper()
	b := newBuild(previewd.NewID())
	require.NoError(t, db.Tx(t.Context(), "test", func(tx *store.DB) error {
		b.QueuedAt, b.State.RunnableAt = tx.Now(), tx.Now()
		err := tx.InsertProject(t.Context(), store.NewProject{
			ID: b.ProjectID, OwnerID: "user", CreatePrincipal: "svc", CreateKey: "none:key",
			CreatedByService: "svc", IDSource: previewd.IDSourceServer, Events: 1,
		})
		return errors.Join(err, tx.InsertBuild(t.Context(), b),
			tx.InsertFirstEvents(t.Context(), b.ProjectID, previewd.Event{Type: previewd.EventBuildQueued, BuildID: b.ID}),
			tx.AppendAudit(t.Context(), store.AuditEntry{Actor: "test", Action: "project.create", Subject: "project/" + b.ProjectID}))
	}))
	return b
}

// appendTransition stores what comes with every change of a build's state.
func appendTransition(ctx context.Context, tx *store.DB, b *store.Build, what previewd.EventType) error {
	return errors.Join(tx.AppendEvents(ctx, b.ProjectID, previewd.Event{Type: what, BuildID: b.ID}),
		tx.AppendAudit(ctx, store.AuditEntry{Actor: "test", Action: string(what), Subject: "build/" + b.ID}))
}

func newBuild(projectID string) *store.Build {
	return &store.Build{
		Build: previewd.Build{
			ID: previewd.NewID(), ProjectID: projectID, Seq: 1, Status: previewd.BuildQueued,
			ReferenceID: previewd.NewReferenceID(), Source: previewd.Source{Digest: digest},
		},
		State:    previewd.BuildState{Status: previewd.BuildQueued, MaxAttempts: 3},
		Metadata: "{}", CreatedBy: "svc", OwnerID: "user",
	}
}

func TestTxIsAllOrNothing(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		failure := errors.New("no")
		id := previewd.NewID()
		err := db.Tx(t.Context(), "test", func(tx *store.DB) error {
			require.NoError(t, tx.InsertProject(t.Context(), store.NewProject{
				ID: id, OwnerID: "u", CreatePrincipal: "p", CreateKey: "k", CreatedByService: "s", IDSource: "server", Events: 1,
			}))
			require.Error(t, tx.Tx(t.Context(), "test", func(*store.DB) error { return nil }), "nesting is an error")
			return failure
		})
		require.ErrorIs(t, err, failure)
		_, err = db.FindProject(t.Context(), id)
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
	})
}

// A caller that gives up at any moment leaves the one writer as it was.
func TestCanceledTxBlocksNobody(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		for i := range 2000 {
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				for range i % 200 {
					_ = ctx.Err()
				}
				cancel()
			}()
			_ = db.Tx(ctx, "test", func(tx *store.DB) error { return tx.AppendAudit(ctx, store.AuditEntry{}) })
			cancel()
		}
		require.NoError(t, db.Ping(context.Background()))
	})
}

func TestCloseLeavesOneFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "one.db")})
	require.NoError(t, err)
	insertProject(t, db)
	require.NoError(t, db.Close())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "the log is written back: %v", entries)
}

func TestReadersDoNotWrite(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		require.Error(t, db.AppendAudit(t.Context(), store.AuditEntry{}), "outside a transaction nothing is written")
	})
}

// The constraints hold whatever the code above them does.
func TestConstraintsRefuse(t *testing.T) {
	t.Parallel()
	refused := map[string]func(ctx context.Context, tx *store.DB, b *store.Build) error{
		"SecondProjectOfAKey": func(ctx context.Context, tx *store.DB, _ *store.Build) error {
			return tx.InsertProject(ctx, store.NewProject{
				ID: previewd.NewID(), OwnerID: "u", CreatePrincipal: "svc", CreateKey: "none:key", CreatedByService: "s", IDSource: "server", Events: 1,
			})
		},
		"ProjectWithoutBuild": func(ctx context.Context, tx *store.DB, _ *store.Build) error {
			orphan := newBuild(previewd.NewID())
			orphan.QueuedAt, orphan.State.RunnableAt = tx.Now(), tx.Now()
			return tx.InsertBuild(ctx, orphan) // its project does not exist: refused at commit
		},
		"SecondQueuedBuild": func(ctx context.Context, tx *store.DB, b *store.Build) error {
			second := newBuild(b.ProjectID)
			second.Seq, second.QueuedAt, second.State.RunnableAt = 2, tx.Now(), tx.Now()
			return tx.InsertBuild(ctx, second)
		},
		"VersionOfAQueuedBuild": func(ctx context.Context, tx *store.DB, b *store.Build) error {
			b.State.Epoch = 1
			_, err := tx.InsertVersion(ctx, store.NewVersion{ID: previewd.NewID(), Build: b, ManifestDigest: digest})
			return err
		},
		"BuildingWithoutALease": func(ctx context.Context, tx *store.DB, b *store.Build) error {
			read := b.State
			b.State.Status, b.State.Epoch, b.RunnerID = previewd.BuildBuilding, 1, "r"
			return tx.UpdateBuild(ctx, read, b)
		},
		"FailedWithoutAFailure": func(ctx context.Context, tx *store.DB, b *store.Build) error {
			read, now := b.State, tx.Now()
			b.State.Status, b.FinishedAt = previewd.BuildFailed, &now
			return tx.UpdateBuild(ctx, read, b)
		},
		"WriteFromALostEpoch": func(ctx context.Context, tx *store.DB, b *store.Build) error {
			read := b.State
			read.Epoch = 7
			return tx.UpdateBuild(ctx, read, b)
		},
	}
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		b := insertProject(t, db)
		for name, attempt := range refused {
			copied := *b
			err := db.Tx(t.Context(), "test", func(tx *store.DB) error { return attempt(t.Context(), tx, &copied) })
			require.Equal(t, previewd.CodeConflict, previewd.ErrorCode(err), "%s: %v", name, err)
		}
	})
}

func TestTerminalStatesAbsorb(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		b := insertProject(t, db)
		set := func(to previewd.BuildStatus) error {
			return db.Tx(t.Context(), "test", func(tx *store.DB) error {
				fresh, err := tx.FindBuild(t.Context(), b.ID)
				require.NoError(t, err)
				read, now := fresh.State, tx.Now()
				fresh.State.Status, fresh.State.CancelReason, fresh.FinishedAt = to, previewd.CancelUser, &now
				if err := tx.UpdateBuild(t.Context(), read, fresh); err != nil {
					return err
				}
				return appendTransition(t.Context(), tx, b, previewd.EventType("build."+to))
			})
		}
		require.NoError(t, set(previewd.BuildCanceled))
		for _, to := range []previewd.BuildStatus{previewd.BuildQueued, previewd.BuildFailed, previewd.BuildCompleted} {
			require.Equal(t, previewd.CodeConflict, previewd.ErrorCode(set(to)), to)
		}
	})
}

func TestKeyIsClaimedOnce(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		b := insertProject(t, db)
		key := store.Key{Principal: "p", Key: "k", Operation: "op", Fingerprint: "f", ResourceID: b.ProjectID, Status: 201, Body: []byte("{}")}
		var mu sync.Mutex
		claimed, replayed := 0, 0
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				err := db.Tx(context.Background(), "test", func(tx *store.DB) error {
					stored, err := tx.InsertKey(context.Background(), key)
					if err != nil {
						return err
					}
					mu.Lock()
					defer mu.Unlock()
					if stored != nil {
						replayed++
						return nil
					}
					claimed++
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, claimed)
		require.Equal(t, 49, replayed)
	})
}

func TestEventsHaveNoGap(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		b := insertProject(t, db)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for i := range 25 {
					// Some transactions roll back: their numbers must not be missing.
					err := db.Tx(context.Background(), "test", func(tx *store.DB) error {
						step := previewd.Event{Type: previewd.EventBuildStep, BuildID: b.ID}
						if err := tx.AppendEvents(context.Background(), b.ProjectID, step, step); err != nil {
							return err
						}
						if i%5 == 0 {
							return context.Canceled
						}
						return nil
					})
					if err != nil && i%5 != 0 {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		events, err := db.ListProjectEvents(t.Context(), b.ProjectID, 0, 10_000)
		require.NoError(t, err)
		require.Len(t, events, 1+16*20*2)
		for i, e := range events {
			require.Equal(t, int64(i+1), e.Seq)
		}
	})
}

func TestLogIsAppendedAtItsEndOnly(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		b := insertProject(t, db)
		require.NoError(t, db.Tx(t.Context(), "test", func(tx *store.DB) error {
			read := b.State
			b.State.Status, b.State.Epoch, b.State.Attempt = previewd.BuildBuilding, 1, 1
			b.State.LeaseUntil, b.RunnerID = tx.Now().Add(time.Minute), "r"
			return errors.Join(tx.UpdateBuild(t.Context(), read, b),
				appendTransition(t.Context(), tx, b, previewd.EventBuildBuilding))
		}))
		write := func(epoch, offset int64, text string) (appended bool) {
			require.NoError(t, db.Tx(t.Context(), "test", func(tx *store.DB) (err error) {
				appended, err = tx.AppendLog(t.Context(), previewd.Lease{BuildID: b.ID, Epoch: epoch}, offset, []byte(text))
				return err
			}))
			return appended
		}
		require.True(t, write(1, 0, "hello "))
		require.False(t, write(1, 0, "again"), "an offset is written once")
		require.False(t, write(2, 6, "zombie"), "another epoch writes nothing")
		require.True(t, write(1, 6, "world"))
		for offset, want := range map[int64]string{0: "hello world", 3: "lo world", 6: "world", 8: "rld", 11: ""} {
			got, err := db.ReadLog(t.Context(), b.ID, offset, 100)
			require.NoError(t, err)
			require.Equal(t, want, string(got))
		}
	})
}

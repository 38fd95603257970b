package store_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// eachEmpty runs a test on a database of each engine that has no tables yet.
func eachEmpty(t *testing.T, test func(t *testing.T, cfg store.Config)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, store.Config{Path: filepath.Join(t.TempDir(), "empty.db")})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, store.Config{URL: testkit.Postgres(t).EmptyDatabase(t)})
	})
}

func TestOneOfManyMigrates(t *testing.T) {
	t.Parallel()
	eachEmpty(t, func(t *testing.T, cfg store.Config) {
		const migrators = 4
		var found [migrators]store.Schema
		var wg sync.WaitGroup
		for i := range migrators {
			wg.Go(func() {
				var err error
				if found[i], err = store.Migrate(context.Background(), cfg); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		applied := 0
		for _, s := range found {
			if s.Current == 0 {
				applied++
				continue
			}
			require.Equal(t, s.Target, s.Current)
		}
		require.Equal(t, 1, applied)
		versions := testkit.OpenShell(t, cfg).Texts("SELECT version_id FROM goose_db_version GROUP BY version_id HAVING COUNT(*) > 1")
		require.Empty(t, versions, "no migration ran twice")
		testkit.Open(t, cfg)
		if cfg.Path != "" {
			_, err := os.Stat(cfg.Path + ".migrating")
			require.ErrorIs(t, err, os.ErrNotExist, "the lock is gone")
		}
	})
}

func TestManyOpenAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	eachEmpty(t, func(t *testing.T, cfg store.Config) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				db, err := store.Open(context.Background(), cfg)
				if err == nil {
					err = db.Close()
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

func TestSchemaOfWritesNothing(t *testing.T) {
	t.Parallel()
	eachEmpty(t, func(t *testing.T, cfg store.Config) {
		schema, err := store.SchemaOf(t.Context(), cfg)
		if cfg.Path != "" {
			require.ErrorContains(t, err, "there is no database")
			require.NoError(t, os.WriteFile(cfg.Path, nil, 0o600))
			schema, err = store.SchemaOf(t.Context(), cfg)
		}
		require.NoError(t, err)
		require.Zero(t, schema.Current)
		require.Positive(t, schema.Target)
		keep := cfg
		keep.KeepSchema = true
		_, err = store.Open(t.Context(), keep)
		require.ErrorContains(t, err, "no schema yet")
		if cfg.Path == "" {
			require.Equal(t, []string{"0"}, testkit.OpenShell(t, cfg).Texts("SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'"))
		}
		require.Equal(t, schema.Target, migrated(t, cfg))
		schema, err = store.SchemaOf(t.Context(), cfg)
		require.NoError(t, err)
		require.Equal(t, schema.Target, schema.Current)
		if cfg.Path != "" {
			entries, err := os.ReadDir(filepath.Dir(cfg.Path))
			require.NoError(t, err)
			require.Len(t, entries, 1, "%v", entries)
		}
	})
}

func migrated(t *testing.T, cfg store.Config) int64 {
	t.Helper()
	before, err := store.Migrate(t.Context(), cfg)
	require.NoError(t, err)
	require.Zero(t, before.Current)
	return before.Target
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		db, err := store.Open(t.Context(), cfg)
		require.NoError(t, err)
		require.NoError(t, db.Close())
		testkit.OpenShell(t, cfg).Do("sqlite:INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)\npostgres:INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)")
		keep := cfg
		keep.KeepSchema = true
		for _, c := range []store.Config{cfg, keep} {
			_, err = store.Open(t.Context(), c)
			require.ErrorContains(t, err, "run a newer previewd")
		}
		_, err = store.Migrate(t.Context(), cfg)
		require.ErrorContains(t, err, "run a newer previewd")
		schema, err := store.SchemaOf(t.Context(), cfg)
		require.NoError(t, err)
		require.Equal(t, int64(9999), schema.Current)
	})
}

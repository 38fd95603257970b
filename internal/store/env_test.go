package store_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

func variable(name string, secret bool, value string, scopes ...previewd.EnvScope) *store.EnvVar {
	return &store.EnvVar{EnvVar: previewd.EnvVar{Name: name, Secret: secret, Scopes: scopes}, Stored: []byte(value), Size: len(value)}
}

func TestEnvRows(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		ctx, id := t.Context(), insertProject(t, db).ProjectID
		in := func(do func(tx *store.DB) error) { t.Helper(); require.NoError(t, db.Tx(ctx, "test", do)) }
		secrets, err := db.HasSecrets(ctx)
		require.NoError(t, err)
		require.False(t, secrets)
		in(func(tx *store.DB) error { return tx.UpsertEnv(ctx, id, variable("b", false, "plain", "build")) })
		in(func(tx *store.DB) error {
			return tx.UpsertEnv(ctx, id, variable("A_", true, "\x01head\xff", "install", "build"))
		})
		in(func(tx *store.DB) error { return tx.UpsertEnv(ctx, id, variable("A", false, "old", "install")) })
		in(func(tx *store.DB) error { return tx.UpsertEnv(ctx, id, variable("A", true, "\x01other", "build")) })
		list, err := db.ListEnv(ctx, id)
		require.NoError(t, err)
		require.Len(t, list, 3)
		for i, want := range []*store.EnvVar{variable("A", true, "\x01other", "build"), variable("A_", true, "\x01head\xff", "install", "build"), variable("b", false, "plain", "build")} {
			require.False(t, list[i].UpdatedAt.IsZero())
			want.UpdatedAt = list[i].UpdatedAt
			require.Equal(t, want, list[i])
		}
		secrets, err = db.HasSecrets(ctx)
		require.NoError(t, err)
		require.True(t, secrets)

		for head, count := range map[string]int{"\x01head": 1, "\x01": 0, "\x02": 2, "": 2} {
			check, err := db.CheckSecrets(ctx, []byte(head), 1)
			require.NoError(t, err)
			require.Equal(t, count, check.Count, "%q", head)
			require.Len(t, check.Examples, min(count, 1))
		}
		in(func(tx *store.DB) error {
			for _, want := range []bool{true, false} {
				deleted, err := tx.DeleteEnv(ctx, id, "A")
				require.NoError(t, err)
				require.Equal(t, want, deleted)
			}
			return nil
		})
	})
}

func TestEnvRowsAreRefused(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		id := insertProject(t, db).ProjectID
		big := variable("A", false, "x", "build")
		big.Size = 40_000
		for name, v := range map[string]*store.EnvVar{
			"NoName": variable("", false, "x", "build"), "NoScope": variable("A", false, "x"), "OtherOrder": variable("A", false, "x", "build", "install"), "Size": big,
		} {
			require.Error(t, db.Tx(t.Context(), "test", func(tx *store.DB) error { return tx.UpsertEnv(t.Context(), id, v) }), name)
		}
		require.Error(t, db.Tx(t.Context(), "test", func(tx *store.DB) error {
			return tx.UpsertEnv(t.Context(), previewd.NewID(), variable("A", false, "x", "build"))
		}), "of no project")
	})
}

package worker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

// clock is a clock that the test sets.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) add(by time.Duration) { c.ahead.Add(int64(by)) }

func TestTokens(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		ctx := t.Context()
		var later clock
		callers := worker.NewCallers(worker.CallersConfig{Store: f.db, Now: later.now})
		token, secret, err := f.CreateToken(ctx, worker.NewToken{
			Name: "ci", Service: "builder", Principal: "team/a", Scopes: previewd.Scopes{previewd.ScopeOperate, previewd.ScopeOperate}, LegacyIDs: true,
		})
		require.NoError(t, err)
		require.Regexp(t, "^tok_[0-9a-z]{16}$", token.ID)
		require.Regexp(t, "^pvd_[0-9a-f]{48}$", secret)
		who, scopes, ok, err := callers.FindCaller(ctx, secret)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, previewd.Caller{Principal: "team/a", Service: "builder", LegacyIDs: true}, who)
		require.Equal(t, previewd.Scopes{previewd.ScopeOperate}, scopes)
		for _, wrong := range []string{"", "pvd_", secret + "0", secret[:len(secret)-1], previewd.NewTokenSecret(), token.ID, string(previewd.DigestOf([]byte(secret)))} {
			_, _, ok, err := callers.FindCaller(ctx, wrong)
			require.NoError(t, err)
			require.False(t, ok, wrong)
		}
		_, _, err = f.CreateToken(ctx, worker.NewToken{Name: "ci"})
		require.Equal(t, previewd.CodeConflict, previewd.ErrorCode(err))
		for _, bad := range []worker.NewToken{{}, {Name: "a b"}, {Name: "a", Service: "b c"}, {Name: "a", Principal: "\n"}, {Name: "a", Scopes: previewd.Scopes{"all"}}, {Name: "a", Expires: -1}} {
			_, _, err := f.CreateToken(ctx, bad)
			require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err), "%+v", bad)
		}

		_, err = f.RevokeToken(ctx, "ci")
		require.NoError(t, err)
		_, err = f.RevokeToken(ctx, token.ID)
		require.NoError(t, err, "again changes nothing")
		_, err = f.RevokeToken(ctx, "ci")
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err), "none of this name is left")
		later.add(time.Second)
		_, _, ok, err = callers.FindCaller(ctx, secret)
		require.NoError(t, err)
		require.False(t, ok, "within two seconds")

		expiring, secret, err := f.CreateToken(ctx, worker.NewToken{Name: "ci", Expires: time.Hour})
		require.NoError(t, err, "the name is free again")
		require.Equal(t, "ci", expiring.Principal)
		require.False(t, expiring.Scopes.Has(previewd.ScopeOperate))
		_, _, ok, _ = callers.FindCaller(ctx, secret)
		require.True(t, ok)
		later.add(time.Hour)
		_, _, ok, _ = callers.FindCaller(ctx, secret)
		require.False(t, ok, "expired")
		list, err := f.ListTokens(ctx, false)
		require.NoError(t, err)
		require.Len(t, list, 1)
		list, err = f.ListTokens(ctx, true)
		require.NoError(t, err)
		require.Len(t, list, 2)
		require.NotNil(t, list[0].RevokedAt)
	})
}

func TestUseOfATokenIsNotedOnceAMinute(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		ctx, now := t.Context(), time.Now() // it stands still while the test runs
		cfg := worker.CallersConfig{Store: f.db, Now: func() time.Time { return now }}
		callers, other := worker.NewCallers(cfg), worker.NewCallers(cfg)
		_, secret, err := f.CreateToken(ctx, worker.NewToken{Name: "ci"})
		require.NoError(t, err)
		used := func(by *worker.Callers) *time.Time {
			_, _, ok, err := by.FindCaller(ctx, secret)
			require.NoError(t, err)
			require.True(t, ok)
			require.NoError(t, by.Flush(ctx))
			list, err := f.ListTokens(ctx, false)
			require.NoError(t, err)
			return list[0].LastUsedAt
		}
		first := used(callers)
		require.NotNil(t, first)
		now = now.Add(59 * time.Second)
		require.Equal(t, first, used(callers))
		require.Equal(t, first, used(other), "not by another process either")
		now = now.Add(time.Second)
		require.Equal(t, time.Minute, used(callers).Sub(*first))
	})
}

// A token that cannot be looked up is not taken for a wrong one.
func TestCallersSayWhenTheyCannotTell(t *testing.T) {
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		db, err := store.Open(t.Context(), cfg)
		require.NoError(t, err)
		callers := worker.NewCallers(worker.CallersConfig{Store: db})
		require.NoError(t, db.Close())
		_, _, _, err = callers.FindCaller(context.Background(), previewd.NewTokenSecret())
		require.Error(t, err)
	})
}

package identity_test

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/identity"
	"github.com/previewd/previewd/internal/testkit"
)

const (
	userID = "01930f4e-5a7b-7c3d-8e9f-0a1b2c3d4e5f"
	secret = "a-secret-that-is-shared-with-the-issuer-0123456789"
)

type claims = map[string]any

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// clock is a clock that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// fixture is an issuer, and a verifier of its tokens, on one clock.
type fixture struct {
	*identity.Verifier
	tb     testing.TB
	issuer *testkit.Issuer
	clock  *clock
}

func setup(tb testing.TB, change ...func(*identity.Config)) *fixture {
	tb.Helper()
	f := &fixture{tb: tb, issuer: testkit.NewIssuer(tb), clock: newClock()}
	f.issuer.Now = f.clock.Now
	cfg := identity.Config{
		Issuer: f.issuer.URL, JWKSURL: f.issuer.JWKSURL, Now: f.clock.Now, Log: quiet,
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	f.Verifier, err = identity.New(cfg)
	require.NoError(tb, err)
	return f
}

func oidc(c *identity.Config) { c.Provider, c.Audience = identity.OIDC, "previewd" }

func (f *fixture) good(token string) *previewd.User {
	f.tb.Helper()
	user, err := f.Verify(f.tb.Context(), token)
	require.NoError(f.tb, err)
	return user
}

// code returns what a token gets, "" for a good one.
func (f *fixture) code(token string) previewd.Code {
	_, err := f.Verify(f.tb.Context(), token)
	return previewd.ErrorCode(err)
}

func set(name string, value any) func(claims) {
	return func(c claims) { c[name] = value }
}

func without(name string) func(claims) {
	return func(c claims) { delete(c, name) }
}

func denies(id string) func(context.Context, string, string) (bool, error) {
	return func(_ context.Context, user, _ string) (bool, error) { return user == id, nil }
}

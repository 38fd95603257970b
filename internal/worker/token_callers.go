package worker

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// How long what is known of a secret is believed: with the time that a request
// takes it stays below the two seconds in which a token can be revoked.
const (
	knownFor = time.Second
	maxKnown = 10_000
)

// Uses of a token are noted at most so often, by a writer that no request waits for.
const (
	touchEvery = time.Minute
	flushEvery = 5 * time.Second
)

// Callers knows who bears the service tokens of a database.
type Callers struct {
	store *store.DB
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex
	known   map[previewd.Digest]known // by the sha256 of a secret
	touched map[string]time.Time      // by id: when a use was noted last
	unsaved map[string]time.Time      // by id: uses that are not written yet
}

type known struct {
	token *previewd.Token // nil: nobody's
	until time.Time
}

// CallersConfig is everything that Callers need. A zero field takes the default
// its comment names.
type CallersConfig struct {
	Store *store.DB
	Log   *slog.Logger     // default slog.Default()
	Now   func() time.Time // default time.Now
}

// NewCallers returns Callers. Run writes when tokens were used.
func NewCallers(cfg CallersConfig) *Callers {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Callers{
		store: cfg.Store, log: cfg.Log, now: cfg.Now,
		known: map[previewd.Digest]known{}, touched: map[string]time.Time{}, unsaved: map[string]time.Time{},
	}
}

// FindCaller implements httpx.Callers. What has not the form of a secret is
// nobody's, and costs no look at the database.
func (c *Callers) FindCaller(ctx context.Context, secret string) (caller previewd.Caller, scopes previewd.Scopes, ok bool, err error) {
	if !previewd.IsTokenSecret(secret) {
		return caller, nil, false, nil
	}
	t, err := c.find(ctx, previewd.DigestOf([]byte(secret)))
	if err != nil || t == nil || !t.Live(c.now()) {
		return caller, nil, false, err
	}
	c.touch(t.ID)
	return t.Caller(), t.Scopes, true, nil
}

func (c *Callers) find(ctx context.Context, hash previewd.Digest) (*previewd.Token, error) {
	asked := c.now() // before the row is read: it may change meanwhile
	c.mu.Lock()
	k, ok := c.known[hash]
	c.mu.Unlock()
	if ok && asked.Before(k.until) {
		return k.token, nil
	}
	token, err := c.store.FindToken(ctx, hash)
	if err != nil {
		return nil, err
	}
	k = known{token: token, until: asked.Add(knownFor)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxKnown {
		clear(c.known)
	}
	c.known[hash] = k
	return k.token, nil
}

func (c *Callers) touch(id string) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.touched[id]) >= touchEvery {
		c.touched[id], c.unsaved[id] = now, now
	}
}

// Run writes when tokens were used, until ctx ends.
func (c *Callers) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(flushEvery):
		}
		if err := c.Flush(context.WithoutCancel(ctx)); err != nil && ctx.Err() == nil {
			c.log.ErrorContext(ctx, "noting the use of tokens failed", telemetry.Error, err)
		}
	}
	return nil
}

// Flush writes when tokens were used.
func (c *Callers) Flush(ctx context.Context) error {
	c.mu.Lock()
	uses := c.unsaved
	c.unsaved = map[string]time.Time{}
	c.mu.Unlock()
	if len(uses) == 0 {
		return nil
	}
	err := c.store.Tx(ctx, "token.touch", func(tx *store.DB) error {
		for id, at := range uses {
			if err := tx.TouchToken(ctx, id, at, touchEvery); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		maps.Copy(uses, c.unsaved) // what has come since is newer
		c.unsaved = uses
	}
	return err
}

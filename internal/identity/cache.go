package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/previewd/previewd/internal/telemetry"
)

const (
	maxFresh     = 10 * time.Minute // keys are trusted so long without asking again
	minFresh     = time.Minute      // also when the issuer says shorter
	maxStale     = time.Hour        // after the fetch, while the issuer does not answer
	fetchEvery   = time.Minute      // at most, also for ids that nobody knows
	retryEvery   = 5 * time.Second  // at most, while there are no keys at all
	fetchTimeout = 5 * time.Second
	maxKeySet    = 256 << 10
)

// Counts are what happened since the start, for metrics.
type Counts struct {
	Fetches  atomic.Int64 // of the issuer's keys, those that failed too
	Failures atomic.Int64 // fetches that failed
}

// keyCache keeps the issuer's keys. Whoever knows a key that is fresh waits for
// nobody; fetches are few, whatever tokens come.
type keyCache struct {
	url    string
	http   *http.Client
	now    func() time.Time
	log    *slog.Logger
	counts *Counts

	mu      sync.Mutex
	keys    keySet    // nil: never fetched
	fetched time.Time // when the keys were asked for
	fresh   time.Time // until when they need no look
	tried   time.Time // when the last fetch began
	failed  error     // of the last fetch
	flight  chan struct{}
}

func newKeyCache(cfg Config, counts *Counts) *keyCache {
	client := *cfg.HTTP
	client.Timeout = fetchTimeout
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return errors.New("redirects are not followed") }
	return &keyCache{url: cfg.JWKSURL, http: &client, now: cfg.Now, log: cfg.Log, counts: counts}
}

// find returns the key of this id that is fit for the algorithm. It returns
// CodeUnavailable while it has no keys that are young enough.
func (c *keyCache) find(ctx context.Context, kid, alg string) (any, error) {
	key, flight, err := c.look(kid, alg)
	if flight == nil {
		return key, err
	}
	select {
	case <-flight:
	case <-ctx.Done():
		return nil, unavailable("The request ended before its answer.", 0, ctx.Err())
	}
	key, _, err = c.look(kid, alg)
	return key, err
}

// look answers from what is cached. It returns a flight when the answer may be
// another one after it.
func (c *keyCache) look(kid, alg string) (key any, flight <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	usable := c.keys != nil && now.Before(c.fetched.Add(maxStale))
	if !usable {
		flight = c.fetch(now, retryEvery)
		return nil, flight, unavailable("Who you are cannot be checked now: try again shortly.", retryEvery, c.failed)
	}
	key, known := c.keys.find(kid, alg)
	switch {
	case !known:
		return nil, c.fetch(now, fetchEvery), fmt.Errorf("kid %.100q is unknown", kid)
	case !now.Before(c.fresh):
		flight = c.fetch(now, fetchEvery)
		if c.failed != nil {
			flight = nil // the issuer is away: it is asked again, and nobody waits for it
		}
	case now.Sub(c.fetched) > c.fresh.Sub(c.fetched)*3/4:
		c.fetch(now, fetchEvery) // so that nobody waits at the end
	}
	if key == nil {
		err = fmt.Errorf("kid %.100q is not for alg %s", kid, alg)
	}
	return key, flight, err
}

// fetch returns the fetch that runs, or begins one if the last is long enough
// ago; else nil. It outlives whoever began it: others wait for it too.
func (c *keyCache) fetch(now time.Time, every time.Duration) <-chan struct{} {
	if c.flight == nil && (c.tried.IsZero() || now.Sub(c.tried) >= every) {
		c.tried, c.flight = now, make(chan struct{})
		go c.run(now, c.flight)
	}
	return c.flight
}

func (c *keyCache) run(began time.Time, done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	c.counts.Fetches.Add(1)
	keys, fresh, err := c.request(ctx)
	if err != nil {
		c.counts.Failures.Add(1)
		c.log.Warn("fetching the issuer's keys failed", telemetry.Error, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed = err; err == nil {
		c.keys, c.fetched, c.fresh = keys, began, began.Add(fresh)
	}
	c.flight = nil
	close(done)
}

func (c *keyCache) request(ctx context.Context) (keySet, time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, http.NoBody)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := c.http.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("cannot fetch the keys: the answer was %s", response.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxKeySet+1))
	if err != nil {
		return nil, 0, err
	}
	if len(raw) > maxKeySet {
		return nil, 0, fmt.Errorf("cannot take the keys: more than %d bytes", maxKeySet)
	}
	keys, err := parseKeySet(raw)
	return keys, freshFor(response.Header), err
}

// freshFor reads Cache-Control (RFC 9111 §5.2.2), within our bounds.
func freshFor(h http.Header) time.Duration {
	fresh := maxFresh
	for one := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(one)), "=")
		switch name {
		case "no-store", "no-cache":
			fresh = 0
		case "max-age":
			if seconds, err := strconv.Atoi(strings.Trim(value, `"`)); err == nil && seconds < int(maxFresh/time.Second) {
				fresh = min(fresh, time.Duration(seconds)*time.Second)
			}
		}
	}
	return max(fresh, minFresh)
}

// checkURL refuses a place from where anybody on the way could hand us keys.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("cannot use JWKS URL %q: it must be like https://issuer.example/.well-known/jwks.json", text)
	case u.User != nil:
		return errors.New("cannot use the JWKS URL: it holds a password")
	case u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("cannot use JWKS URL %q: it must be https, for whoever changes the keys on the way can be anybody", text)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

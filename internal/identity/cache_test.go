package identity_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/identity"
	"github.com/previewd/previewd/internal/testkit"
)

// stray is a token with a key id that nobody knows.
func (f *fixture) stray(n int) string {
	key := f.issuer.Key()
	return key.Sign(f.tb, claims{"alg": key.Alg, "kid": fmt.Sprintf("stray-%d", n)}, f.issuer.Claims(userID))
}

// Whatever key ids strangers make up, the issuer is asked once a minute, and
// users go on.
func TestRandomKeyIDsMakeNoStorm(t *testing.T) {
	t.Parallel()
	f := setup(t)
	good := f.issuer.Token(userID, set("exp", f.clock.Now().Add(24*time.Hour).Unix()))
	f.good(good)
	began := f.clock.Now()
	const strays, step = 10_000, 60 * time.Millisecond // ten minutes in all
	tokens := make(chan int, strays)
	for n := range strays {
		tokens <- n
	}
	close(tokens)
	var slowest atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n := range tokens {
				if code := f.code(f.stray(n)); code != previewd.CodeUnauthorized {
					t.Errorf("stray %d gets %q", n, code)
				}
				f.clock.Advance(step)
				if n%10 == 0 {
					at := time.Now()
					if code := f.code(good); code != "" {
						t.Errorf("the user gets %q", code)
					}
					slowest.Store(max(slowest.Load(), int64(time.Since(at))))
				}
			}
		})
	}
	wg.Wait()
	minutes := int64(f.clock.Now().Sub(began) / time.Minute)
	require.Equal(t, int64(10), minutes)
	require.LessOrEqual(t, f.issuer.Requests.Load(), minutes+1)
	require.Equal(t, f.issuer.Requests.Load(), f.Counts().Fetches.Load())
	t.Logf("%d random key ids over %d minutes: %d fetches; slowest user %s",
		strays, minutes, f.issuer.Requests.Load(), time.Duration(slowest.Load()))
}

// The storm while the issuer hangs: users with a key that is fresh wait for
// nobody.
func TestFreshKeysWaitForNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHanging(t)
		h.answer(t)
		for range 2 { // the second without a fetch
			h.good(h.token)
		}
		time.Sleep(time.Minute)
		h.stop()
		waiter := make(chan previewd.Code, 1)
		go func() { waiter <- h.code(h.stray(1)) }()
		synctest.Wait()
		require.EqualValues(t, 2, h.requests.Load(), "the stray has made the issuer be asked")
		began := time.Now()
		h.good(h.token)
		require.Zero(t, time.Since(began))
		require.Equal(t, previewd.CodeUnauthorized, <-waiter)
		require.Equal(t, 5*time.Second, time.Since(began), "the fetch was given up")
		require.Equal(t, previewd.CodeUnauthorized, h.code(h.stray(2)))
		require.Equal(t, 5*time.Second, time.Since(began), "no other within the minute")
	})
}

// Waiters share a fetch. One that gives up takes it from nobody.
func TestWaitersShareOneFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHanging(t)
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() {
			_, err := h.Verify(ctx, h.token)
			first <- err
		}()
		synctest.Wait()
		users := make(chan previewd.Code, 100)
		for range cap(users) {
			go func() { users <- h.code(h.token) }()
		}
		synctest.Wait()
		cancel()
		err := <-first
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, previewd.CodeUnavailable, previewd.ErrorCode(err), "nothing is wrong with the token")
		h.answer(t)
		for range cap(users) {
			require.Empty(t, <-users)
		}
		require.EqualValues(t, 1, h.requests.Load())
	})
}

// hanging is an issuer that answers when it is told to, on the bubble's clock.
type hanging struct {
	*fixture
	token    string
	requests atomic.Int64
	hang     atomic.Bool
	release  chan struct{}
}

func (h *hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	h.requests.Add(1)
	if h.hang.Load() {
		select {
		case <-h.release:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	w := httptest.NewRecorder()
	h.issuer.ServeHTTP(w, r)
	return w.Result(), nil
}

// answer lets the issuer answer from now on.
func (h *hanging) answer(t *testing.T) {
	t.Helper()
	h.hang.Store(false)
	close(h.release)
}

// stop lets the issuer hang from now on.
func (h *hanging) stop() {
	h.release = make(chan struct{})
	h.hang.Store(true)
}

func newHanging(t *testing.T) *hanging {
	t.Helper()
	h := &hanging{}
	h.stop()
	h.fixture = &fixture{tb: t, issuer: testkit.NewUnstartedIssuer(t)}
	var err error
	h.Verifier, err = identity.New(identity.Config{
		Issuer: h.issuer.URL, JWKSURL: h.issuer.JWKSURL, HTTP: &http.Client{Transport: h}, Log: quiet,
	})
	require.NoError(t, err)
	h.token = h.issuer.Token(userID, set("exp", time.Now().Add(24*time.Hour).Unix()))
	return h
}

func TestRotation(t *testing.T) {
	t.Parallel()
	f := setup(t)
	old := f.issuer.Token(userID)
	f.good(old)
	f.clock.Advance(time.Minute)
	f.issuer.Rotate("RS256")
	renewed := f.issuer.Token(userID)
	f.good(renewed) // an unknown id: the keys are fetched again
	f.good(old)
	require.EqualValues(t, 2, f.issuer.Requests.Load())
	f.issuer.Retire()
	f.clock.Advance(7 * time.Minute)
	f.good(old)
	require.EqualValues(t, 2, f.issuer.Requests.Load(), "cached")
	f.clock.Advance(3 * time.Minute)
	require.Equal(t, previewd.CodeUnauthorized, f.code(old), "the cache has ended")
	f.good(renewed)
	require.EqualValues(t, 3, f.issuer.Requests.Load())
}

// Keys are asked for anew before they end, so that nobody waits.
func TestKeysAreRenewedEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHanging(t)
		h.answer(t)
		h.good(h.token)
		time.Sleep(8 * time.Minute)
		h.stop()
		h.good(h.token)
		synctest.Wait()
		require.EqualValues(t, 2, h.requests.Load())
		h.answer(t)
		synctest.Wait()
		time.Sleep(7 * time.Minute)
		h.good(h.token)
		require.EqualValues(t, 2, h.requests.Load(), "fresh for ten minutes from then")
	})
}

func TestFreshnessIsTheIssuersToSay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header string
		fresh  time.Duration
	}{
		{"", 10 * time.Minute},
		{"public, max-age=600", 10 * time.Minute},
		{"max-age=86400", 10 * time.Minute},
		{"max-age=99999999999999999999", 10 * time.Minute},
		{"Max-Age=120, public", 2 * time.Minute},
		{"max-age=3", time.Minute},
		{"max-age=-3", time.Minute},
		{"no-store", time.Minute},
	} {
		t.Run(c.header, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.issuer.SetHeader("Cache-Control", c.header)
			old := f.issuer.Token(userID)
			f.good(old)
			f.issuer.Rotate("ES256")
			f.issuer.Retire()
			f.clock.Advance(c.fresh * 3 / 4)
			f.good(old)
			require.EqualValues(t, 1, f.issuer.Requests.Load())
			f.clock.Advance(c.fresh / 4)
			require.Equal(t, previewd.CodeUnauthorized, f.code(old))
		})
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	f := setup(t)
	token := f.issuer.Token(userID, set("exp", f.clock.Now().Add(24*time.Hour).Unix()))
	f.good(token)
	f.issuer.SetDown(true)
	for range 59 {
		f.clock.Advance(time.Minute)
		f.good(token)
	}
	require.LessOrEqual(t, f.issuer.Requests.Load(), int64(60), "asked once a minute")
	f.clock.Advance(time.Minute)
	_, err := f.Verify(t.Context(), token)
	require.Equal(t, previewd.CodeUnavailable, previewd.ErrorCode(err), "after an hour nobody is trusted")
	f.issuer.SetDown(false)
	f.clock.Advance(5 * time.Second)
	f.good(token)
	require.Equal(t, f.issuer.Requests.Load(), f.Counts().Fetches.Load())
}

func TestNeverFetched(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.issuer.SetDown(true)
	token := f.issuer.Token(userID)
	for n := range 100 {
		_, err := f.Verify(t.Context(), token)
		var e *previewd.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, previewd.CodeUnavailable, e.Code)
		require.Equal(t, 5*time.Second, e.RetryAfter)
		require.Equal(t, previewd.CodeUnavailable, f.code(f.stray(n)))
	}
	require.EqualValues(t, 1, f.issuer.Requests.Load(), "asked again only after a moment")
	require.EqualValues(t, 1, f.Counts().Failures.Load())
	f.issuer.SetDown(false)
	f.clock.Advance(5 * time.Second)
	f.good(token)
}

func TestAnswersThatAreNoKeys(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"Redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"Error": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"keys":[]}`, http.StatusInternalServerError)
		},
		"HTML":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"NoKeys": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") },
		"Null":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":null}`) },
		"TooLarge": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[]`+strings.Repeat(" ", 256<<10)+"}")
		},
		"TooMany": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[{}`+strings.Repeat(",{}", 100)+"]}")
		},
		"Duplicates": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[],"keys":[]}`) },
		"Cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"keys":[]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				answer(w, r)
			}))
			t.Cleanup(server.Close)
			f := setup(t, func(c *identity.Config) { c.JWKSURL = server.URL })
			require.Equal(t, previewd.CodeUnavailable, f.code(f.issuer.Token(userID)))
			require.EqualValues(t, 1, requests.Load())
			require.EqualValues(t, 1, f.Counts().Failures.Load())
		})
	}
	t.Run("Empty", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		f.issuer.SetBody([]byte(`{"keys":[]}`))
		require.Equal(t, previewd.CodeUnauthorized, f.code(f.issuer.Token(userID)), "the issuer trusts no key")
	})
}

// Users come while keys change, the issuer goes and the clock runs.
func TestEverythingAtOnce(t *testing.T) {
	t.Parallel()
	f := setup(t)
	stop := make(chan struct{})
	var others, users sync.WaitGroup
	others.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				f.issuer.SetDown(n%3 == 0)
				f.clock.Advance(20 * time.Second)
				if n%50 == 0 {
					f.issuer.Retire()
					f.issuer.Rotate("ES256")
				}
				runtime.Gosched()
			}
		}
	})
	for range 8 {
		users.Go(func() {
			for range 200 {
				token := f.issuer.Token(userID)
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				if _, err := f.Verify(ctx, token); err != nil && previewd.ErrorCode(err) == previewd.CodeInternal {
					t.Error(errors.Unwrap(err))
				}
				cancel()
			}
		})
	}
	users.Wait()
	close(stop)
	others.Wait()
}

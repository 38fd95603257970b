package httpx_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/telemetry"
)

// referenceStore is a store that can refuse.
type referenceStore struct {
	mu      sync.Mutex
	batches []int
	stored  map[string]httpx.Reference
	refuse  bool
}

func (s *referenceStore) InsertReferences(_ context.Context, refs []httpx.Reference) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse {
		return errors.New("no")
	}
	s.batches = append(s.batches, len(refs))
	for _, r := range refs {
		s.stored[r.ID] = r
	}
	return nil
}

func (s *referenceStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.stored)
}

func TestReferencesAreStoredManyAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &referenceStore{stored: map[string]httpx.Reference{}}
		log := slog.New(slog.NewTextHandler(io.Discard, nil))
		r := httpx.NewReferences(httpx.ReferencesConfig{Store: store, Log: log, Queue: 1000})
		n := 0
		record := func(times int) {
			for range times {
				n++
				r.Record(httpx.Reference{ID: strconv.Itoa(n)})
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		record(1)
		synctest.Wait()
		require.Zero(t, store.count(), "others may come")
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, 1, store.count())
		store.mu.Lock() // all come while the first are being stored
		record(450)
		store.mu.Unlock()
		synctest.Wait()
		require.Equal(t, 451, store.count(), "without a pause")
		require.LessOrEqual(t, slices.Max(store.batches), 200)
		require.LessOrEqual(t, len(store.batches), 10, "many at a time")

		store.mu.Lock()
		store.refuse = true
		store.mu.Unlock()
		record(1005)
		time.Sleep(3 * time.Second)
		recorded, dropped := r.Counts()
		require.Equal(t, int64(1456), recorded+dropped)
		require.LessOrEqual(t, dropped, int64(5), "as many wait as may, beside a batch that is under way")
		store.mu.Lock()
		store.refuse = false
		store.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, int(recorded), store.count(), "they have waited")
		record(3)
		stop()
		require.NoError(t, <-done)
		require.Equal(t, int(recorded)+3, store.count(), "what is left is stored at the end")
	})
}

type recorder struct{ refs []httpx.Reference }

func (r *recorder) Record(ref httpx.Reference) { r.refs = append(r.refs, ref) }

func TestPanicsAndNotesAreRecorded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path    string
		handler http.HandlerFunc
		check   func(t *testing.T, ref httpx.Reference)
	}{
		"Panic": {"/api/x", func(http.ResponseWriter, *http.Request) { panic("oh no " + strings.Repeat("é", 5000)) }, func(t *testing.T, ref httpx.Reference) {
			require.Equal(t, http.StatusInternalServerError, ref.Status)
			require.Equal(t, previewd.RoleGateway, ref.Role)
			require.Contains(t, ref.Cause, "panic: oh no")
			require.LessOrEqual(t, len(ref.Cause), 4<<10)
			require.NotContains(t, ref.Cause, "\uFFFD")
		}},
		"Note": {"/v1/x", func(w http.ResponseWriter, r *http.Request) {
			httpx.Note(r.Context(), telemetry.UserID, "ann\x00\xff")
			httpx.WriteProblem(w, r, &previewd.Error{Code: previewd.CodeUnavailable, Message: "Later.", Details: "what was sent", Err: errors.New("the cause")})
		}, func(t *testing.T, ref httpx.Reference) {
			require.Equal(t, "ann\uFFFD", ref.UserID)
			require.Equal(t, "the cause", ref.Cause)
			require.Equal(t, previewd.RoleWorker, ref.Role)
		}},
		"CutBetweenRunes": {"/v1/" + strings.Repeat("x", 7) + strings.Repeat("%E2%82%AC", 400), func(w http.ResponseWriter, r *http.Request) {
			httpx.WriteProblem(w, r, &previewd.Error{Code: previewd.CodeUnavailable, Message: strings.Repeat("🍵", 300)})
		}, func(t *testing.T, ref httpx.Reference) {
			require.Equal(t, "/v1/xxxxxxx"+strings.Repeat("€", 337), ref.Path, "1022 bytes: the next rune ends after the limit")
			require.Equal(t, strings.Repeat("🍵", 256), ref.Message, "a rune ends at the limit")
		}},
		"HostilePath": {"/v1/projects/%00%ff%1b" + strings.Repeat("x", 5000), func(w http.ResponseWriter, r *http.Request) {
			httpx.WriteProblem(w, r, previewd.NotFound("thing", "x"))
		}, func(t *testing.T, ref httpx.Reference) {
			require.True(t, strings.HasPrefix(ref.Path, "/v1/projects/\uFFFDxxx"), "%q", ref.Path)
			require.LessOrEqual(t, len(ref.Path), 1<<10)
			require.Empty(t, ref.Cause)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			kept := &recorder{}
			h := httpx.WithRequest(slog.New(slog.NewTextHandler(io.Discard, nil)), c.handler, httpx.RecordTo(kept))
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, c.path+"?secret=1", nil))
			require.Len(t, kept.refs, 1)
			require.Contains(t, w.Body.String(), kept.refs[0].ID)
			c.check(t, kept.refs[0])
		})
	}
}

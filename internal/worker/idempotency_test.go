package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/worker"
)

const key = "key-0123456789abcdef"

func keyed(change ...func(*previewd.CreatePreviewRequest)) previewd.CreatePreviewRequest {
	req := request()
	req.IdempotencyKey = key
	for _, c := range change {
		c(&req)
	}
	return req
}

func text(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	require.NoError(t, err)
	return string(raw)
}

func TestReplayIsTheFirstAnswerToTheByte(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		f.create()
		first, err := f.CreatePreview(t.Context(), keyed())
		require.NoError(t, err)
		require.Equal(t, 2, first.QueuePosition)
		_, err = f.finish(f.claim())
		require.NoError(t, err)
		later := keyed()
		later.Caller.RequestID = "req_later"
		again, err := f.CreatePreview(t.Context(), later)
		require.NoError(t, err)
		require.Equal(t, previewd.Replay{Replayed: previewd.ReplayedKey, OriginalRequestID: "req_test"}, again.Replay)
		require.Equal(t, text(t, first), text(t, again), "also of what has changed since")
	})
}

// Equal requests are one project, with a key or within the window, whichever of
// two servers they come to.
func TestEqualRequestsMakeOneProject(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"Key": key, "Window": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
				long := func(c *worker.Config) { c.Window = time.Minute }
				servers := []*fixture{setup(t, db, long), setup(t, db, long)}
				for round := range 10 {
					req := request()
					req.Prompt = fmt.Sprint("round ", round)
					want := previewd.ReplayedWindow
					if key != "" {
						req.IdempotencyKey, want = fmt.Sprint(key, round), previewd.ReplayedKey
					}
					click(t, servers, req, want)
				}
			})
		})
	}
}

// click sends a request forty times at once.
func click(t *testing.T, servers []*fixture, req previewd.CreatePreviewRequest, want previewd.Replayed) {
	t.Helper()
	var mu sync.Mutex
	ids, firsts := map[string]bool{}, 0
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			server := servers[i%len(servers)]
			p, err := server.CreatePreview(context.Background(), req)
			for previewd.ErrorCode(err) == previewd.CodeKeyInFlight {
				p, err = server.CreatePreview(context.Background(), req) // as it says
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[p.ProjectID] = true
			if p.Replayed == "" {
				firsts++
			} else if p.Replayed != want {
				t.Error(p.Replayed)
			}
		})
	}
	wg.Wait()
	require.Len(t, ids, 1)
	require.Equal(t, 1, firsts)
}

func TestWindowIsOfOneUser(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for _, user := range []string{"user-1", "user-2"} {
			req := request()
			req.UserID = user
			p, err := f.CreatePreview(t.Context(), req)
			require.NoError(t, err)
			require.Empty(t, p.Replayed, "another user's equal request is another project")
		}
	})
}

func TestWindowCloses(t *testing.T) {
	t.Parallel()
	testkit.EachEngine(t, func(t *testing.T, db *store.DB) {
		f := setup(t, db, func(c *worker.Config) { c.Window = time.Millisecond })
		ids := map[string]bool{}
		testkit.Eventually(t, "a third project", func() bool {
			p, err := f.CreatePreview(t.Context(), request())
			require.NoError(t, err)
			ids[p.ProjectID] = true
			return len(ids) == 3
		})
	})
}

// A refusal that depends on what is stored is an answer: a late copy of the
// request gets it too, to the letter.
func TestRefusalIsReplayed(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		req := previewd.CreateBuildRequest{
			ProjectID: previewd.NewID(), TemplateFiles: previewd.Files{"index.html": nil}, IdempotencyKey: key, Caller: caller,
		}
		var answers []string
		for range 2 {
			_, err := f.CreateBuild(t.Context(), req)
			var e *previewd.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, previewd.CodeNotFound, e.Code)
			answers = append(answers, e.ReferenceID+e.At.String()+e.Message)
			require.Equal(t, len(answers) == 2, e.Replayed == previewd.ReplayedKey)
		}
		require.Equal(t, answers[0], answers[1])

		p := f.create()
		req = previewd.CreateBuildRequest{
			ProjectID: p.ProjectID, TemplateFiles: previewd.Files{"index.html": nil}, Policy: previewd.PolicyReject,
			IdempotencyKey: key + "-2", Caller: caller,
		}
		_, err := f.CreateBuild(t.Context(), req)
		require.Equal(t, previewd.CodeBuildActive, previewd.ErrorCode(err))
		_, err = f.finish(f.claim())
		require.NoError(t, err)
		_, err = f.CreateBuild(t.Context(), req)
		require.Equal(t, previewd.CodeBuildActive, previewd.ErrorCode(err), "the key has its answer")
		req.IdempotencyKey += "x"
		_, err = f.CreateBuild(t.Context(), req)
		require.NoError(t, err, "a new attempt needs a new key")
		op, err := f.FindOperation(t.Context(), caller, key+"-2")
		require.NoError(t, err)
		require.Equal(t, http.StatusConflict, op.Status)
		require.Empty(t, op.BuildID)
	})
}

func TestBuildReplayIsTheFirstAnswerToTheByte(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		req := previewd.CreateBuildRequest{
			ProjectID: p.ProjectID, TemplateFiles: previewd.Files{"index.html": nil}, IdempotencyKey: key, Caller: caller,
		}
		first, err := f.CreateBuild(t.Context(), req)
		require.NoError(t, err)
		_, err = f.finish(f.claim())
		require.NoError(t, err)
		again, err := f.CreateBuild(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, previewd.ReplayedKey, again.Replayed)
		require.Equal(t, text(t, first), text(t, again))
		req.Policy = previewd.PolicyQueue
		_, err = f.CreateBuild(t.Context(), req)
		require.Equal(t, previewd.CodeKeyReused, previewd.ErrorCode(err), "another policy is another request")
	})
}

// What a key has made is known for ever: first its answer, then how it is now.
func TestKeysAreForgottenAndProjectsAreNot(t *testing.T) {
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) {
		db := testkit.Open(t, cfg)
		f := setup(t, db)
		first, err := f.CreatePreview(t.Context(), keyed())
		require.NoError(t, err)
		_, err = f.finish(f.claim())
		require.NoError(t, err)
		testkit.OpenShell(t, cfg).Do("UPDATE worker_projects SET created_at = 1") // a young one must have its key

		for _, keep := range []store.KeyRetention{{Body: 0, Row: time.Hour}, {}} {
			require.NoError(t, db.Tx(t.Context(), "test", func(tx *store.DB) error {
				_, err := tx.PruneKeys(t.Context(), keep, 100)
				return err
			}))
			again, err := f.CreatePreview(t.Context(), keyed())
			require.NoError(t, err)
			require.Equal(t, previewd.ReplayedResource, again.Replayed)
			require.Equal(t, first.ProjectID, again.ProjectID)
			require.Equal(t, previewd.BuildCompleted, again.Status, "as it is now")
			op, err := f.FindOperation(t.Context(), caller, key)
			require.NoError(t, err)
			require.Equal(t, first.ProjectID, op.ProjectID)
		}
		stored, err := db.FindKey(t.Context(), caller.Principal, key)
		require.NoError(t, err)
		require.Nil(t, stored)
		_, err = f.FindOperation(t.Context(), caller, "key-of-nobody-0123")
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
		stranger := caller
		stranger.Principal = "another"
		_, err = f.FindOperation(t.Context(), stranger, key)
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err), "keys are their principal's own")
	})
}

func TestClientIDsNeedALegacyToken(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		id := "0f8fad5b-d9cb-469f-a165-70867728950e"
		own := func(r *previewd.CreatePreviewRequest) { r.ProjectID = id }
		legacy := func(r *previewd.CreatePreviewRequest) { r.Caller.LegacyIDs = true }
		_, err := f.CreatePreview(t.Context(), keyed(own))
		require.Equal(t, previewd.CodeClientIDNotAllowed, previewd.ErrorCode(err))
		_, err = f.CreatePreview(t.Context(), keyed(legacy, func(r *previewd.CreatePreviewRequest) { r.ProjectID = "my-project" }))
		require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err))

		p, err := f.CreatePreview(t.Context(), keyed(own, legacy))
		require.NoError(t, err)
		require.Equal(t, id, p.ProjectID)
		require.Equal(t, previewd.IDSourceClient, p.IDGenerationSource)
		again, err := f.CreatePreview(t.Context(), keyed(own, legacy))
		require.NoError(t, err)
		require.Equal(t, previewd.ReplayedKey, again.Replayed)
		_, err = f.CreatePreview(t.Context(), keyed(own, legacy, func(r *previewd.CreatePreviewRequest) { r.IdempotencyKey += "-other" }))
		require.Equal(t, previewd.CodeIDTaken, previewd.ErrorCode(err))
		require.EqualValues(t, 1, f.Counts().LegacyIDs.Load())
		project, err := f.FindProject(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, previewd.IDSourceClient, project.IDGenerationSource)
	})
}

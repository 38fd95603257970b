package worker_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

// last returns what a build's last event of a type says.
func (f *fixture) last(buildID string, what previewd.EventType) (at time.Time, data map[string]any) {
	f.t.Helper()
	events, err := f.db.ListBuildEvents(f.t.Context(), buildID, 0, 100)
	require.NoError(f.t, err)
	for _, e := range events {
		if e.Type == what {
			at, data = e.At, e.Data
		}
	}
	require.NotNil(f.t, data, "no event %s", what)
	return at, data
}

// when is a time of the API in the form that it has in an event.
func when(t *testing.T, at *time.Time) string {
	t.Helper()
	raw, err := json.Marshal(at)
	require.NoError(t, err)
	return string(raw[1 : len(raw)-1])
}

// Events alone tell what to meter: they say what the rows say.
func TestEventsTellWhatToMeter(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		p := f.create()
		_, err := f.FinishBuild(t.Context(), f.claim().Lease, previewd.Outcome{
			Kind: previewd.OutcomeFailed, Failure: &previewd.Failure{Class: previewd.FailureInfra, Code: previewd.FailInfra, Message: "x"},
		})
		require.NoError(t, err)
		_, err = f.finish(f.claim())
		require.NoError(t, err)
		b, err := f.FindBuild(t.Context(), p.BuildID, 0)
		require.NoError(t, err)
		began, building := f.last(b.ID, previewd.EventBuildBuilding)
		require.Equal(t, when(t, b.StartedAt), building["startedAt"], "the first attempt's")
		require.True(t, began.After(*b.StartedAt))
		ended, done := f.last(b.ID, previewd.EventBuildCompleted)
		require.Equal(t, when(t, b.StartedAt), done["startedAt"])
		require.Equal(t, when(t, b.FinishedAt), done["finishedAt"])
		require.InDelta(t, ended.Sub(began).Milliseconds(), done["durationMs"], 0, "of the last attempt")
		version := f.versions(p.ProjectID)[0]
		require.InDelta(t, version.Number, done["version"], 0)
		require.InDelta(t, version.Files, done["files"], 0)
		require.InDelta(t, version.Bytes, done["bytes"], 0)

		waiting := f.rebuild(p.ProjectID)
		newest := f.rebuild(p.ProjectID)
		_, queued := f.last(newest.ID, previewd.EventBuildQueued)
		require.Equal(t, []any{waiting.ID}, queued["supersedes"])
		require.Equal(t, "supersede", queued["policy"])
		_, over := f.last(waiting.ID, previewd.EventBuildSuperseded)
		require.NotContains(t, over, "startedAt", "it never began")
		require.NotContains(t, over, "durationMs")
		require.NotEmpty(t, over["finishedAt"])
	})
}

func TestEventsTellWhatWasKept(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		plain := f.create()
		_, err := f.finish(f.claim())
		require.NoError(t, err)
		_, data := f.last(plain.BuildID, previewd.EventBuildCompleted)
		require.NotContains(t, data, "cache")
		require.NotContains(t, data, "cacheSavedMs")

		b := f.rebuild(plain.ProjectID)
		out := previewd.Outcome{Kind: previewd.OutcomeCompleted, Manifest: f.manifest(), Runner: "sandbox", Isolation: "namespace", Cache: "hit", CacheSaved: 1500 * time.Millisecond}
		_, err = f.FinishBuild(t.Context(), f.claim().Lease, out)
		require.NoError(t, err)
		_, data = f.last(b.ID, previewd.EventBuildCompleted)
		require.Equal(t, "hit", data["cache"])
		require.InDelta(t, 1500, data["cacheSavedMs"], 0)
		found, err := f.FindBuild(t.Context(), b.ID, 0)
		require.NoError(t, err)
		require.Equal(t, "hit", found.Cache)
	})
}

func TestProjectsAreFoundByWhoAskedForThem(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		req := keyed()
		ours, err := f.CreatePreview(t.Context(), req)
		require.NoError(t, err)
		req = request()
		req.Prompt, req.Caller = "of another", previewd.Caller{Principal: "another", Service: "another"}
		theirs, err := f.CreatePreview(t.Context(), req)
		require.NoError(t, err)
		later := f.create()
		list := func(filter previewd.ProjectFilter) (ids []string) {
			page, err := f.ListProjects(t.Context(), filter)
			require.NoError(t, err)
			for _, p := range page.Projects {
				ids = append(ids, p.ID)
			}
			return ids
		}
		require.Equal(t, []string{later.ProjectID, ours.ProjectID}, list(previewd.ProjectFilter{CreatedBy: caller.Service}))
		require.Equal(t, []string{later.ProjectID}, list(previewd.ProjectFilter{CreatedBy: caller.Service, After: ours.ProjectID}))
		require.Equal(t, []string{theirs.ProjectID}, list(previewd.ProjectFilter{CreatedBy: "another"}))
		require.Empty(t, list(previewd.ProjectFilter{CreatedBy: "nobody"}))
		_, err = f.ListProjects(t.Context(), previewd.ProjectFilter{After: "x"})
		require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err))

		p, err := f.FindProject(t.Context(), ours.ProjectID)
		require.NoError(t, err)
		require.Equal(t, key, p.CreateKey)
		require.Equal(t, caller.Principal, p.CreatePrincipal)
		p, err = f.FindProject(t.Context(), theirs.ProjectID)
		require.NoError(t, err)
		require.Empty(t, p.CreateKey, "it had none")
	})
}

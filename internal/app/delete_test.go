package app_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/testkit"
)

// A deleted project's hosts show nothing from then on, on every server that
// shares the database, whatever they remember.
func TestDeletedProjectIsShownNowhere(t *testing.T) {
	t.Parallel()
	for _, e := range testkit.Engines() {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			database, artifacts := e.Config(t).URL, t.TempDir()
			s := startWith(t, config.Config{DatabaseURL: database, Artifacts: artifacts})
			servers := []*server{s}
			if database != "" {
				servers = append(servers, startWith(t, config.Config{DatabaseURL: database, Artifacts: artifacts, Builds: -1}))
			}
			p := s.create(`{"userId":"u","templateFiles":{"index.html":"one"}}`)
			s.wait(p.BuildID)
			hosts := func(on *server) []string {
				return []string{on.Config.PreviewURL(p.ProjectID), on.Config.PreviewURL(p.BuildID + ".b")}
			}
			for _, on := range servers {
				for _, host := range hosts(on) {
					status, _, page := on.call(http.MethodGet, host, "")
					require.Equal(t, http.StatusOK, status)
					require.Equal(t, "one", page)
				}
			}
			status, _, text := s.call(http.MethodDelete, "/v1/projects/"+p.ProjectID, "")
			require.Equal(t, http.StatusNoContent, status, text)
			for _, host := range hosts(s) {
				status, _, _ = s.call(http.MethodGet, host, "")
				require.Equal(t, http.StatusNotFound, status, "at once")
			}
			deleted := time.Now()
			for _, on := range servers {
				for _, host := range hosts(on) {
					testkit.Eventually(t, "nothing is shown any more", func() bool {
						status, _, _ := on.call(http.MethodGet, host, "")
						return status == http.StatusNotFound
					})
				}
			}
			require.Less(t, time.Since(deleted), 30*time.Second)
			status, _, _ = s.call(http.MethodGet, "/v1/builds/"+p.BuildID+"/events", "")
			require.Equal(t, http.StatusNotFound, status)
			testkit.Eventually(t, "the feed remembers", func() bool {
				page, err := s.client().ListEvents(t.Context(), previewd.EventFilter{Limit: 500})
				require.NoError(t, err)
				return len(page.Events) >= 5
			})
		})
	}
}

// Whoever follows a build when its project is deleted is told how it ended.
func TestStreamOfADeletedBuildEnds(t *testing.T) {
	t.Parallel()
	s := startWith(t, config.Config{Builds: -1})
	p := s.create(`{"userId":"u","templateFiles":{"index.html":"one"}}`)
	stream := testkit.FollowEvents(t, s.Config.BaseURL+"/v1/builds/"+p.BuildID+"/events?after=0", "Authorization", "Bearer "+s.Token)
	require.Equal(t, "build.queued", stream.Take(2)[1].Type)
	require.NoError(t, s.client().DeleteProject(t.Context(), previewd.DeleteProjectRequest{ProjectID: p.ProjectID}))
	frames := stream.Rest()
	require.True(t, slices.ContainsFunc(frames, func(f testkit.Frame) bool { return f.Type == "build.canceled" }), frames)
	end := frames[len(frames)-1]
	require.Equal(t, "end", end.Type)
	require.Contains(t, end.Data, `"deleted"`)
}

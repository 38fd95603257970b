package app_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
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
			require.Less(t, time.Since(deleted), 5*time.Second)
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
	time.AfterFunc(200*time.Millisecond, func() {
		assert.NoError(t, s.client().DeleteProject(context.Background(), previewd.DeleteProjectRequest{ProjectID: p.ProjectID}))
	})
	_, _, stream := s.call(http.MethodGet, "/v1/builds/"+p.BuildID+"/events?after=0", "")
	require.Contains(t, stream, "event: build.canceled")
	require.Regexp(t, `event: end\ndata: .*"deleted"`, stream)
}

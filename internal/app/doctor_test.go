package app_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/app"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// A server tells of a broken promise, and the doctor mends it beside the server.
func TestDoctorBesideAServer(t *testing.T) {
	t.Parallel()
	s := start(t)
	p := s.create(`{"userId": "u", "prompt": "", "templateFiles": {"index.html": "hi"}}`)
	_, err := s.client().FindBuild(t.Context(), p.BuildID, 0)
	require.NoError(t, err)
	look := func() previewd.Integrity {
		status, _, text := s.call(http.MethodGet, "/v1/integrity", "")
		require.Equal(t, http.StatusOK, status, text)
		var found previewd.Integrity
		require.NoError(t, json.Unmarshal([]byte(text), &found))
		require.False(t, found.CheckedAt.IsZero())
		return found
	}
	require.True(t, look().OK)
	status, _, _ := s.call(http.MethodGet, "/v1/integrity", "", "Authorization", "Bearer another-token-0123456")
	require.Equal(t, http.StatusUnauthorized, status)
	status, _, text := s.call(http.MethodGet, "/metrics", "", "Authorization", "")
	require.Equal(t, http.StatusOK, status, "on loopback without a token")
	require.Contains(t, text, "previewd_build_info{")

	testkit.OpenShell(t, store.Config{Path: s.Config.DatabasePath()}).Do(
		"INSERT INTO worker_create_guard (owner_id, fingerprint, project_id, request_id, body, expires_at) VALUES ('u', 'f', 'gone', 'r', x'00', 1)")
	found := look()
	require.False(t, found.OK)
	broken := previewd.Broken(found.Checks)
	require.Len(t, broken, 1)
	require.Equal(t, "guard_without_project", broken[0].Name)
	require.Equal(t, 1, broken[0].Count)
	require.Equal(t, []string{"u/f"}, broken[0].Examples)

	doctor, err := app.OpenDoctor(t.Context(), s.Config)
	require.NoError(t, err)
	var planned, done []string
	repairs := app.Repairs{
		Plan: func(text string) { planned = append(planned, text) },
		Done: func(text string) { done = append(done, text) },
		Skip: func(text string) { t.Error("skipped", text) },
	}
	require.NoError(t, doctor.Repair(t.Context(), true, repairs))
	require.Len(t, planned, 1)
	require.Empty(t, done, "a dry run changes nothing")
	require.False(t, look().OK)
	require.NoError(t, doctor.Repair(t.Context(), false, repairs))
	require.Len(t, done, 1)
	require.NoError(t, doctor.Close())
	require.True(t, look().OK)
}

package app_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/app"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// The doctor and support look into both databases where there are two, and
// compare them.
func TestDoctorOfTwoDatabases(t *testing.T) {
	eachLayout(t, func(t *testing.T, f *front) {
		token := f.token(ann)
		made := f.make(token)
		f.deployed(token, made.Project.ID)
		r := f.ask(token, http.MethodGet, "/api/projects/"+previewd.NewID(), "")
		var problem struct{ ReferenceID string }
		require.NoError(t, json.Unmarshal([]byte(r.body), &problem))

		cfg := f.worker.Config
		cfg.GatewayDatabaseURL = f.Config.GatewayDatabaseURL
		far := f.worker != f.server
		if far && cfg.GatewayDatabaseURL == "" {
			// A gateway's own file is looked at by itself: there is no worker to compare it with.
			alone, err := app.OpenDoctor(t.Context(), config.Config{Data: f.Config.Data})
			require.NoError(t, err)
			found, err := alone.Check(t.Context(), false)
			require.NoError(t, err)
			require.True(t, found.OK, "%v", previewd.Broken(found.Checks))
			for _, c := range found.Checks {
				require.NotEqual(t, "app_differs_from_worker", c.Name)
			}
			require.NoError(t, alone.Close())
			return
		}
		operator, err := app.OpenOperator(t.Context(), cfg)
		require.NoError(t, err)
		info, err := operator.FindReference(t.Context(), made.Build.ReferenceID)
		require.NoError(t, err)
		require.NotNil(t, info.Build, "as the worker knows it")
		require.NotNil(t, info.AppBuild, "as its owner sees it")
		require.Equal(t, ann, info.UserID)
		testkit.Eventually(t, "the problem is stored", func() bool {
			info, err := operator.FindReference(t.Context(), problem.ReferenceID)
			return err == nil && info.Problem.Role == previewd.RoleGateway
		})
		require.NoError(t, operator.Close())

		doctor, err := app.OpenDoctor(t.Context(), cfg)
		require.NoError(t, err)
		defer doctor.Close()
		look := func() (names []string) {
			found, err := doctor.Check(t.Context(), true)
			require.NoError(t, err)
			for _, c := range previewd.Broken(found.Checks) {
				names = append(names, c.Name)
			}
			return names
		}
		require.Empty(t, look())
		chains, err := doctor.VerifyAudit(t.Context())
		require.NoError(t, err)
		require.Len(t, chains, 2)
		for _, c := range chains {
			require.True(t, c.OK)
			require.Positive(t, c.Entries, c.Chain)
		}
		shell := testkit.OpenShell(t, store.Config{Path: f.worker.Config.DatabasePath(), URL: cfg.DatabaseURL})
		users := shell
		if far {
			users = testkit.OpenShell(t, store.Config{URL: cfg.GatewayDatabaseURL})
		}
		users.Do("UPDATE gateway_builds SET worker_status = 'failed'")
		shell.Do("UPDATE worker_builds SET finished_at = finished_at - 120000000")
		require.Equal(t, []string{"app_differs_from_worker"}, look())
		users.Do("UPDATE gateway_builds SET worker_status = 'completed'")
		require.Empty(t, look())
	})
}

// A server of two databases tells what both know of a reference.
func TestReferenceOfTwoDatabases(t *testing.T) {
	t.Parallel()
	url := testkit.Postgres(t).Database(t)
	f := startFront(t, testkit.Engines()[0], false, func(c *config.Config) { c.GatewayDatabaseURL = url })
	made := f.make(f.token(ann))
	var info previewd.ReferenceInfo
	f.get(f.token(eve), "/api/admin/references/"+made.Build.ReferenceID, &info)
	require.NotNil(t, info.Build, "as the worker knows it")
	require.NotNil(t, info.AppBuild, "as its owner sees it")
}

package gateway_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// Answers, refusals, windows and problems are kept for a while; projects and
// their intents stay.
func TestSweepDropsWhatIsOld(t *testing.T) {
	t.Parallel()
	for _, e := range testkit.Engines() {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			cfg := e.Config(t)
			e.Config = func(testing.TB) store.Config { return cfg }
			f := setup(t, e, false)
			made, err := f.CreateProject(t.Context(), as(ann), page()) // without a key: it has a window
			require.NoError(t, err)
			_, err = f.CreateBuild(t.Context(), as(ann, key), gateway.CreateBuild{
				ProjectID: made.Project.ID, TemplateFiles: page().TemplateFiles, Policy: previewd.PolicyReject,
			})
			require.Equal(t, previewd.CodeBuildActive, previewd.ErrorCode(err))
			require.NoError(t, f.Store.InsertReferences(t.Context(), []previewd.Reference{{ID: "ref_old", Role: previewd.RoleGateway, At: time.Now()}}))
			shell := testkit.OpenShell(t, cfg)
			kept := func() []string {
				return shell.Texts(`SELECT state || CASE WHEN body IS NULL THEN ' without' ELSE ' with' END FROM gateway_intents
					UNION ALL SELECT 'window' FROM gateway_create_guard UNION ALL SELECT reference_id FROM reference_ids`)
			}
			require.NoError(t, f.Sweep(t.Context()))
			require.ElementsMatch(t, []string{"confirmed with", "rejected with", "window", "ref_old"}, kept())
			shell.Do("UPDATE gateway_intents SET created_at = 1\nUPDATE gateway_create_guard SET expires_at = 1\nUPDATE reference_ids SET at = 1")
			require.NoError(t, f.Sweep(t.Context()))
			require.Equal(t, []string{"confirmed without"}, kept())
			require.Equal(t, made.Project.ID, f.project(ann, made.Project.ID).ID)
		})
	}
}

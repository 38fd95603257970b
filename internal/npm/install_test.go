package npm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/npm"
)

// The machine's own npm installs through a view: by ranges first, then by the lock
// file alone while the registry is away.
func TestNPMInstalls(t *testing.T) {
	t.Parallel()
	command, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("SKIPPED: there is no npm here, so nothing shows that a real one works with the mirror")
	}
	f := setup(t, npm.Config{})
	f.origin.publish(t, "left", release{version: "1.0.0"}, release{version: "1.2.0", needs: object{"@scope/right": "^1.0.0"}})
	f.origin.publish(t, "@scope/right", release{version: "1.0.0"}, release{version: "1.5.0"}, release{version: "2.0.0"})
	project := t.TempDir()
	manifest := `{"name": "app", "version": "1.0.0", "dependencies": {"left": "^1.0.0"}}`
	require.NoError(t, os.WriteFile(filepath.Join(project, "package.json"), []byte(manifest), 0o644))
	run := func(args ...string) {
		home := t.TempDir()
		cmd := exec.CommandContext(t.Context(), command, append(args, "--ignore-scripts")...)
		cmd.Dir = project
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + home, "npm_config_registry=" + f.url,
			"npm_config_replace_registry_host=always", "npm_config_update_notifier=false",
			"npm_config_globalconfig=" + filepath.Join(home, "none"),
		}
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s\n%v", out, f.view.Refused())
		index, err := os.ReadFile(filepath.Join(project, "node_modules/@scope/right/index.js"))
		require.NoError(t, err)
		require.Contains(t, string(index), "@scope/right@1.5.0")
	}
	check := func(cached bool) {
		var got []string
		for _, fetch := range f.view.Fetched() {
			require.Equal(t, cached, fetch.Cached)
			got = append(got, fetch.Name+"@"+fetch.Version)
		}
		require.ElementsMatch(t, []string{"left@1.2.0", "@scope/right@1.5.0"}, got)
	}
	run("install")
	check(false)
	require.Equal(t, []npm.Refusal{{Path: "/-/npm/v1/security/advisories/bulk", Status: 405, Reason: npm.Refused}}, f.view.Refused())

	require.NoError(t, os.RemoveAll(filepath.Join(project, "node_modules")))
	f.origin.Close()
	f.start(npm.Config{})
	run("ci")
	check(true)
}

package runner

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkBundleStep measures the build step of a small React-style app as a
// build pays for it: a new, confined process that reads, bundles and writes.
func BenchmarkBundleStep(b *testing.B) {
	source := filepath.Join(b.TempDir(), "source")
	template, err := filepath.Abs("../worker/templates/app/files")
	require.NoError(b, err)
	require.NoError(b, os.CopyFS(source, os.DirFS(template)))
	require.NoError(b, os.WriteFile(filepath.Join(source, "project.json"), []byte(`{"prompt":"x"}`), 0o644))
	for b.Loop() {
		request, err := json.Marshal(childRequest{Source: source, Out: b.TempDir()})
		require.NoError(b, err)
		cmd := exec.Command(os.Args[0], ChildArg)
		cmd.Stdin = bytes.NewReader(request)
		out, err := cmd.Output()
		require.NoError(b, err)
		require.Contains(b, string(out), `"built":true`)
	}
}

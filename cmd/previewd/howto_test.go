package main_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/testkit"
)

// blocks are the commands of a page, in order.
var blocks = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// What the page tells is what happens: its blocks are run one after another in one
// shell, in an empty folder with the built program. Substituted are the ports, which
// have to be free here, the build, which was made before, and a pause, for a machine
// with other things to do.
func TestFromTokenToPreview(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("NOT TESTED: no", tool, "on this machine")
		}
	}
	page, err := os.ReadFile("../../docs/how-to/from-token-to-preview.md")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Symlink(testkit.Program(t), filepath.Join(dir, "previewd")))
	worker, err := testkit.FreePort()
	require.NoError(t, err)
	gateway, err := testkit.FreePort()
	require.NoError(t, err)
	var script strings.Builder
	script.WriteString("set -e -o pipefail\n")
	list := blocks.FindAllStringSubmatch(string(page), -1)
	require.Greater(t, len(list), 12)
	for _, block := range list {
		commands := strings.NewReplacer(
			"8080", strconv.Itoa(worker), "8081", strconv.Itoa(gateway), "serve --price", fmt.Sprintf("serve --addr 127.0.0.1:%d --price", worker), "sleep 1 ", "sleep 5 ", "go build -o previewd ./cmd/previewd", "test -x previewd",
		).Replace(block[1])
		first, _, _ := strings.Cut(commands, "\n")
		script.WriteString("echo '# " + strings.ReplaceAll(first, "'", "") + "' >&2\n" + commands)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String()+"kill $(jobs -p)\nwait\n")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }() // what the page has started ends with the test
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, want := range []string{"event: build.completed", "event: version.activated", `"previewUrl"`, "404 not_found"} {
		require.Contains(t, string(out), want)
	}
}

//go:build linux

package sandbox_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// All of this package's tests, by a user who may do nothing but use groups that
// were given to it, as a service manager does.
func TestUnprivileged(t *testing.T) {
	const nobody = 65534
	if testing.Short() {
		t.Skip("SKIPPED with -short: all of these tests again")
	}
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root can become somebody else")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("SKIPPED: setpriv is not installed")
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	var dirs []string
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch parts[1] {
		case "memory", "pids", "cpu", "cpuacct":
			dirs = append(dirs, filepath.Join("/sys/fs/cgroup", parts[1], parts[2], "unprivileged-"+strconv.Itoa(os.Getpid())))
		}
	}
	if len(dirs) != 4 {
		t.Skip("SKIPPED: the control groups of this machine are not of version 1, one for each controller")
	}
	home := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(home, "testdata"), os.DirFS("testdata")))
	program := filepath.Join(home, "tests")
	raw, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, raw, 0o755))
	for dir := home; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	require.NoError(t, os.Chown(home, nobody, nobody))
	var join strings.Builder
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skipf("SKIPPED: cannot make a control group: %v", err)
		}
		t.Cleanup(func() {
			left, _ := filepath.Glob(filepath.Join(dir, "previewd-*"))
			for _, group := range append(left, dir) {
				if err := os.Remove(group); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Error(err)
				}
			}
		})
		for _, path := range []string{dir, filepath.Join(dir, "cgroup.procs"), filepath.Join(dir, "tasks")} {
			require.NoError(t, os.Chown(path, nobody, nobody))
		}
		join.WriteString("echo $$ > " + dir + "/cgroup.procs && ")
	}
	id := strconv.Itoa(nobody)
	cmd := exec.Command("sh", "-c", join.String()+"exec "+setpriv+" --reuid "+id+" --regid "+id+" --clear-groups "+program+" -test.v -test.parallel 4")
	cmd.Dir, cmd.Env = home, []string{"HOME=" + home, "TMPDIR=" + home, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestHostIsHidden")
	require.Contains(t, string(out), "--- PASS: TestProbe")
}

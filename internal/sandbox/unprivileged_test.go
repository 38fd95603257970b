//go:build linux

package sandbox_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

const nobody = 65534

// All of this package's tests, by a user who may do nothing but use groups that
// were given to it, as a service manager does.
func TestUnprivileged(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED with -short: all of these tests again")
	}
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root can become somebody else")
	}
	home := t.TempDir()
	program := filepath.Join(home, "tests")
	raw, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, raw, 0o755))
	for dir := home; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	require.NoError(t, os.Chown(home, nobody, nobody))
	cmd := exec.Command(program, "-test.v", "-test.parallel", "4")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if dir := groupsV2(t); dir != "" {
		dir = filepath.Join(dir, "unprivileged-"+strconv.Itoa(os.Getpid()))
		giveGroup(t, dir, "cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
		group, err := os.Open(dir)
		require.NoError(t, err)
		defer group.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
		cmd.Args = append(cmd.Args, "-test.parallel", "2")
	} else {
		joinGroups(t, cmd)
	}
	cmd.Dir, cmd.Env = home, []string{"HOME=" + home, "TMPDIR=" + home, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	want := []string{"TestHostIsHidden", "TestProbe", "TestBounds"}
	if cmd.SysProcAttr.UseCgroupFD {
		want = append(want, "TestMemoryEndsTheWholeBox", "TestServersShareGroups", "TestLeftGroupsAreSwept")
	}
	for _, name := range want {
		require.Contains(t, string(out), "--- PASS: "+name+" ", "it must have run")
	}
	t.Logf("by user %d:\n%s", nobody, out)
}

// joinGroups has the command join groups of version 1 first, one for each
// controller.
func joinGroups(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
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
	var join strings.Builder
	for _, dir := range dirs {
		giveGroup(t, dir, "cgroup.procs", "tasks")
		join.WriteString("echo $$ > " + dir + "/cgroup.procs && ")
	}
	shell, err := exec.LookPath("sh")
	require.NoError(t, err)
	cmd.Path, cmd.Args = shell, []string{"sh", "-c", join.String() + `exec "$@"`, "sh", cmd.Args[0], "-test.v", "-test.parallel", "4"}
}

// giveGroup makes a control group that is nobody's, for the time of the test.
func giveGroup(t *testing.T, dir string, files ...string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("SKIPPED: cannot make a control group: %v", err)
	}
	t.Cleanup(func() {
		left, _ := filepath.Glob(filepath.Join(dir, "previewd*"))
		for _, group := range append(left, dir) {
			if err := os.Remove(group); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
	})
	require.NoError(t, os.Chown(dir, nobody, nobody))
	for _, file := range files {
		require.NoError(t, os.Chown(filepath.Join(dir, file), nobody, nobody))
	}
}

//go:build linux

package sandbox_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/sandbox"
)

// groupsV2 returns the folder of version 2 in which this process makes control
// groups, or "" where the machine has no such groups.
func groupsV2(t *testing.T) string {
	t.Helper()
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil || !strings.Contains(string(controllers), "memory") {
		return ""
	}
	open(t, config(t)).Close() // with the first box it looks for them
	raw, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	dir := filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(strings.TrimSpace(string(raw)), "0::"))
	return strings.TrimSuffix(dir, "/previewd")
}

func needGroupsV2(t *testing.T) (dir string) {
	t.Helper()
	if dir = groupsV2(t); dir == "" {
		t.Skip("SKIPPED: the control groups of this machine are not of version 2; go test -uml runs this on a kernel that has them")
	}
	return dir
}

// When memory runs out the whole box is gone, and not one process of a build that
// goes on without it.
func TestMemoryEndsTheWholeBox(t *testing.T) {
	cfg := config(t)
	group := needGroupsV2(t)
	cfg.Limits.Memory, cfg.Source = 256<<20, tarOf(t, nil)
	b := open(t, cfg)
	made, err := filepath.Glob(filepath.Join(group, "previewd-*"))
	require.NoError(t, err)
	require.Len(t, made, 1)
	for file, want := range map[string]string{
		"memory.max": "268435456", "memory.oom.group": "1", "pids.max": "256", "cpu.max": "200000 100000", "cpu.weight": "25",
	} {
		got, err := os.ReadFile(filepath.Join(made[0], file))
		require.NoError(t, err)
		require.Equal(t, want, strings.TrimSpace(string(got)), file)
	}
	end, out := run(t, b, sh(`node -e 'const a = []; for (;;) a.push(Buffer.alloc(8 << 20, 1))'; echo survived`))
	require.True(t, end.OutOfMemory)
	require.Equal(t, 128+9, end.Code)
	require.NotContains(t, out, "survived")
	require.Greater(t, b.Usage().Memory, int64(200<<20))
	require.Positive(t, b.Usage().CPU)
	b.Close()
	require.NoDirExists(t, made[0])
}

// A server finds where it can make groups, whoever is in its own with it.
func TestServersShareGroups(t *testing.T) {
	cfg := config(t)
	root := needGroupsV2(t)
	for name, c := range map[string]struct {
		arguments []string // of the server
		beside    bool     // somebody else's process is there
		moves     bool     // the server leaves the group to its boxes
	}{
		"Alone":        {arguments: []string{"start"}, moves: true},
		"WithChildren": {arguments: []string{"start", "child"}, moves: true},
		"BesideOthers": {arguments: []string{"start"}, beside: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(root, "server-"+name)
			require.NoError(t, os.Mkdir(dir, 0o755))
			defer func() {
				_ = os.Remove(filepath.Join(dir, "previewd"))
				require.NoError(t, os.Remove(dir), "nothing is left in it")
			}()
			group, err := os.Open(dir)
			require.NoError(t, err)
			defer group.Close()
			in := &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
			if c.beside {
				other := exec.Command("sleep", "300")
				other.SysProcAttr = in
				require.NoError(t, other.Start())
				defer func() {
					members, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
					require.NoError(t, err)
					require.Equal(t, strconv.Itoa(other.Process.Pid), strings.TrimSpace(string(members)), "it is where it was")
					_ = other.Process.Kill()
					_ = other.Wait()
				}()
			}
			server := exec.Command("/proc/self/exe", append([]string{roleOwner, cfg.Root}, c.arguments...)...)
			server.SysProcAttr = in
			out, err := server.CombinedOutput()
			require.NoError(t, err)
			require.Empty(t, string(out))
			_, err = os.Stat(filepath.Join(dir, "previewd"))
			require.Equal(t, c.moves, err == nil)
		})
	}
}

// What a server that was killed has left goes when the next starts, if it is old.
func TestLeftGroupsAreSwept(t *testing.T) {
	cfg := config(t)
	root := needGroupsV2(t)
	left, used := filepath.Join(root, "previewd-1-1-left"), filepath.Join(root, "previewd-1-2-used")
	holder := exec.Command("sleep", "300")
	for _, dir := range []string{left, used} {
		require.NoError(t, os.Mkdir(dir, 0o755))
	}
	group, err := os.Open(used)
	require.NoError(t, err)
	defer group.Close()
	holder.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	require.NoError(t, holder.Start())
	start := func() {
		t.Helper()
		out, err := exec.Command("/proc/self/exe", roleOwner, cfg.Root, "start").CombinedOutput()
		require.NoError(t, err)
		require.Empty(t, string(out))
	}
	start()
	require.DirExists(t, left, "somebody may be about to use it")
	old := time.Now().Add(-2 * time.Minute)
	for _, dir := range []string{left, used} {
		require.NoError(t, os.Chtimes(dir, old, old))
	}
	start()
	require.NoDirExists(t, left)
	require.DirExists(t, used)
	_ = holder.Process.Kill()
	_ = holder.Wait()
	require.NoError(t, os.Remove(used))
}

// Who may make no groups is told why there is no box.
func TestNoGroupsNoBox(t *testing.T) {
	cfg := config(t)
	needGroupsV2(t)
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can become somebody who may do nothing")
	}
	stranger := exec.Command("/proc/self/exe", roleOwner, cfg.Root, "start")
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	var out bytes.Buffer
	stranger.Stdout, stranger.Stderr = &out, &out
	_ = stranger.Run()
	require.Contains(t, out.String(), sandbox.ErrUnavailable.Error())
	require.Contains(t, out.String(), "control group")
}

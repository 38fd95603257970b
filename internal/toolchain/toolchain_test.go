//go:build linux

package toolchain_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/toolchain"
)

func needNode(t *testing.T) {
	t.Helper()
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("SKIPPED: %s is not on this machine, so that no toolchain can be made of it", name)
		}
	}
}

// prepare makes a toolchain in a folder with what a process that died has left.
func prepare(t *testing.T) (dir string, made *toolchain.Toolchain) {
	t.Helper()
	needNode(t)
	dir = filepath.Join(t.TempDir(), "toolchains")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "unfinished", "usr", "bin"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "unfinished", "usr", "bin", "node"), []byte("half"), 0o600))
	began := time.Now()
	made, err := toolchain.Prepare(t.Context(), dir)
	require.NoError(t, err)
	t.Logf("Node.js %s, npm %s, %d MB, made in %v", made.Node, made.NPM, sizeOf(t, made.Root)>>20, time.Since(began))
	return dir, made
}

func sizeOf(t *testing.T, root string) (bytes int64) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		bytes += info.Size()
		return err
	}))
	return bytes
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	dir, made := prepare(t)

	t.Run("AgainIsTheSame", func(t *testing.T) {
		t.Parallel()
		before, err := os.Stat(made.Root)
		require.NoError(t, err)
		require.Equal(t, made.Root, prepareAtOnce(t, dir).Root)
		after, err := os.Stat(made.Root)
		require.NoError(t, err)
		require.True(t, os.SameFile(before, after))
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		require.ElementsMatch(t, []string{made.Root, filepath.Join(dir, "lock"), filepath.Join(dir, "used")}, names, "leftovers are swept")
	})
	t.Run("HoldsCopiesOnly", func(t *testing.T) {
		t.Parallel()
		holdsCopiesOnly(t, made.Root)
	})
	t.Run("HasEtcAndMountPoints", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"proc", "dev", "tmp", "workspace", "home/build"} {
			entries, err := os.ReadDir(filepath.Join(made.Root, name))
			require.NoError(t, err)
			require.Empty(t, entries)
		}
		for _, name := range []string{"passwd", "group", "hosts", "resolv.conf", "nsswitch.conf"} {
			require.FileExists(t, filepath.Join(made.Root, "etc", name))
		}
	})
}

func holdsCopiesOnly(t *testing.T, root string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := entry.Info()
		require.NoError(t, err)
		status := info.Sys().(*syscall.Stat_t)
		require.EqualValues(t, os.Geteuid(), status.Uid, name)
		switch {
		case entry.IsDir():
			require.Equal(t, fs.ModeDir|0o755, info.Mode(), name)
		case entry.Type() == fs.ModeSymlink:
			end, err := filepath.EvalSymlinks(name)
			require.NoError(t, err)
			below, err := filepath.Rel(root, end)
			require.NoError(t, err)
			require.True(t, filepath.IsLocal(below), "%s leads to %s", name, end)
		default:
			require.Contains(t, []fs.FileMode{0o755, 0o644}, info.Mode(), name)
			require.EqualValues(t, 1, status.Nlink, "%s is shared", name)
			_, err := syscall.Getxattr(name, "security.capability", nil)
			require.Error(t, err, "%s has capabilities", name)
		}
		return nil
	}))
}

func TestPrepareAtOnce(t *testing.T) {
	t.Parallel()
	needNode(t)
	require.DirExists(t, prepareAtOnce(t, t.TempDir()).Root)
}

// prepareAtOnce returns what all of several calls have returned.
func prepareAtOnce(t *testing.T, dir string) *toolchain.Toolchain {
	t.Helper()
	var made [3]*toolchain.Toolchain
	var all sync.WaitGroup
	for i := range made {
		all.Go(func() {
			var err error
			made[i], err = toolchain.Prepare(t.Context(), dir)
			assert.NoError(t, err)
		})
	}
	all.Wait()
	require.NotNil(t, made[0])
	require.Equal(t, made[0].Root, made[1].Root)
	require.Equal(t, made[0].Root, made[2].Root)
	return made[0]
}

func TestPrepareCanceled(t *testing.T) {
	t.Parallel()
	needNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err := toolchain.Prepare(ctx, dir)
	require.ErrorIs(t, err, context.Canceled)
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Empty(t, names)
}

// What is missing is said with what to do. PATH is the process's: not parallel.
func TestPrepareWithoutNode(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := toolchain.Prepare(t.Context(), t.TempDir())
	require.EqualError(t, err, "cannot find Node.js on this machine: install it, e.g. apt-get install nodejs npm")
}

// A version manager's node is a script that starts the real one.
func TestPrepareWithScriptForNode(t *testing.T) {
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "node"), []byte("#!/bin/sh\nexec /opt/node\n"), 0o755))
	t.Setenv("PATH", bin)
	_, err := toolchain.Prepare(t.Context(), t.TempDir())
	require.ErrorContains(t, err, "put the folder of the program first in PATH")
}

// The programs run with nothing but the root, /proc, and an empty file for what
// reads /dev/null.
func TestProgramsRunInRoot(t *testing.T) {
	t.Parallel()
	_, made := prepare(t)
	require.NoError(t, os.WriteFile(filepath.Join(made.Root, "dev", "null"), nil, 0o600))
	for _, c := range []struct{ script, says string }{
		{"node --version", "v" + made.Node},
		{"npm --version", made.NPM},
		{"npx --version", made.NPM},
		{"ls / | sort | head -3", "bin\ndev\netc"},
		{"env true && echo yes", "yes"},
		{"echo a-b | sed s/a/b/ | tr b c | awk -F- '{print $1 $2}'", "cc"},
		{"echo a | gzip | gunzip", "a"},
		{"mkdir -p /tmp/a/b && find /tmp/a -type d | xargs -n1 basename", "a\nb"},
		{"tar -cf /tmp/a.tar -C /tmp a && tar -tf /tmp/a.tar | wc -l", "2"},
		{"node -e 'fetch; import(\"node:dns\").then(d => d.lookup(\"localhost\", 4, (e, a) => console.log(e || a)))'", "127.0.0.1"},
	} {
		out, err := inRoot(t, made.Root, c.script).CombinedOutput()
		var exit *exec.ExitError
		if errors.Is(err, syscall.EPERM) || errors.As(err, &exit) && exit.ExitCode() == refused {
			t.Skipf("SKIPPED: this machine refuses namespaces, so that nothing was run in the root: %v %s", err, out)
		}
		require.NoError(t, err, "%s: %s", c.script, out)
		require.Equal(t, c.says, strings.TrimSpace(string(out)), c.script)
	}
}

const (
	rootVariable = "PREVIEWD_TEST_ROOT"
	refused      = 77 // exit code
)

// TestMain is also what a child of inRoot begins with.
func TestMain(m *testing.M) {
	if root := os.Getenv(rootVariable); root != "" {
		fmt.Println(enter(root, os.Args[1:]))
		os.Exit(refused)
	}
	if dir := os.Getenv(shelfVariable); dir != "" {
		fmt.Println(dieOnShelf(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// inRoot runs a script in namespaces of its own, which need no rights.
func inRoot(t *testing.T, root, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "sh", "-c", script)
	cmd.Env = []string{rootVariable + "=" + root}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	return cmd
}

// enter returns only when it fails.
func enter(root string, args []string) error {
	if err := syscall.Mount("proc", filepath.Join(root, "proc"), "proc", 0, ""); err != nil {
		return fmt.Errorf("cannot mount proc: %w", err)
	}
	if err := syscall.Chroot(root); err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return syscall.Exec("/bin/sh", args, []string{"PATH=/usr/bin", "HOME=/tmp"})
}

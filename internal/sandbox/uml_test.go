//go:build linux

package sandbox_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

var uml = flag.Bool("uml", false, "whether TestOnControlGroupsV2 boots user-mode Linux and runs this package's tests there")

const (
	roleGuest = "first-process-of-a-guest" // of a test's child
	guestTemp = "/run"                     // in the guest: a folder that the host has too
	guestOut  = "/mnt"                     // where the guest sees the folder of the host that takes its results
)

// All of this package's tests on a kernel that has control groups of version 2,
// whatever the machine has: by root in a group of its own, and by a user whom one
// was given to. The kernel is a program, user-mode Linux, and its root file system
// is the machine's, read-only.
func TestOnControlGroupsV2(t *testing.T) {
	if !*uml {
		t.Skip("SKIPPED without -uml: it boots another kernel, for minutes")
	}
	kernel, modules := umlKernel(t)
	out := t.TempDir()
	program := filepath.Join(t.TempDir(), "tests")
	compile := exec.Command("go", "test", "-c", "-o", program, ".")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	text, err := compile.CombinedOutput()
	require.NoError(t, err, "%s", text)
	here, err := os.Getwd()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	guest := exec.CommandContext(ctx, kernel, "mem=2G", "rootfstype=hostfs", "rootflags=/", "ro", "uml_dir="+out+"/", "con=null", "con0=null,fd:1", "quiet",
		"init="+program, "--", roleGuest, out, here, overlayModule(t, modules))
	guest.Env = []string{"TMPDIR=" + roomFor(2<<30), "HOME=" + out} // its memory is a file there
	guest.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	guest.Cancel = func() error { return syscall.Kill(-guest.Process.Pid, syscall.SIGKILL) }
	// A file, for nobody to wait for a helper of the kernel that has outlived it.
	screen, err := os.Create(filepath.Join(out, "console"))
	require.NoError(t, err)
	defer screen.Close()
	guest.Stdout, guest.Stderr = screen, screen
	began := time.Now()
	err = guest.Run()
	_ = guest.Cancel()
	console, _ := os.ReadFile(screen.Name())
	said, _ := os.ReadFile(filepath.Join(out, "result"))
	require.NoError(t, err, "%s\n%s", console, said)
	t.Logf("%s\n%s", said, time.Since(began).Round(time.Second))
	require.Regexp(t, `(?m)^exit status 0$`, string(said), "%s", console)
	require.NotContains(t, string(said), "--- FAIL")
	for _, name := range []string{
		"TestProbe", "TestHostIsHidden", "TestBounds/Memory", "TestBounds/MemoryOfMany", "TestBounds/Processes", "TestBounds/ForkBomb", "TestBounds/Disk",
		"TestBounds/CPU", "TestModulesAreShared", "TestSystemCallsAreFiltered", "TestBoxDiesWithItsOwner", "TestStartsDoNotSweepEachOther", "TestMemoryEndsTheWholeBox", "TestServersShareGroups",
		"TestServersShareGroups/Alone", "TestServersShareGroups/WithChildren", "TestServersShareGroups/BesideOthers", "TestLeftGroupsAreSwept", "TestNoGroupsNoBox", "TestUnprivileged",
	} {
		require.Regexp(t, `(?m)^ *--- PASS: `+regexp.QuoteMeta(name)+` `, string(said), "it must have run")
	}
}

// roomFor returns the folder in memory if so many bytes fit in, else one on the disk.
func roomFor(size uint64) string {
	const memory = "/dev/shm"
	var stat unix.Statfs_t
	if unix.Statfs(memory, &stat) == nil && stat.Bavail*uint64(stat.Bsize) >= size {
		return memory
	}
	return os.TempDir()
}

// umlKernel finds the kernel and its modules, or has the package manager fetch
// them; nothing is installed.
func umlKernel(t *testing.T) (kernel, modules string) {
	t.Helper()
	if path, err := exec.LookPath("linux.uml"); err == nil {
		return path, "/usr/lib/uml/modules"
	}
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	dir := filepath.Join(cache, "previewd-tests", "uml")
	kernel, modules = filepath.Join(dir, "usr", "bin", "linux.uml"), filepath.Join(dir, "usr", "lib", "uml", "modules")
	if _, err := os.Stat(kernel); err == nil {
		return kernel, modules
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("SKIPPED: user-mode Linux is for x86-64")
	}
	require.NoError(t, os.MkdirAll(dir, 0o755))
	fetch := exec.Command("sh", "-c", "apt-get download user-mode-linux && dpkg -x user-mode-linux_*.deb . && rm user-mode-linux_*.deb")
	fetch.Dir = dir
	if text, err := fetch.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: cannot fetch user-mode Linux (apt-get install user-mode-linux): %s", text)
	}
	return kernel, modules
}

// isUML reports whether this runs on such a kernel.
func isUML() bool {
	raw, _ := os.ReadFile("/proc/cpuinfo")
	return strings.Contains(string(raw), "User Mode Linux")
}

func overlayModule(t *testing.T, modules string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(modules, "*", "kernel", "fs", "overlayfs", "overlay.ko"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	return found[0]
}

// runGuest is the whole life of the guest: what it does goes to the file result in
// the folder out of the host.
func runGuest(out, dir, module string) {
	defer func() { _ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) }()
	result, err := layOutGuest(out, module)
	if err != nil {
		fmt.Println(err) // to the console
		return
	}
	defer result.Close()
	fmt.Fprintf(result, "%s\n", kernelVersion())
	group, err := os.Open("/sys/fs/cgroup/service")
	if err != nil {
		fmt.Fprintln(result, err)
		return
	}
	tests := exec.Command("/proc/self/exe", "-test.v", "-test.parallel", "2", "-test.timeout", "18m")
	tests.Dir, tests.Stdout, tests.Stderr = dir, result, result
	tests.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "TMPDIR=" + guestTemp, "HOME=" + guestTemp}
	tests.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := tests.Run(); err != nil {
		fmt.Fprintln(result, err)
		return
	}
	fmt.Fprintln(result, "exit status 0")
}

// layOutGuest mounts what the kernel has not mounted.
func layOutGuest(out, module string) (result *os.File, err error) {
	for _, m := range []struct{ kind, at, data string }{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"cgroup2", "/sys/fs/cgroup", ""}, {"tmpfs", guestTemp, "mode=1777,size=80%"}, {"hostfs", guestOut, out},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, m.data); err != nil {
			return nil, fmt.Errorf("cannot mount %s: %w", m.at, err)
		}
	}
	if err := os.MkdirAll("/sys/fs/cgroup/service", 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory +pids +cpu"), 0o600); err != nil {
		return nil, err
	}
	overlay, err := os.Open(module)
	if err != nil {
		return nil, err
	}
	defer overlay.Close()
	if err := unix.FinitModule(int(overlay.Fd()), "", 0); err != nil {
		return nil, fmt.Errorf("cannot load the overlay file system: %w", err)
	}
	return os.Create(filepath.Join(guestOut, "result"))
}

func kernelVersion() string {
	raw, _ := os.ReadFile("/proc/version")
	controllers, _ := os.ReadFile("/sys/fs/cgroup/service/cgroup.controllers")
	return strings.TrimSpace(string(raw)) + "; control groups of version 2: " + strings.TrimSpace(string(controllers))
}

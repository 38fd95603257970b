package main_test

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/sandbox"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/toolchain"
)

// BenchmarkSandboxBesideBare runs a tree's own `npm run build`, its packages being
// there, in a sandbox and as an unprivileged process on the disk, in turns: what the
// sandbox costs. It says how long a sandbox takes to start too. On a machine with
// other things to do a sandbox gets less of the CPU than others, on purpose: then
// run this in a control group of its own, in which neither has others beside it.
func BenchmarkSandboxBesideBare(b *testing.B) {
	_, pack := fetchStarts(b)
	tools, err := toolchain.Prepare(b.Context(), filepath.Join(b.TempDir(), "toolchains"))
	if err != nil {
		b.Skipf("SKIPPED: no toolchain: %v", err)
	}
	b.Run("vite", func(b *testing.B) {
		dir := b.TempDir()
		start{template: "react-ts"}.lay(b, pack, dir)
		benchmarkBeside(b, tools.Root, dir)
	})
	b.Run("shadcn", func(b *testing.B) { // about 240 packages
		dir := b.TempDir()
		require.NoError(b, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "shadcn"))))
		benchmarkBeside(b, tools.Root, dir)
	})
}

func benchmarkBeside(b *testing.B, root, dir string) {
	boxed := sandbox.BoxConfig{Executable: testkit.Program(b), Root: root, Limits: sandbox.DefaultLimits(), Modules: filepath.Join(b.TempDir(), "node_modules")}
	require.NoError(b, os.Chmod(filepath.Dir(boxed.Executable), 0o755)) // for the user of the sandbox to get to it
	source := packTree(b, dir)
	out, err := npmIn(dir, "npm", "install", "--no-audit", "--no-fund")
	require.NoError(b, err, "%s", out)
	packages, err := filepath.Glob(filepath.Join(dir, "node_modules", "*"))
	require.NoError(b, err)
	out, err = npmIn(dir, "cp", "-a", "node_modules", boxed.Modules)
	require.NoError(b, err, "%s", out)
	giveTo(b, boxed.Modules, sandbox.DefaultUID)
	bare := bareBuild(b, dir)
	build := func() (started, took, cpu time.Duration) {
		boxed.Source = bytes.NewReader(source)
		began := time.Now()
		box, err := sandbox.Open(b.Context(), boxed)
		require.NoError(b, err)
		defer box.Close()
		started = time.Since(began)
		var said bytes.Buffer
		before := box.Usage().CPU
		began = time.Now()
		end, err := box.Run(b.Context(), sandbox.Task{Argv: []string{"npm", "run", "build"}, Output: &said, Env: []string{
			"PATH=/workspace/node_modules/.bin:/usr/local/bin:/usr/bin:/bin", "HOME=" + sandbox.Home, "TMPDIR=" + sandbox.TempDir, "CI=true", "NO_UPDATE_NOTIFIER=1",
		}})
		require.NoError(b, err)
		require.Zero(b, end.Code, said.String())
		return started, time.Since(began), box.Usage().CPU - before
	}
	build() // both once, for the disk's cache to be as warm
	bare()
	var starts, inside, outside, ratios, insideCPU, outsideCPU []float64
	for i := 0; b.Loop(); i++ {
		var alone, aloneCPU time.Duration
		if i%2 == 0 {
			alone, aloneCPU = bare()
		}
		started, took, cpu := build()
		if i%2 == 1 {
			alone, aloneCPU = bare()
		}
		starts, inside, outside = append(starts, float64(started.Milliseconds())), append(inside, took.Seconds()), append(outside, alone.Seconds())
		insideCPU, outsideCPU = append(insideCPU, cpu.Seconds()), append(outsideCPU, aloneCPU.Seconds())
		ratios = append(ratios, took.Seconds()/alone.Seconds())
	}
	b.ReportMetric(medianOf(starts), "ms/start")
	b.ReportMetric(medianOf(inside), "s/sandbox")
	b.ReportMetric(medianOf(outside), "s/bare")
	b.ReportMetric(medianOf(insideCPU), "CPU-s/sandbox")
	b.ReportMetric(medianOf(outsideCPU), "CPU-s/bare")
	b.ReportMetric(medianOf(ratios), "sandbox/bare")
	b.Logf("%d folders of packages; sandbox %.2f s, bare %.2f s", len(packages), inside, outside)
}

// bareBuild returns a build of the folder by a user who owns it and nothing else.
func bareBuild(b *testing.B, dir string) func() (took, cpu time.Duration) {
	const nobody = 65534
	home := b.TempDir()
	giveTo(b, dir, nobody)
	giveTo(b, home, nobody)
	return func() (took, cpu time.Duration) {
		// What a build leaves for the next: in a sandbox there is none.
		for _, left := range []string{"dist", "node_modules/.tmp", "node_modules/.vite", "node_modules/.cache"} {
			require.NoError(b, os.RemoveAll(filepath.Join(dir, left)))
		}
		build := exec.Command("npm", "run", "build")
		build.Dir = dir
		build.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + home, "CI=true", "NO_UPDATE_NOTIFIER=1"}
		if os.Geteuid() == 0 {
			build.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
		began := time.Now()
		out, err := build.CombinedOutput()
		require.NoError(b, err, "%s", out)
		return time.Since(began), build.ProcessState.UserTime() + build.ProcessState.SystemTime()
	}
}

// giveTo makes a folder somebody's who can get to it, if this process may.
func giveTo(tb testing.TB, dir string, uid int) {
	tb.Helper()
	if os.Geteuid() != 0 {
		return
	}
	require.NoError(tb, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	}))
	for above := filepath.Dir(dir); above != filepath.Clean(os.TempDir()) && above != "/"; above = filepath.Dir(above) {
		require.NoError(tb, os.Chmod(above, 0o755))
	}
}

func packTree(tb testing.TB, dir string) []byte {
	tb.Helper()
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for name, text := range filesOf(tb, dir) {
		require.NoError(tb, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}))
		_, err := w.Write(text)
		require.NoError(tb, err)
	}
	require.NoError(tb, w.Close())
	return packed.Bytes()
}

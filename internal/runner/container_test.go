//go:build linux

package runner

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/container"
	"github.com/previewd/previewd/internal/sandbox"
)

// Whole builds in containers: packages are installed once and kept, install
// scripts run, a site is made and read, and what goes wrong has its code.
func TestContainerBuild(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{previewd.RunnerDocker, previewd.RunnerGVisor} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			if testing.Short() {
				t.Skip("SKIPPED with -short: make race runs it")
			}
			setupNPM(t) // skips where nothing can be built
			b := setupCaches(t, inContainers(t, kind))
			want := map[string]string{previewd.RunnerDocker: sandbox.LevelNamespace, previewd.RunnerGVisor: sandbox.LevelGVisor}[kind]
			tree := b.tree("cat node_modules/native/made.txt && maker", "maker", "native")
			for i, cache := range []string{"miss", "hit"} {
				began := time.Now()
				o := b.build(tree)
				require.Equal(t, map[string]string{"index.html": "<h1>tea!</h1>"}, b.site(o), b.text())
				require.Equal(t, []string{kind, want, cache}, []string{o.Runner, o.Isolation, o.Cache})
				t.Logf("build %d: %d ms", i+1, time.Since(began).Milliseconds())
			}
			require.Contains(t, b.text(), "runner: "+kind+", because")
			// A build cannot change what the next one reads.
			for script, text := range map[string]string{`echo "module.exports = 'POISON'" > node_modules/maker/say.js; maker`: "POISON", "maker": "!"} {
				for range 2 {
					tree := b.tree("sh build.sh", "maker")
					tree["build.sh"] = script
					require.Equal(t, "<h1>tea"+text+"</h1>", b.site(b.build(tree))["index.html"], b.text())
				}
			}
			// What tools remember is there in the project's next build, and in no other's.
			for _, next := range [][2]string{{"one", "1"}, {"one", "2"}, {"another", "1"}, {"one", "3"}} {
				require.Equal(t, next[1], b.counted(b.tree(countBuilds, "maker"), next[0]), b.text())
			}
			for build, code := range map[string]string{
				"mkdir dist && echo x > dist/index.html && ln -s /etc/passwd dist/passwd": previewd.FailUnsafePath,
				"exit 3": previewd.FailBuild,
				"node -e 'const a = []; for (;;) a.push(Buffer.alloc(8 << 20, 1))'": previewd.FailOOM,
			} {
				o := b.build(b.tree(build, "maker"))
				require.Equal(t, previewd.OutcomeFailed, o.Kind, b.text())
				require.Equal(t, code, o.Failure.Code, b.text())
				require.Equal(t, kind, o.Runner)
			}
		})
	}
}

// inContainers has builds run in containers of a kind, or skips the test.
func inContainers(t *testing.T, kind string) func(*Sandbox) {
	t.Helper()
	cfg := container.Config{Kind: kind, Owner: t.Name()}
	if kind == previewd.RunnerDocker {
		cfg.Socket = startDocker(t)
	} else {
		var err error
		cfg.Runsc, err = filepath.Abs("../../bin/runsc")
		require.NoError(t, err)
		if _, err := os.Stat(cfg.Runsc); err != nil {
			if cfg.Runsc, err = exec.LookPath("runsc"); err != nil {
				t.Skip("SKIPPED: NO BUILD IN GVISOR IS TESTED: runsc is neither in bin/ nor in the PATH (.ci/run installs it)")
			}
		}
	}
	agent := filepath.Join(t.TempDir(), "agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", agent, "../container/testdata/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	backend, err := container.New(cfg)
	require.NoError(t, err)
	limits := sandbox.DefaultLimits()
	limits.Memory = 400 << 20
	report := backend.Probe(t.Context(), sandbox.BoxConfig{Executable: agent, Root: shared.tools.Root, Limits: limits})
	require.True(t, report.OK(), "%s %s", report.Reason, report.Fix)
	return func(s *Sandbox) {
		s.Runner, s.Level, s.Limits = kind, report.Level, limits
		s.Open = func(ctx context.Context, cfg sandbox.BoxConfig) (Box, error) {
			cfg.Executable = agent
			b, err := backend.Open(ctx, cfg)
			if err != nil {
				return nil, err
			}
			return b, nil
		}
	}
}

// startDocker starts a Docker Engine of the test's own and returns its socket.
func startDocker(t *testing.T) (socket string) {
	t.Helper()
	program, err := exec.LookPath("dockerd")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("SKIPPED: NO BUILD IN DOCKER IS TESTED: dockerd is not installed (Debian: docker.io), or this is not root")
	}
	dir, err := os.MkdirTemp("", "docker-test-")
	require.NoError(t, err)
	socket = filepath.Join(dir, "docker.sock")
	log := &sandbox.HeadBuffer{Limit: 64 << 10}
	cmd := exec.Command(program, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"-H", "unix://"+socket, "--iptables=false", "--bridge=none")
	cmd.Stdout, cmd.Stderr = io.Discard, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		os.RemoveAll(dir)
	})
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return socket
		}
		require.True(t, time.Now().Before(deadline), "dockerd does not start")
	}
}

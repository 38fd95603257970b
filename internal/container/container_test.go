//go:build linux

package container_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/boxtest"
	"github.com/previewd/previewd/internal/container"
	"github.com/previewd/previewd/internal/sandbox"
	"github.com/previewd/previewd/internal/toolchain"
)

// machine is what tests share: the toolchain, the first process, and what runs
// containers.
var machine struct {
	sync.Once
	dir    string
	tools  *toolchain.Toolchain
	agent  string
	runsc  string // "" when it is not there
	docker string // its socket
	engine *exec.Cmd
	none   string // why there is no engine
	err    error
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == roleOwner {
		ownBox(os.Args[2:])
	}
	if len(os.Args) > 1 && os.Args[1] == sandbox.InitArg {
		os.Exit(sandbox.Init())
	}
	code := m.Run()
	if machine.engine != nil {
		_ = machine.engine.Process.Signal(os.Interrupt) // it ends its containers
		_ = machine.engine.Wait()
	}
	if machine.dir != "" {
		os.RemoveAll(machine.dir)
	}
	os.Exit(code)
}

func prepareMachine(ctx context.Context) (err error) {
	if machine.dir, err = os.MkdirTemp("", "container-test-"); err != nil {
		return err
	}
	if machine.tools, err = toolchain.Prepare(ctx, filepath.Join(machine.dir, "toolchains")); err != nil {
		return err
	}
	machine.agent = filepath.Join(machine.dir, "agent")
	build := exec.CommandContext(ctx, "go", "build", "-o", machine.agent, "./testdata/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build the first process: %w: %s", err, out)
	}
	machine.runsc = findRunsc()
	if machine.none = "they take long, so not with -short"; !testing.Short() {
		machine.docker, machine.none = startEngine()
	}
	return nil
}

// findRunsc looks where .ci/run puts it, and in the PATH.
func findRunsc() string {
	if path, err := filepath.Abs("../../bin/runsc"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, _ := exec.LookPath("runsc")
	return path
}

// startEngine starts a Docker Engine of the tests' own, or says why there is none.
func startEngine() (socket, none string) {
	program, err := exec.LookPath("dockerd")
	switch {
	case err != nil:
		return "", "dockerd is not installed (Debian: docker.io)"
	case os.Geteuid() != 0:
		return "", "only root can start dockerd"
	}
	dir := filepath.Join(machine.dir, "docker")
	socket = filepath.Join(machine.dir, "docker.sock")
	args := []string{
		"--data-root", dir, "--exec-root", filepath.Join(machine.dir, "exec"), "--pidfile", filepath.Join(machine.dir, "pid"),
		"-H", "unix://" + socket, "--iptables=false", "--bridge=none",
	}
	if machine.runsc != "" {
		wrapper := filepath.Join(machine.dir, "runsc")
		script := "#!/bin/sh\nexec " + machine.runsc + " --network=none --platform=systrap --host-uds=open --gofer-network-namespace=new --host-settings=ignore \"$@\"\n"
		if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
			return "", err.Error()
		}
		args = append(args, "--add-runtime", "runsc="+wrapper)
	}
	log := &sandbox.HeadBuffer{Limit: 64 << 10}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", err.Error()
	}
	machine.engine = cmd
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return socket, ""
		}
	}
	return "", "dockerd does not start: " + log.String()
}

// ways returns all ways to make boxes. The last is the others' parts in another order.
func ways() []string {
	if testing.Short() {
		return []string{"docker", "gvisor"}
	}
	return []string{"docker", "gvisor", "docker-runsc"}
}

// bench is one way to make boxes.
type bench struct {
	*container.Backend
	name string
	root string
}

// each runs a test for each way that this machine has, and says loudly of the others
// why it does not.
func each(t *testing.T, test func(t *testing.T, b *bench)) {
	t.Helper()
	for _, name := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, setup(t, name))
		})
	}
}

func setup(t testing.TB, name string) *bench {
	t.Helper()
	if testing.Short() && !strings.HasPrefix(t.Name(), "TestProbe") {
		t.Skip("SKIPPED with -short: make race runs it")
	}
	machine.Do(func() { machine.err = prepareMachine(context.Background()) })
	if errors.Is(machine.err, toolchain.ErrMissing) {
		t.Skipf("SKIPPED: no toolchain: %v", machine.err)
	}
	require.NoError(t, machine.err)
	cfg := container.Config{Kind: name, Socket: machine.docker, Runsc: machine.runsc, Owner: t.Name()}
	if name == "docker-runsc" {
		cfg.Kind, cfg.Runtime = container.Docker, "runsc"
	}
	if cfg.Kind == container.Docker && machine.none != "" {
		t.Skipf("SKIPPED: NO CONTAINERS OF DOCKER ARE TESTED: %s", machine.none)
	}
	if name != container.Docker && machine.runsc == "" {
		t.Skip("SKIPPED: NO CONTAINERS OF GVISOR ARE TESTED: runsc is neither in bin/ nor in the PATH (.ci/run installs it)")
	}
	backend, err := container.New(cfg)
	require.NoError(t, err)
	return &bench{backend, name, machine.tools.Root}
}

func (b *bench) config(t testing.TB) sandbox.BoxConfig {
	t.Helper()
	return sandbox.BoxConfig{Executable: machine.agent, Root: b.root, Limits: sandbox.DefaultLimits(), Source: tarOf(t, nil), WorkDir: t.TempDir()}
}

func (b *bench) open(t testing.TB, change ...func(*sandbox.BoxConfig)) *container.Box {
	t.Helper()
	cfg := b.config(t)
	for _, c := range change {
		c(&cfg)
	}
	box, err := b.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(box.Close)
	return box
}

// Short names of what tests of every kind of box share.
var (
	env, tarOf    = boxtest.Env, boxtest.Tar
	sh, node, run = boxtest.Sh, boxtest.Node, boxtest.Run
)

func TestProbe(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		cfg := b.config(t)
		r := b.Probe(t.Context(), cfg)
		for _, c := range r.Checks {
			t.Logf("%v %s (%s)", c.OK, c.Name, c.Got)
		}
		require.True(t, r.OK(), "%s %s", r.Reason, r.Fix)
		require.Greater(t, len(r.Checks), 15)
		require.Equal(t, map[string]string{"docker": "namespace", "gvisor": "gvisor", "docker-runsc": "gvisor"}[b.name], r.Level)
		t.Logf("a box starts in %s", r.Start)
	})
}

func TestTasksRunOneAfterTheOther(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		box := b.open(t, func(c *sandbox.BoxConfig) { c.Source = tarOf(t, map[string]string{"a.txt": "a", "deep/er/b.txt": "b"}) })
		end, out := run(t, box, sh(`cat a.txt deep/er/b.txt; echo c > c.txt; (sleep 300 &) ; exit 3`))
		require.Equal(t, 3, end.Code)
		require.Equal(t, "ab", out)
		end, out = run(t, box, sh(`cat c.txt; cat /proc/[0-9]*/comm | grep -c sleep; kill -9 $$`))
		require.Equal(t, 128+9, end.Code)
		require.Equal(t, "c\n0\n", out, "nobody is left of the task before")
		end, out = run(t, box, []string{"nothing-of-this-name"})
		require.Equal(t, 127, end.Code)
		require.Contains(t, out, "not found")
		require.NoError(t, box.Unpack(t.Context(), tarOf(t, map[string]string{"later.txt": "later"})))
		_, out = run(t, box, sh(`cat later.txt; echo to-stdout > /dev/stdout`))
		require.Equal(t, "laterto-stdout\n", out)
		root, err := box.Output(t.Context(), "deep")
		require.NoError(t, err)
		defer root.Close()
		text, err := root.ReadFile("er/b.txt")
		require.NoError(t, err)
		require.Equal(t, "b", string(text))
		files, err := box.Files(t.Context())
		require.NoError(t, err)
		defer files.Close()
		_, err = files.Stat("later.txt")
		require.NoError(t, err, "what it has left is still there")
		require.Positive(t, box.Usage().CPU)
		require.Positive(t, box.Usage().Memory)
		_, err = box.Run(t.Context(), sandbox.Task{Argv: sh("true"), Env: env, Output: io.Discard})
		require.Error(t, err, "it has ended")
	})
}

// What goes wrong on this side ends the box: no later task gets another's answer.
func TestErrorOnTheHostsSideEndsTheBox(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		for name, fail := range map[string]func(box *container.Box) error{
			"Unpack": func(box *container.Box) error {
				return box.Unpack(t.Context(), iotest.ErrReader(errors.New("unreadable")))
			},
			"Run": func(box *container.Box) error {
				_, err := box.Run(t.Context(), sandbox.Task{Argv: sh("echo hi"), Env: env, Output: fullWriter{}})
				return err
			},
		} {
			box := b.open(t)
			require.Error(t, fail(box), name)
			_, err := box.Run(t.Context(), sandbox.Task{Argv: sh("exit 3"), Env: env, Output: io.Discard})
			require.Error(t, err, name)
		}
	})
}

type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

// A workspace is fetched for as long as its build goes on, and no longer.
func TestFetchingEndsWithItsBuild(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		dir := t.TempDir()
		box := b.open(t, func(c *sandbox.BoxConfig) { c.WorkDir = dir })
		end, out := run(t, box, sh(`for i in 1 2; do head -c 200000000 /dev/zero > big-$i; done`))
		require.Zero(t, end.Code, out)
		stopped := errors.New("stopped")
		ctx, stop := context.WithCancelCause(t.Context())
		fetched := make(chan error, 1)
		go func() {
			_, err := box.Output(ctx, ".")
			fetched <- err
		}()
		require.Eventually(t, func() bool {
			came, err := filepath.Glob(filepath.Join(dir, "*", "tree-1", "big-*"))
			return err == nil && len(came) > 0
		}, time.Minute, time.Millisecond, "no file comes")
		stop(stopped)
		require.ErrorIs(t, <-fetched, stopped)
		left, err := filepath.Glob(filepath.Join(dir, "*", "tree-1"))
		require.NoError(t, err)
		require.Empty(t, left, "what has come is gone")
	})
}

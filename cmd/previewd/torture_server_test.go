package main_test

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/client"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// The torture tests run real servers and break them. By default each does a
// little of it; make torture does all.
var (
	seed      = flag.Uint64("seed", 0, "seed of everything that is random in the torture tests; 0 makes one")
	kills     = flag.Int("kills", 4, "how often TestKilledAtEachPoint kills a server, per engine")
	crashes   = flag.Int("crashes", 1, "how often TestKilledAtRandom kills a server, per engine")
	stopped   = flag.Int("stopped", 1, "how many builds TestStoppedRunnerWritesNothing takes from a stopped process, per engine")
	midBuilds = flag.Int("mid-builds", 1, "how often TestKilledRunnerLeavesNothing kills a server in the middle of a build, per engine")
	drops     = flag.Int("drops", 4, "how many replies to COMMIT TestDroppedCommitReply drops")
	mutate    = flag.String("mutate", "", "a mechanism of internal/fault to switch off in the servers: the torture must notice")
	storms    = flag.Int("storms", 1, "how many rounds of each storm TestStorm raises")
)

// torture is one scenario on one engine: servers that share a database, and
// clients that write down what they are told.
type torture struct {
	*testing.T
	random *rand.Rand // of the scenario; clients have their own
	seed   uint64
	store  store.Config
	shared string // folder of artifacts
	nodes  []*node
	ledger ledger
	began  time.Time

	postgres map[string]*sql.DB // by URL: see database
}

// onEachEngine runs a scenario on both engines, and prints how to run it again.
func onEachEngine(t *testing.T, scenario func(*torture)) {
	t.Helper()
	t.Parallel()
	testkit.EachConfig(t, func(t *testing.T, cfg store.Config) { scenario(newTorture(t, cfg)) })
}

func newTorture(t *testing.T, cfg store.Config) *torture {
	t.Helper()
	c := &torture{T: t, seed: *seed, store: cfg, shared: filepath.Join(t.TempDir(), "artifacts"), began: time.Now()}
	if c.seed == 0 {
		c.seed = rand.Uint64()
	}
	c.random = rand.New(rand.NewPCG(c.seed, 1))
	t.Logf("replay with: go test ./cmd/previewd -run '^%s$' %s -seed %d -count 1 -v", t.Name(), strings.Join(givenFlags(), " "), c.seed)
	return c
}

// givenFlags returns the scenarios' flags that the command line has, without the
// seed.
func givenFlags() (given []string) {
	flag.Visit(func(f *flag.Flag) {
		if f.Name != "seed" && !strings.HasPrefix(f.Name, "test.") {
			given = append(given, fmt.Sprintf("-%s %s", f.Name, f.Value))
		}
	})
	return given
}

func (c *torture) onPostgres() bool { return c.store.URL != "" }

// Node is one server process: its data folder is its own and outlives it.
type node struct {
	*torture
	program  string
	addr     string
	data     string
	database string   // URL, when it is not the scenario's own
	flags    []string // besides those that all have
	env      []string // besides what all have
	server   *exec.Cmd
	died     chan struct{} // closed when the process has ended
}

// addNode makes a server that is not running yet. The tags are those that its
// program is built with.
func (c *torture) addNode(flags []string, tags ...string) *node {
	c.Helper()
	n := c.addServer(flags, tags...)
	if c.store.Path != "" {
		c.store.Path = filepath.Join(n.data, "previewd.db")
	}
	return n
}

// addServer is addNode for a server whose database is not the scenario's.
func (c *torture) addServer(flags []string, tags ...string) *node {
	c.Helper()
	if *mutate != "" {
		tags = append(tags, "mutate")
	}
	n := &node{
		torture: c, program: testkit.Program(c, tags...), addr: freeAddr(c), data: filepath.Join(c.TempDir(), "data"), flags: flags,
		died: make(chan struct{}),
	}
	close(n.died)
	c.nodes = append(c.nodes, n)
	c.Cleanup(n.kill)
	return n
}

// run starts the process and returns at once; failpoints are for a program that
// is built with the tag.
func (n *node) run(failpoints string) {
	n.Helper()
	args := []string{"serve", "--addr", n.addr, "--data", n.data, "--artifacts", n.shared, "--log-level", "error"}
	switch {
	case n.database != "":
		args = append(args, "--database-url", n.database)
	case n.store.URL != "":
		args = append(args, "--database-url", n.store.URL)
	}
	server := exec.Command(n.program, append(args, n.flags...)...)
	server.Env = append([]string{"PREVIEWD_SERVICE_TOKEN=" + crashToken, "PREVIEWD_FAILPOINTS=" + failpoints, "PREVIEWD_MUTATE=" + *mutate}, n.env...)
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(n.data+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(n, err)
	server.Stderr = log
	died, started := make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread() // the server dies with the thread that started it: this one stays
		started <- server.Start()
		_ = server.Wait() // it is killed
		log.Close()
		close(died)
	}()
	require.NoError(n, <-started)
	n.server, n.died = server, died
}

// start runs the process and waits until it answers.
func (n *node) start(failpoints string) {
	n.Helper()
	n.run(failpoints)
	n.waitUntil("the server answers", 60*time.Second, func() bool {
		select {
		case <-n.died:
			n.Fatalf("the server has died at its start:\n%s", n.said())
		default:
		}
		return n.answers()
	})
}

// answers reports whether the server is ready.
func (n *node) answers() bool {
	answer, err := http.Get("http://" + n.addr + "/readyz")
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// said returns the end of the server's log.
func (n *node) said() string {
	raw, _ := os.ReadFile(n.data + ".log")
	return string(raw[max(len(raw)-4000, 0):])
}

// kill ends the process as kill -9 does and waits until it is gone.
func (n *node) kill() {
	if n.server == nil {
		return
	}
	_ = n.server.Process.Kill() // it may be dead already
	<-n.died
}

// waitDead waits until the process has died by itself.
func (n *node) waitDead(of string) {
	n.Helper()
	select {
	case <-n.died:
	case <-time.After(5 * time.Minute): // a machine may be busy
		n.Fatalf("nobody died of %s in five minutes: nothing leads to it any more (seed %d)\n%s", of, n.seed, n.said())
	}
}

func (n *node) signal(s syscall.Signal) {
	n.Helper()
	require.NoError(n, n.server.Process.Signal(s))
}

// runnerID returns the name under which the server's runner holds builds.
func (n *node) runnerID() string {
	n.Helper()
	raw, err := os.ReadFile(filepath.Join(n.data, "runner-id"))
	require.NoError(n, err)
	return strings.TrimSpace(string(raw))
}

// children returns the processes that the server has started for builds.
func (n *node) children() (pids []int) {
	n.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(n, err)
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid …; the name can hold anything.
		fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
		if fields[1] == strconv.Itoa(n.server.Process.Pid) && fields[0] != "Z" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// isAlive reports whether the process runs, as opposed to being dead or none.
func isAlive(pid int) bool {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	return fields[0] != "Z" && fields[0] != "X"
}

// waitUntil calls check until it returns true.
func (c *torture) waitUntil(what string, limit time.Duration, check func() bool) {
	c.Helper()
	for deadline := time.Now().Add(limit); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.Fatalf("waited more than %s until %s (seed %d)", limit, what, c.seed)
		}
	}
}

func freeAddr(tb testing.TB) string {
	tb.Helper()
	port, err := testkit.FreePort()
	require.NoError(tb, err)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

const crashToken = "crash-test-token-0123456789"

// startServer runs the real program until the test ends, and waits for it to answer.
func startServer(tb testing.TB, addr, data string, flags ...string) *exec.Cmd {
	tb.Helper()
	server := exec.Command(testkit.Program(tb), append([]string{"serve", "--addr", addr, "--data", data, "--log-level", "error"}, flags...)...)
	server.Env = []string{"PREVIEWD_SERVICE_TOKEN=" + crashToken, "PATH=" + os.Getenv("PATH")}
	server.Stderr = os.Stderr
	require.NoError(tb, server.Start())
	tb.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	testkit.Eventually(tb, "the server answers", func() bool {
		_, err := clientOf(tb, addr).ListTemplates(context.Background())
		return err == nil
	})
	return server
}

func clientOf(tb testing.TB, addr string) *client.Client {
	tb.Helper()
	server, err := client.New(client.Config{URL: "http://" + addr, Token: crashToken, Retries: -1})
	require.NoError(tb, err)
	return server
}

package main_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/client"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

var (
	kills = flag.Int("kills", 5, "how often TestKilledServerLosesNothing kills the server")
	seed  = flag.Uint64("seed", 0, "seed of the moments at which it does; 0 makes one")
)

// crashing is a real server that is killed again and again while clients
// create projects.
type crashing struct {
	t      *testing.T
	data   string
	addr   string
	server *exec.Cmd

	mu       sync.Mutex
	answered map[string]previewd.Preview // by idempotency key
	pending  sync.WaitGroup
}

const crashToken = "crash-test-token-0123456789"

// A server that is killed with -9 at any moment loses no answered create, makes
// none twice and leaves none stuck.
func TestKilledServerLosesNothing(t *testing.T) {
	t.Parallel()
	c := &crashing{t: t, data: filepath.Join(t.TempDir(), "data"), addr: freeAddr(t), answered: map[string]previewd.Preview{}}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("replay with: go test ./cmd/previewd -run KilledServer -kills %d -seed %d", *kills, *seed)
	moments := rand.New(rand.NewPCG(*seed, 1))
	ctx, stop := context.WithCancel(t.Context())
	c.start()
	c.pending.Go(func() { c.createForEver(ctx) })
	for range *kills {
		time.Sleep(50*time.Millisecond + time.Duration(moments.Int64N(int64(750*time.Millisecond))))
		require.NoError(t, c.server.Process.Kill())
		_ = c.server.Wait() // it was killed
		c.start()
	}
	stop()
	c.pending.Wait()
	c.check()
}

func freeAddr(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	defer l.Close()
	return l.Addr().String()
}

// startServer runs the real program until the test ends, and waits for it to answer.
func startServer(tb testing.TB, addr, data string, flags ...string) *exec.Cmd {
	tb.Helper()
	server := exec.Command(testkit.Program(tb), append([]string{"serve", "--addr", addr, "--data", data, "--log-level", "error"}, flags...)...)
	server.Env = []string{"PREVIEWD_SERVICE_TOKEN=" + crashToken}
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

func (c *crashing) start() {
	c.t.Helper()
	c.server = startServer(c.t, c.addr, c.data)
}

func (c *crashing) client() *client.Client { return clientOf(c.t, c.addr) }

// createForEver begins 20 creates a second. Each is repeated with its key until
// it is answered, as a client does that means it.
func (c *crashing) createForEver(ctx context.Context) {
	every := time.NewTicker(50 * time.Millisecond)
	defer every.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		<-every.C
		c.pending.Go(func() { c.create(fmt.Sprintf("crash-test-key-%06d", i), i) })
	}
}

func (c *crashing) create(key string, i int) {
	template := []string{"landing", "app", "site"}[i%3]
	req := previewd.CreatePreviewRequest{
		UserID: "crash", Prompt: key, IdempotencyKey: key, Metadata: map[string]any{"template": template},
	}
	for {
		preview, err := c.client().CreatePreview(context.Background(), req)
		if err == nil {
			c.mu.Lock()
			c.answered[key] = *preview
			c.mu.Unlock()
			return
		}
		if code := previewd.ErrorCode(err); code != previewd.CodeUnavailable && code != previewd.CodeInternal {
			c.t.Errorf("create %s: %v", key, err)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// check waits for quiet and compares what clients were told with what is there.
func (c *crashing) check() {
	c.t.Helper()
	server := c.client()
	attempts := 0
	for key, told := range c.answered {
		build := c.ended(server, told.BuildID)
		require.Equal(c.t, previewd.BuildCompleted, build.Status, "%s: %+v", key, build.Failure)
		require.Equal(c.t, int64(1), build.Seq)
		attempts += build.Attempt
		versions, err := server.ListVersions(context.Background(), told.ProjectID, previewd.Page{})
		require.NoError(c.t, err)
		require.Len(c.t, versions.Versions, 1)
	}
	require.NoError(c.t, c.server.Process.Kill())
	_ = c.server.Wait()

	db, err := store.Open(context.Background(), store.Config{Path: filepath.Join(c.data, "previewd.db")})
	require.NoError(c.t, err)
	defer db.Close()
	testkit.CheckInvariants(c.t, db)
	projects, err := db.ListProjects(context.Background(), "", "g", 1_000_000)
	require.NoError(c.t, err)
	require.Len(c.t, projects, len(c.answered), "as many projects as keys: none twice, none that nobody was told of")
	c.t.Logf("%d kills, %d creates answered, %d projects, %d attempts of builds", *kills, len(c.answered), len(projects), attempts)
}

func (c *crashing) ended(server *client.Client, buildID string) *previewd.Build {
	c.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		build, err := server.FindBuild(context.Background(), buildID, 10*time.Second)
		require.NoError(c.t, err)
		if build.Status.Terminal() {
			return build
		}
	}
	require.NoError(c.t, errors.New("build "+buildID+" is stuck"))
	return nil
}

package main_test

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/previewd/previewd"
)

var idleStreams = flag.Int("streams", 0, "how many streams TestIdleStreams opens")

// TestIdleStreams measures what streams cost a real server that have nothing to
// send, and how soon all of them have an event: go test ./cmd/previewd -run
// TestIdleStreams -streams 10000 -v. The clients share the machine.
func TestIdleStreams(t *testing.T) {
	if *idleStreams == 0 {
		t.Skip("a measurement: say -streams 10000")
	}
	for _, what := range []string{"OneBuild", "Feed", "BuildEach"} {
		t.Run(what, func(t *testing.T) {
			addr := freeAddr(t)
			data := filepath.Join(t.TempDir(), "data")
			flags := []string{"--builds=-1", "--queue-per-user", "0", "--queue-total", "0"}
			maker := startServer(t, addr, data, flags...)
			paths := streamPaths(t, addr, what)
			// Another one begins without what making the builds has left behind, but
			// with its connections to the database and its code in memory.
			require.NoError(t, maker.Process.Signal(os.Interrupt))
			require.NoError(t, maker.Wait())
			server := startServer(t, addr, data, flags...)
			readBuilds(t, addr, paths[:min(len(paths), 500)])
			before := residentBytes(t, server.Process.Pid)
			began := time.Now()
			readers := openStreams(t, addr, paths)
			t.Logf("%d streams opened in %v", len(readers), time.Since(began).Round(time.Millisecond))
			time.Sleep(20 * time.Second) // past a heartbeat of each
			after := residentBytes(t, server.Process.Pid)
			each := float64(after-before) / 1024 / float64(len(readers))
			t.Logf("%d idle streams: RSS %d → %d KiB, %.2f KiB each", len(readers), before>>10, after>>10, each)
			if len(readers) >= 5000 { // fewer do not show among what else a server needs
				require.LessOrEqual(t, each, 6.0, "KiB")
			}
			if what != "BuildEach" {
				for range map[string]int{"OneBuild": 1, "Feed": 5}[what] {
					deliver(t, addr, what, paths[0], readers)
				}
				t.Logf("RSS after delivery %d KiB", residentBytes(t, server.Process.Pid)>>10)
			}
		})
	}
}

func createQueued(t testing.TB, addr string, n int) []*previewd.Preview {
	t.Helper()
	list := make([]*previewd.Preview, n)
	server := clientOf(t, addr) // its idle connections would count as streams' memory if each call had its own
	var group errgroup.Group
	group.SetLimit(32)
	for i := range list {
		group.Go(func() (err error) {
			list[i], err = server.CreatePreview(context.Background(), previewd.CreatePreviewRequest{
				UserID: fmt.Sprint("u", i), TemplateFiles: previewd.Files{"index.html": []byte("x")}, IdempotencyKey: previewd.NewRequestID(),
			})
			return err
		})
	}
	require.NoError(t, group.Wait())
	return list
}

// readBuilds reads the builds of such paths, many at a time.
func readBuilds(t *testing.T, addr string, paths []string) {
	t.Helper()
	server := clientOf(t, addr)
	var group errgroup.Group
	group.SetLimit(32)
	for _, path := range paths {
		if id, ok := strings.CutPrefix(path, "/v1/builds/"); ok {
			group.Go(func() error {
				_, err := server.FindBuild(context.Background(), strings.TrimSuffix(id, "/events"), 0)
				return err
			})
		}
	}
	require.NoError(t, group.Wait())
}

func streamPaths(t *testing.T, addr, what string) []string {
	t.Helper()
	paths := make([]string, *idleStreams)
	builds := createQueued(t, addr, map[string]int{"OneBuild": 1, "Feed": 1, "BuildEach": len(paths)}[what])
	for i := range paths {
		paths[i] = "/v1/builds/" + builds[i%len(builds)].BuildID + "/events"
		if what == "Feed" {
			paths[i] = "/v1/events?after=1-2"
		}
	}
	return paths
}

func residentBytes(t *testing.T, pid int) int64 {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(raw), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	require.NoError(t, err)
	return kib << 10
}

// reader is the client's end of a stream.
type reader struct {
	conn net.Conn
	got  chan time.Time // when an event came
}

func openStreams(t *testing.T, addr string, paths []string) []*reader {
	t.Helper()
	readers := make([]*reader, len(paths))
	var group errgroup.Group
	group.SetLimit(64)
	for i, path := range paths {
		group.Go(func() error {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return err
			}
			r := &reader{conn: conn, got: make(chan time.Time, 16)}
			readers[i] = r
			_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nAccept: text/event-stream\r\n\r\n", path, crashToken)
			if err != nil {
				return err
			}
			lines := bufio.NewReaderSize(conn, 512)
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return fmt.Errorf("stream %d: %w", i, err)
				}
				if strings.HasPrefix(line, "retry:") {
					break
				}
			}
			go r.read()
			return nil
		})
	}
	require.NoError(t, group.Wait())
	t.Cleanup(func() {
		for _, r := range readers {
			r.conn.Close()
		}
	})
	return readers
}

// read notes when events come whose data names the moment's kind.
func (r *reader) read() {
	buf := make([]byte, 1024)
	for {
		n, err := r.conn.Read(buf)
		if err != nil {
			close(r.got)
			return
		}
		if bytes.Contains(buf[:n], []byte("event: build.canceled")) || bytes.Contains(buf[:n], []byte("event: build.queued")) {
			r.got <- time.Now()
		}
	}
}

// deliver makes one event and reports how long it took to reach the readers.
func deliver(t *testing.T, addr, what, path string, readers []*reader) {
	t.Helper()
	for _, r := range readers {
		for len(r.got) > 0 {
			<-r.got
		}
	}
	began := time.Now()
	if what == "OneBuild" {
		_, err := clientOf(t, addr).CancelBuild(context.Background(), previewd.CancelBuildRequest{BuildID: strings.Split(path, "/")[3]})
		require.NoError(t, err)
	} else {
		createQueued(t, addr, 1)
	}
	took := make([]time.Duration, len(readers))
	var wg sync.WaitGroup
	for i, r := range readers {
		wg.Go(func() {
			at, ok := <-r.got
			if !ok {
				t.Error("a stream broke")
			}
			took[i] = at.Sub(began)
		})
	}
	wg.Wait()
	slices.Sort(took)
	t.Logf("one event to %d streams: p50 %v, p99 %v, last %v", len(took),
		took[len(took)/2].Round(time.Millisecond), took[len(took)*99/100].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

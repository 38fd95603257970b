package httpx_test

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/testkit"
)

// silentClient is a client's end that this process keeps no memory for.
func (f *fixture) silentClient(p *previewd.Preview) {
	f.t.Helper()
	addr := f.server.Listener.Addr().(*net.TCPAddr)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { syscall.Close(fd) })
	require.NoError(f.t, syscall.Connect(fd, &syscall.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}))
	_, err = syscall.Write(fd, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n", f.events(p)))
	require.NoError(f.t, err)
	var said strings.Builder
	for buf := make([]byte, 4096); !strings.Contains(said.String(), "event: build.position"); {
		n, err := syscall.Read(fd, buf)
		require.NoError(f.t, err)
		require.Positive(f.t, n)
		said.Write(buf[:n])
	}
}

// inUse returns what heap and stacks take once garbage is collected.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// A stream that has nothing to send costs no goroutine and little memory, even
// when nobody else follows its build. What is measured here is what is in use;
// a server's resident memory has garbage in it too: TestIdleStreams. It is not
// parallel, since it measures the whole process.
func TestIdleStreamsCostLittle(t *testing.T) { //nolint:paralleltest // see above
	const first, streams, most = 50, 400, 4 << 10
	f := setup(t, testkit.Open(t, testkit.Engines()[0].Config(t)))
	builds := make([]*previewd.Preview, first+streams)
	for i := range builds {
		builds[i] = f.create(fmt.Sprint("u", i))
	}
	for _, p := range builds[:first] {
		f.silentClient(p)
	}
	before, goroutines := inUse(), runtime.NumGoroutine()
	for _, p := range builds[first:] {
		f.silentClient(p)
	}
	testkit.Eventually(t, "the goroutines of the requests end", func() bool {
		return runtime.NumGoroutine() < goroutines+streams/10
	})
	open, _ := f.streams.Counts()
	require.Equal(t, first+streams, open)
	each := (inUse() - before) / streams
	t.Logf("%d bytes a stream", each)
	require.Less(t, each, int64(most))
}

package testkit

import (
	"bytes"
	"math"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Proxy passes TCP connections on to a server and breaks them as it is told: a
// network that can be had on any machine.
type Proxy struct {
	Addr     string
	target   string
	listener net.Listener

	// Dropped counts the replies to COMMIT that were dropped.
	Dropped atomic.Int64
	drop    atomic.Int64 // replies still to drop
	delay   atomic.Int64 // nanoseconds that each piece from the server takes
	limit   atomic.Int64 // bytes from the server until its connection is cut; 0: none

	mu     sync.Mutex
	refuse bool
	open   map[net.Conn]bool
	paused chan struct{} // closed at the end of the pause; nil when there is none
}

// NewProxy starts a proxy for the server at target until the test ends.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	p := &Proxy{Addr: listener.Addr().String(), target: target, listener: listener, open: map[net.Conn]bool{}}
	go p.accept()
	tb.Cleanup(func() {
		listener.Close()
		p.Resume()
		p.Cut(math.MaxInt)
	})
	return p
}

// DatabaseURL returns the URL of a database, reached through the proxy. What
// is encrypted cannot be read on the way, so it is not.
func (p *Proxy) DatabaseURL(tb testing.TB, database string) string {
	tb.Helper()
	u, err := url.Parse(database)
	require.NoError(tb, err)
	u.Host = p.Addr
	query := u.Query()
	query.Set("sslmode", "disable")
	u.RawQuery = query.Encode()
	return u.String()
}

// DropCommits drops the replies to the next n COMMITs: PostgreSQL has committed,
// and whoever asked for it loses the connection instead of being told.
func (p *Proxy) DropCommits(n int) { p.drop.Add(int64(n)) }

// Armed reports whether a reply is still to be dropped.
func (p *Proxy) Armed() bool { return p.drop.Load() > 0 }

// Heal ends all faults.
func (p *Proxy) Heal() {
	p.drop.Store(0)
	p.limit.Store(0)
	p.delay.Store(0)
	p.Refuse(false)
	p.Resume()
}

// Refuse cuts all connections, and new ones at once, until it is told otherwise.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	p.refuse = on
	p.mu.Unlock()
	if on {
		p.Cut(math.MaxInt)
	}
}

// Delay makes each piece from the server take this long.
func (p *Proxy) Delay(d time.Duration) { p.delay.Store(int64(d)) }

// CutAfter cuts the connection that brings the nth byte from the server from
// now on, in the middle of whatever it is.
func (p *Proxy) CutAfter(n int64) { p.limit.Store(n) }

// Cut cuts up to n connections. New ones are accepted.
func (p *Proxy) Cut(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.open {
		if n--; n < 0 {
			return
		}
		reset(conn)
	}
}

// reset closes a connection as a broken network does: at once, what is on its
// way is lost.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

// Pause holds everything until Resume.
func (p *Proxy) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused == nil {
		p.paused = make(chan struct{})
	}
}

// Resume ends a pause.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused != nil {
		close(p.paused)
		p.paused = nil
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		refuse := p.refuse
		p.mu.Unlock()
		if refuse {
			reset(client)
			continue
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			reset(client)
			continue
		}
		p.mu.Lock()
		p.open[client] = true
		p.mu.Unlock()
		end := sync.OnceFunc(func() {
			p.mu.Lock()
			delete(p.open, client)
			p.mu.Unlock()
			reset(client)
			server.Close() // in order: what it was sent last still arrives
		})
		go p.pump(server, client, end, func([]byte) (int, bool) { return -1, false })
		go p.pump(client, server, end, p.breakAt())
	}
}

// pump passes bytes on until either end closes, or broken says after how many
// the connection breaks.
func (p *Proxy) pump(to, from net.Conn, end func(), broken func([]byte) (keep int, cut bool)) {
	defer end()
	for buffer := make([]byte, 32<<10); ; {
		n, err := from.Read(buffer)
		p.mu.Lock()
		paused := p.paused
		p.mu.Unlock()
		if paused != nil {
			<-paused
		}
		keep, cut := broken(buffer[:n])
		if cut {
			n = keep
		}
		if _, e := to.Write(buffer[:n]); e != nil || err != nil || cut {
			return
		}
	}
}

// commandComplete is PostgreSQL's reply to a COMMIT (its documentation, §55.7).
var commandComplete = []byte("C\x00\x00\x00\x0bCOMMIT\x00")

// breakAt looks at what comes from the server on one connection.
func (p *Proxy) breakAt() func([]byte) (int, bool) {
	var tail []byte // the end of the piece before: a reply can come in two pieces
	return func(piece []byte) (int, bool) {
		time.Sleep(time.Duration(p.delay.Load()))
		if left := p.limit.Load(); left > 0 && p.limit.Add(-int64(len(piece))) <= 0 {
			p.limit.Store(0)
			return int(min(left, int64(len(piece)))), true
		}
		seen := append(tail, piece...)
		if at := bytes.Index(seen, commandComplete); at >= 0 && p.takeDrop() {
			p.Dropped.Add(1)
			return max(at-len(tail), 0), true
		}
		tail = append([]byte(nil), seen[max(len(seen)-len(commandComplete)+1, 0):]...)
		return 0, false
	}
}

func (p *Proxy) takeDrop() bool {
	if p.drop.Add(-1) >= 0 {
		return true
	}
	p.drop.Add(1)
	return false
}

package httpx

import (
	"errors"
	"net"
	"net/http"
	"syscall"
	"time"
)

// sink is where a stream's bytes go. One goroutine writes at a time.
type sink interface {
	try(b []byte) int      // writes what can be written at once, perhaps nothing
	write(b []byte) error  // waits for a reader as long as its limit
	read(one []byte) error // waits for a byte of the client's
	ended(p *probe) bool   // reports whether the client has gone away, without waiting; false when there is no telling
	close()
}

// probe looks at connections one after another.
type probe struct {
	look func(fd uintptr) bool
	said int // bytes of the client's, -1 when it has gone away
	buf  [maxSaid]byte
}

// maxSaid is how much a client may say after its request: it has nothing to say.
const maxSaid = 64

func newProbe() *probe {
	p := &probe{}
	p.look = func(fd uintptr) bool {
		n, err := syscall.Read(int(fd), p.buf[:])
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR:
			n = 0
		case n <= 0:
			n = -1
		}
		p.said = n
		return true // it would wait otherwise
	}
	return p
}

// connSink is a connection that was taken from net/http.
type connSink struct {
	conn  net.Conn
	raw   syscall.RawConn // nil when the connection has no descriptor of its own
	limit time.Duration
	said  int // bytes of the client's
}

func newConnSink(conn net.Conn, limit time.Duration) *connSink {
	c := &connSink{conn: conn, limit: limit}
	if own, ok := conn.(syscall.Conn); ok {
		c.raw, _ = own.SyscallConn()
	}
	return c
}

func (c *connSink) try(b []byte) (n int) {
	if c.raw == nil {
		return 0
	}
	_ = c.raw.Write(func(fd uintptr) bool {
		n, _ = syscall.Write(int(fd), b)
		return true // it would wait otherwise
	})
	return max(n, 0) // who writes the rest meets the error, if it was one
}

func (c *connSink) write(b []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.limit)); err != nil {
		return err
	}
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	return c.conn.SetWriteDeadline(time.Time{}) // a deadline that has passed would stop try
}

func (c *connSink) read(one []byte) error {
	_, err := c.conn.Read(one)
	return err
}

func (c *connSink) ended(p *probe) bool {
	if c.raw == nil {
		return false
	}
	if err := c.raw.Read(p.look); err != nil || p.said < 0 {
		return true
	}
	c.said += p.said
	return c.said >= maxSaid
}

func (c *connSink) close() { _ = c.conn.Close() }

// writerSink is an answer that net/http writes.
type writerSink struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	limit time.Duration
}

func (s *writerSink) try([]byte) int { return 0 }

func (s *writerSink) write(b []byte) error {
	err := s.rc.SetWriteDeadline(time.Now().Add(s.limit))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	return s.rc.Flush()
}

func (s *writerSink) read([]byte) error { return errors.ErrUnsupported }

func (s *writerSink) ended(*probe) bool { return false }

// close is left to the handler, which returns.
func (s *writerSink) close() {}

package container

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/previewd/previewd/internal/sandbox"
)

// link is the host's end of what a container's first process connects to. The first
// connection comes before any task and is its own; others show the secret that it
// was told. Tasks, which may run as the same user, can only be turned away.
type link struct {
	listener *net.UnixListener
	secret   string
	control  net.Conn
	lines    *bufio.Scanner
	ports    []*portListener
	slots    chan struct{} // one for each connection that is open
	closed   chan struct{}
	close    func()

	mu      sync.Mutex // of what is below, and of setting control
	last    uint32     // request
	waiting chan net.Conn
}

const (
	helloTime = 5 * time.Second // that a connection may take to say what it is
	startTime = time.Minute     // that a container may take to begin

	acceptPause = 10 * time.Millisecond
)

// listen makes the socket in a folder, for a user of the container.
func listen(dir string, uid, ports int) (*link, error) {
	// The path of a socket has at most 107 bytes; that of a folder may have more.
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	near := fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), socketName)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: near, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen for the container: %w", err)
	}
	listener.SetUnlinkOnClose(false) // the folder goes as a whole
	l := &link{listener: listener, secret: rand.Text(), closed: make(chan struct{}), slots: make(chan struct{}, (ports+1)*maxConnections)}
	l.close = sync.OnceFunc(func() {
		close(l.closed)
		listener.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.control != nil {
			l.control.Close()
		}
	})
	for range ports {
		l.ports = append(l.ports, &portListener{link: l, accepted: make(chan net.Conn), closed: make(chan struct{})})
	}
	socket := filepath.Join(dir, socketName)
	if err := errors.Join(os.Chmod(socket, 0o600), chownIfRoot(socket, uid), chownIfRoot(dir, uid)); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func chownIfRoot(path string, uid int) error {
	if os.Geteuid() != 0 {
		return nil // all is the server's own user's
	}
	return unix.Lchown(path, uid, uid)
}

// greet waits for the first process and tells it what it is to serve.
func (l *link) greet(h hello) error {
	_ = l.listener.SetDeadline(time.Now().Add(startTime))
	conn, err := l.listener.Accept()
	if err != nil {
		return err
	}
	_ = l.listener.SetDeadline(time.Time{})
	l.mu.Lock()
	l.control = conn
	l.mu.Unlock()
	if isClosed(l.closed) {
		conn.Close()
	}
	l.lines = bufio.NewScanner(conn)
	l.lines.Buffer(nil, maxLine)
	go l.accept()
	h.Secret = l.secret
	if err := json.NewEncoder(conn).Encode(h); err != nil {
		return err
	}
	_, err = l.answer()
	return err
}

// accept takes connections until the link closes.
func (l *link) accept() {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.closed:
			return
		}
		conn, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // files are short, say
			<-l.slots
			time.Sleep(acceptPause)
			continue
		}
		go l.admit(&slotConn{Conn: conn, free: sync.OnceFunc(func() { <-l.slots })})
	}
}

// admit hands a connection to whom it is for, if it knows the secret.
func (l *link) admit(conn net.Conn) {
	var header [headerSize]byte
	_ = conn.SetDeadline(time.Now().Add(helloTime))
	_, err := io.ReadFull(conn, header[:])
	if err != nil || subtle.ConstantTimeCompare(header[:secretSize], []byte(l.secret)) != 1 {
		conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	number := binary.BigEndian.Uint32(header[secretSize+1:])
	var to chan net.Conn
	var gone <-chan struct{} = l.closed
	switch purpose := header[secretSize]; {
	case purpose == forTask:
		l.mu.Lock()
		if number == l.last {
			to, l.waiting = l.waiting, nil
		}
		l.mu.Unlock()
	case purpose == forPort && int(number) < len(l.ports):
		to, gone = l.ports[number].accepted, l.ports[number].closed
	}
	if to == nil {
		conn.Close()
		return
	}
	select {
	case to <- conn:
	case <-gone:
		conn.Close()
	case <-l.closed:
		conn.Close()
	}
}

// ask sends a request; the channel gives the connection that it is served on.
func (l *link) ask(r request) (<-chan net.Conn, error) {
	to := make(chan net.Conn)
	l.mu.Lock()
	l.last++
	r.ID, l.waiting = l.last, to
	l.mu.Unlock()
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(raw) >= maxLine {
		return nil, fmt.Errorf("a command with its environment has more than %d bytes", maxLine)
	}
	_, err = l.control.Write(append(raw, '\n'))
	return to, err
}

// answer reads the reply to what was asked last.
func (l *link) answer() (r reply, err error) {
	if !l.lines.Scan() {
		if err = l.lines.Err(); err == nil {
			err = io.EOF
		}
		return r, err
	}
	if err := json.Unmarshal(l.lines.Bytes(), &r); err != nil {
		return r, fmt.Errorf("%w: %w", errHostile, err)
	}
	if r.ID != l.last {
		return r, fmt.Errorf("%w: an answer to something else", errHostile)
	}
	if r.Error != "" {
		return r, sandbox.Refused(r.Error)
	}
	return r, nil
}

// connection waits for the one that a request is served on.
func (l *link) connection(ctx context.Context, from <-chan net.Conn) (net.Conn, error) {
	select {
	case conn := <-from:
		return conn, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-l.closed:
		return nil, io.EOF
	}
}

// slotConn frees its slot when it closes.
type slotConn struct {
	net.Conn
	free func()
}

// Close implements net.Conn.
func (c *slotConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}

// CloseWrite says that no more comes.
func (c *slotConn) CloseWrite() error { return c.Conn.(*net.UnixConn).CloseWrite() }

// portListener accepts what connects to a port inside.
type portListener struct {
	link     *link
	accepted chan net.Conn
	once     sync.Once
	closed   chan struct{}
}

// Accept implements net.Listener.
func (l *portListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closed:
	case <-l.link.closed:
	}
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (l *portListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *portListener) Addr() net.Addr { return l.link.listener.Addr() }

func isReset(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

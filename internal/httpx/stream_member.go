package httpx

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// What may wait for a reader: past it the reader is cut and resumes.
const (
	maxPending      = 256
	maxPendingBytes = 1 << 20
)

// place is how far something has been read: the last event, and the log's next
// byte.
type place struct{ seq, offset int64 }

// member is one stream.
type member struct {
	streams *Streams
	group   *group
	sink    sink
	begin   func(ctx context.Context, m *member) error
	guard   *guard
	encoding
	at      place         // used by run alone, until it has joined
	done    chan struct{} // closed at the end of a stream whose handler stays
	beat    time.Time     // guarded by streams.mu
	expires time.Time
	index   int  // in group.members, from 1; guarded by group.mu
	left    bool // guarded by group.mu

	mu      sync.Mutex
	pending [][]byte
	waiting int // frames that are not written yet
	bytes   int
	busy    bool // somebody writes; others append to pending
	last    bool // nothing follows what is pending
	closed  bool
}

// takeConn goes on without net/http: its goroutine, its buffers and the request
// are freed when the handler returns.
func (m *member) takeConn(conn net.Conn, header http.Header) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(m.streams.SendBytes) // a hint to the kernel
	}
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\n")
	header.Set("Connection", "close") // the body ends with the connection
	header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	_ = header.Write(&head)
	head.WriteString("\r\n")
	sink := newConnSink(conn, m.streams.Write)
	m.mu.Lock()
	m.sink = sink
	closed := m.closed
	m.mu.Unlock()
	if closed { // the server stops
		sink.close()
		return
	}
	m.streams.running.Go(func() {
		if m.write(head.Bytes()) == nil {
			m.run()
		}
	})
	if sink.raw == nil {
		m.streams.running.Go(m.listen)
	}
}

// takeWriter writes through net/http; the handler waits for done.
func (m *member) takeWriter(w http.ResponseWriter, rc *http.ResponseController, limit time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sink, m.done = &writerSink{w: w, rc: rc, limit: limit}, make(chan struct{})
	if m.closed {
		close(m.done)
	}
}

// listen waits for the client to go away, where nobody can look whether it has.
func (m *member) listen() {
	var one [1]byte
	for range maxSaid {
		if err := m.sink.read(one[:]); err != nil {
			break
		}
	}
	m.close()
}

// look ends the stream of a client that has gone away.
func (m *member) look(p *probe) {
	m.mu.Lock()
	sink := m.sink
	m.mu.Unlock()
	if sink != nil && sink.ended(p) {
		m.close()
	}
}

// run sends what the client has missed and joins the group.
func (m *member) run() {
	if err := m.catchUp(); err != nil {
		m.close()
		return
	}
	m.drain()
}

func (m *member) catchUp() error {
	if m.contentType == sse.contentType {
		if err := m.write(fmt.Appendf(nil, "retry: %d\n\n", 2000+rand.IntN(3000))); err != nil {
			return err
		}
	}
	if err := m.begin(m.streams.ctx, m); err != nil {
		return err
	}
	m.begin = nil
	for !m.ending() {
		to, err := m.group.place()
		if err != nil {
			return err
		}
		if m.at.seq > to.seq || m.at.offset > to.offset { // the client has seen what the group has not
			if err := m.group.poll(); err != nil {
				return err
			}
			if to, err = m.group.place(); err != nil {
				return err
			}
			m.at = place{min(m.at.seq, to.seq), min(m.at.offset, to.offset)}
			continue
		}
		if m.at == to {
			if m.group.join(m) {
				return nil
			}
			continue
		}
		var frames [][]byte
		err = m.streams.read(func(ctx context.Context) (err error) {
			frames, m.at, err = m.group.tail.read(ctx, m.at, to)
			return err
		})
		for _, f := range frames {
			if err == nil {
				err = m.write(f)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// write is for whoever has made the member busy.
func (m *member) write(b []byte) error {
	err := m.sink.write(b)
	if err != nil {
		m.close()
	}
	return err
}

func (m *member) ending() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last || m.closed
}

// send writes a frame as far as the kernel takes it at once. A goroutine writes
// the rest, if there is one; while it does, frames wait their turn. It never
// blocks.
func (m *member) send(b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.last {
		return
	}
	m.put(b)
}

func (m *member) put(b []byte) {
	if !m.busy {
		if b = b[m.sink.try(b):]; len(b) == 0 {
			return
		}
		m.busy = true
		m.streams.running.Go(m.drain)
	}
	m.pending = append(m.pending, b)
	m.waiting++
	m.bytes += len(b)
	if m.waiting > maxPending || m.bytes > maxPendingBytes {
		m.streams.cut.Add(1)
		m.closeLocked() // it resumes from the rows: nothing is left out silently
	}
}

// finish sends a last frame, or none, and closes.
func (m *member) finish(b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.last {
		return
	}
	if b != nil {
		m.put(b)
	}
	m.last = true
	if !m.busy {
		m.closeLocked()
	}
}

func (m *member) heartbeat() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.busy && !m.closed && !m.last {
		m.put([]byte(m.pulse))
	}
}

// drain writes what is pending, each frame within its time.
func (m *member) drain() {
	for {
		m.mu.Lock()
		if len(m.pending) == 0 || m.closed {
			m.busy, m.pending = false, nil
			if m.last {
				m.closeLocked()
			}
			m.mu.Unlock()
			return
		}
		frames := m.pending
		m.pending = nil
		m.mu.Unlock()
		for _, f := range frames {
			if m.write(f) != nil {
				return
			}
			m.mu.Lock()
			m.waiting--
			m.bytes -= len(f)
			m.mu.Unlock()
		}
	}
}

func (m *member) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closeLocked()
}

// closeLocked leaves the group later: its lock may be held by who sends.
func (m *member) closeLocked() {
	if m.closed {
		return
	}
	m.closed, m.pending = true, nil
	if m.sink != nil {
		m.sink.close()
	}
	if m.done != nil {
		close(m.done)
	}
	m.streams.running.Go(func() { m.streams.leave(m) })
}

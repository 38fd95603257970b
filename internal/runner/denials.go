package runner

import (
	"bufio"
	"errors"
	"io"
	"net"
	"regexp"
	"slices"
	"sync"
	"time"
)

// denials closes connections to the outside without a word: npm takes any answer
// of a proxy for a reason to try again at once.
type denials struct {
	mu      sync.Mutex
	names   []string
	count   int
	tooMany func()
}

func (d *denials) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no files are left; there will be some
			continue
		}
		go d.deny(conn)
	}
}

var connectLine = regexp.MustCompile(`^CONNECT ([A-Za-z0-9.\-:\[\]]{1,255}) HTTP/`)

func (d *denials) deny(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	line, _ := bufio.NewReader(io.LimitReader(conn, 512)).ReadString('\n')
	d.mu.Lock()
	defer d.mu.Unlock()
	if m := connectLine.FindStringSubmatch(line); m != nil && len(d.names) < 5 && !slices.Contains(d.names, m[1]) {
		d.names = append(d.names, m[1])
	}
	if d.count++; d.count >= maxDenied && d.tooMany != nil {
		d.tooMany()
	}
}

// reset counts anew, for a new sandbox.
func (d *denials) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count = 0
}

func (d *denials) onTooMany(do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tooMany = do
}

// hosts lists where builds wanted to go, the first few.
func (d *denials) hosts() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.names)
}

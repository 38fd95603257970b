//go:build linux

package container

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An answer is to what was asked last, or to nothing.
func TestAnswerToAnotherRequestIsRefused(t *testing.T) {
	t.Parallel()
	for line, ok := range map[string]bool{`{"ID":2,"Code":3}`: true, `{"ID":1}`: false, `{"ID":3}`: false, `{}`: false, `x`: false} {
		l := &link{last: 2, lines: bufio.NewScanner(strings.NewReader(line + "\n"))}
		got, err := l.answer()
		if !ok {
			require.ErrorIs(t, err, errHostile, line)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, 3, got.Code)
	}
}

// A connection that cannot be accepted is no end of accepting: files may be short
// for a moment.
func TestAcceptGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := listen(dir, os.Geteuid(), 1)
	require.NoError(t, err)
	defer l.close()
	require.NoError(t, l.listener.SetDeadline(time.Now().Add(-time.Second)))
	over := make(chan struct{})
	go func() {
		defer close(over)
		l.accept()
	}()
	select {
	case <-over:
		t.Fatal("it has stopped")
	case <-time.After(3 * acceptPause):
	}
	require.NoError(t, l.listener.SetDeadline(time.Time{}))
	conn, err := net.Dial("unix", filepath.Join(dir, socketName))
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write(append([]byte(l.secret), forPort, 0, 0, 0, 0))
	require.NoError(t, err)
	accepted, err := l.ports[0].Accept()
	require.NoError(t, err)
	require.NoError(t, accepted.Close())
	l.close()
	<-over
}

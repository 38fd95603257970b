package testkit

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Frame is one of a stream of server-sent events.
type Frame struct{ ID, Type, Data string }

// Events is a client's end of such a stream, on a connection of its own.
type Events struct {
	Status int
	Header http.Header
	Body   string // of an answer that is no stream

	tb     testing.TB
	frames chan Frame
	cancel context.CancelFunc
}

// FollowEvents asks for a stream, with headers as pairs.
func FollowEvents(tb testing.TB, url string, header ...string) *Events {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tb.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(tb, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	require.NoError(tb, err)
	e := &Events{Status: response.StatusCode, Header: response.Header, tb: tb, frames: make(chan Frame), cancel: cancel}
	lines := bufio.NewReader(response.Body)
	if response.Header.Get("Content-Type") != "text/event-stream" {
		var body strings.Builder
		_, _ = lines.WriteTo(&body)
		_ = response.Body.Close()
		e.Body = body.String()
		close(e.frames)
		return e
	}
	go func() {
		defer close(e.frames)
		defer response.Body.Close()
		for f := (Frame{}); ; {
			line, err := lines.ReadString('\n')
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch {
			case err != nil:
				return
			case name == "id":
				f.ID = value
			case name == "event":
				f.Type = value
			case name == "data":
				f.Data = value
			case line == "\n" && f.Type != "":
				select {
				case e.frames <- f:
				case <-ctx.Done():
					return
				}
				f = Frame{}
			}
		}
	}()
	return e
}

// Next returns the next frame; false at the stream's end.
func (e *Events) Next() (Frame, bool) {
	e.tb.Helper()
	select {
	case f, ok := <-e.frames:
		return f, ok
	case <-time.After(time.Minute):
		e.tb.Fatal("waited too long for the next frame")
		return Frame{}, false
	}
}

// NextWithin is Next for who does not wait longer; false also when nothing has come.
func (e *Events) NextWithin(limit time.Duration) (Frame, bool) {
	select {
	case f, ok := <-e.frames:
		return f, ok
	case <-time.After(limit):
		return Frame{}, false
	}
}

// Take returns the next n frames.
func (e *Events) Take(n int) []Frame {
	e.tb.Helper()
	var list []Frame
	for range n {
		f, ok := e.Next()
		require.True(e.tb, ok, "the stream has ended after %v", list)
		list = append(list, f)
	}
	return list
}

// Rest returns all frames up to the stream's end.
func (e *Events) Rest() []Frame {
	e.tb.Helper()
	var list []Frame
	for {
		f, ok := e.Next()
		if !ok {
			return list
		}
		list = append(list, f)
	}
}

// Close goes away.
func (e *Events) Close() { e.cancel() }

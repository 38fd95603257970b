package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tmaxmax/go-sse"

	"github.com/previewd/previewd"
)

// Watch says what to follow of a build.
type Watch struct {
	After int64                                 // the number of the last event already seen; 0 shows all
	Event func(previewd.Event) error            // called for each event, in order, each once
	Log   func(offset int64, text string) error // nil: the log is not wanted
}

// WatchBuild follows a build to its end. It takes up a broken stream again
// where it was. Should the server's log have been cut, as by the restoring of a
// backup, it gives all events once more.
func (c *Client) WatchBuild(ctx context.Context, buildID string, w Watch) error {
	f := &watcher{Client: c, watch: w, buildID: buildID, cursor: strconv.FormatInt(w.After, 10)}
	return c.follow(ctx, "the build", &f.cursor, f.stream)
}

// follow reads one connection after another until one says that it was the last,
// or the stream keeps breaking without the cursor moving.
func (c *Client) follow(ctx context.Context, what string, cursor *string, stream func(context.Context) (done bool, err error)) error {
	for try := 0; ; try++ {
		before, began := *cursor, time.Now()
		done, err := stream(ctx)
		if done || err != nil && !retryable(err) {
			return err
		}
		if *cursor != before || time.Since(began) > steady {
			try = 0 // it did not break: the server ends each stream some time
		}
		if try >= max(c.cfg.Retries, 0) {
			return errors.Join(fmt.Errorf("cannot follow %s: the stream keeps breaking", what), err)
		}
		if !sleep(ctx, backoff(try, err)) {
			return ctx.Err()
		}
	}
}

// readStream gives each message of one connection to take, until that fails. The
// server says that nothing more will come by 204 or the message "end".
func (c *Client) readStream(ctx context.Context, path string, query url.Values, take func(sse.Event) error) (done bool, err error) {
	response, err := c.send(ctx, request{method: http.MethodGet, path: path, query: query}, nil)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNoContent {
		return true, nil
	}
	for message, err := range sse.Read(response.Body, &sse.ReadConfig{MaxEventSize: maxFrame}) {
		if err != nil {
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			return false, &previewd.Error{Code: previewd.CodeUnavailable, Message: "The stream broke.", Err: err}
		}
		if message.Type == "end" {
			return true, nil
		}
		if err := take(message); err != nil {
			return true, err
		}
	}
	return false, nil
}

// maxFrame bounds one message, in bytes: a snapshot of a user's projects has a
// page of them with their prompts.
const maxFrame = 64 << 20

// steady is how long a stream lasts that does not break.
const steady = 5 * time.Second

type watcher struct {
	*Client
	watch   Watch
	buildID string
	cursor  string // of the last event seen
	offset  int64  // of the log: what is before it was given already
}

// errReset ends a connection whose events begin anew.
var errReset = errors.New("the log was reset")

// stream reads one connection; done says that the build is over.
func (w *watcher) stream(ctx context.Context) (done bool, err error) {
	query := url.Values{"after": {w.cursor}}
	if w.watch.Log != nil {
		query.Set("log", "true")
	}
	done, err = w.readStream(ctx, "/v1/builds/"+url.PathEscape(w.buildID)+"/events", query, w.take)
	if errors.Is(err, errReset) {
		return false, nil
	}
	return done, err
}

func (w *watcher) take(message sse.Event) error {
	switch message.Type {
	case "snapshot", "build.position", "bye":
		return nil // the build as it is, and where it stands: no events
	case "reset": // what follows is the build as it is, and all of it is wanted
		w.watch.After, w.cursor = 0, "0"
		return errReset
	case "log":
		var frame struct {
			Offset int64
			Text   string
		}
		if err := json.Unmarshal([]byte(message.Data), &frame); err != nil {
			return fmt.Errorf("cannot read log frame: %w", err)
		}
		return w.takeLog(frame.Offset, frame.Text)
	}
	var e previewd.Event
	if err := json.Unmarshal([]byte(message.Data), &e); err != nil {
		return fmt.Errorf("cannot read event: %w", err)
	}
	if e.Seq <= w.watch.After {
		return nil // delivery is at least once
	}
	w.watch.After, w.cursor = e.Seq, cmp.Or(e.ID, strconv.FormatInt(e.Seq, 10))
	return w.watch.Event(e)
}

// takeLog drops what a stream taken up again repeats.
func (w *watcher) takeLog(offset int64, text string) error {
	if skip := w.offset - offset; skip > 0 {
		text = text[min(skip, int64(len(text))):]
		offset += skip
	}
	if text == "" {
		return nil
	}
	w.offset = offset + int64(len(text))
	return w.watch.Log(offset, text)
}

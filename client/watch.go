package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tmaxmax/go-sse"

	"github.com/previewd/previewd"
)

// Watch says what to follow of a build.
type Watch struct {
	After int64                                 // the last event already seen
	Event func(previewd.Event) error            // called for each event, in order, each once
	Log   func(offset int64, text string) error // nil: the log is not wanted
}

// WatchBuild follows a build to its end. It takes up a broken stream again
// where it was.
func (c *Client) WatchBuild(ctx context.Context, buildID string, w Watch) error {
	follower := &watcher{Client: c, watch: w, buildID: buildID}
	for try := 0; ; try++ {
		before := follower.watch.After
		done, err := follower.stream(ctx)
		if done || err != nil && !retryable(err) {
			return err
		}
		if follower.watch.After > before {
			try = 0
		}
		if try >= max(c.cfg.Retries, 0) {
			return errors.Join(errors.New("cannot follow the build: the stream keeps breaking"), err)
		}
		if !sleep(ctx, backoff(try, err)) {
			return ctx.Err()
		}
	}
}

type watcher struct {
	*Client
	watch   Watch
	buildID string
	offset  int64 // of the log: what is before it was given already
}

// stream reads one connection; done says that the build is over.
func (w *watcher) stream(ctx context.Context) (done bool, err error) {
	query := url.Values{}
	if w.watch.After > 0 {
		query.Set("after", strconv.FormatInt(w.watch.After, 10))
	}
	if w.watch.Log != nil {
		query.Set("log", "true")
	}
	response, err := w.send(ctx, request{
		method: http.MethodGet, path: "/v1/builds/" + url.PathEscape(w.buildID) + "/events", query: query,
	}, nil)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNoContent {
		return true, nil
	}
	for message, err := range sse.Read(response.Body, nil) {
		if err != nil {
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			return false, &previewd.Error{Code: previewd.CodeUnavailable, Message: "The stream broke.", Err: err}
		}
		if message.Type == "end" {
			return true, nil
		}
		if err := w.take(message); err != nil {
			return true, err
		}
	}
	return false, nil
}

func (w *watcher) take(message sse.Event) error {
	if message.Type == "reset" {
		w.watch.After = 0
		return nil
	}
	if message.Type == "log" {
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
	w.watch.After = e.Seq
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

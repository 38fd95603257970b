package workerapi

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

const (
	mediaSSE    = "text/event-stream"
	mediaNDJSON = "application/x-ndjson"
	mediaJSON   = "application/json"
)

var (
	eventType = reflect.TypeFor[previewd.Event]()
	pageType  = reflect.TypeFor[previewd.EventPage]()
)

type buildEventsInput struct {
	BuildID     string `path:"buildId"`
	After       string `query:"after" doc:"Resume after the event of this id; 0 is the beginning."`
	LastEventID string `header:"Last-Event-ID" doc:"As after; it goes before it."`
	Log         bool   `query:"log" doc:"Stream the log too, as log frames."`
}

// streamed describes an operation whose answer has several forms.
func (s *Server) streamed(path, id, summary, text string, forms map[string]reflect.Type) huma.Operation {
	o := op(http.MethodGet, path, id, summary)
	o.Description = text
	content := map[string]*huma.MediaType{}
	for media, form := range forms {
		content[media] = &huma.MediaType{Schema: s.api.OpenAPI().Components.Schemas.Schema(form, true, "")}
	}
	o.Responses = map[string]*huma.Response{"200": {Description: "The events.", Content: content}}
	return o
}

func (s *Server) buildStream() huma.Operation {
	const text = "Server-sent events. Each event's data is an Event and its id resumes after it. Without a cursor the stream begins with" +
		" `snapshot`, the build as it is; `after=0` begins with the first event. `reset` says that the cursor was of no event of this build;" +
		" a snapshot follows. `build.position` says where a build that waits stands in the queue, `log` frames carry the log, `end` closes" +
		" the stream of a build that is over, `bye` that of a server that stops. A client that has seen everything gets a 204."
	o := s.streamed("/v1/builds/{buildId}/events", "stream-build-events", "Follow a build", text, map[string]reflect.Type{mediaSSE: eventType})
	o.Responses["204"] = &huma.Response{Description: "The build is over and the client has seen all of it."}
	return o
}

func (s *Server) feed() huma.Operation {
	const text = "The feed: the events of all projects, each at least once and each project's in order. By Accept a page, which `wait` waits" +
		" for, or a stream without an end: server-sent events, or a JSON object a line. A cursor of another log, as after the restoring of" +
		" a backup, is answered with `reset` and the events from the beginning."
	return s.streamed("/v1/events", "list-events", "Read or follow the feed", text,
		map[string]reflect.Type{mediaJSON: pageType, mediaSSE: eventType, mediaNDJSON: eventType})
}

func (s *Server) streamBuildEvents(ctx context.Context, in *buildEventsInput) (*huma.StreamResponse, error) {
	return httpx.StreamBy(s.Streams.FollowBuild(ctx, httpx.BuildStream{BuildID: in.BuildID, Cursor: cursorOf(in.LastEventID, in.After), Log: in.Log}))
}

func cursorOf(lastEventID, after string) string {
	if lastEventID != "" {
		return lastEventID
	}
	return after
}

type feedInput struct {
	After       string `query:"after" doc:"A page's next, or an event's cursor; 0 is the beginning."`
	LastEventID string `header:"Last-Event-ID" doc:"As after; it goes before it."`
	Limit       int    `query:"limit" minimum:"0" maximum:"500" doc:"Most events of a page; default 100."`
	Wait        string `query:"wait" doc:"Wait up to this long, such as 30s, while there is nothing; at most 60s." example:"30s"`
}

func (s *Server) listEvents(ctx context.Context, in *feedInput) (*huma.StreamResponse, error) {
	cursor := cursorOf(in.LastEventID, in.After)
	switch {
	case httpx.Accepts(ctx, mediaSSE):
		return httpx.StreamBy(s.Streams.FollowFeed(ctx, httpx.FeedStream{Cursor: cursor}))
	case httpx.Accepts(ctx, mediaNDJSON):
		return httpx.StreamBy(s.Streams.FollowFeed(ctx, httpx.FeedStream{Cursor: cursor, NDJSON: true}))
	}
	wait, err := httpx.ParseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	page, err := s.Worker.ListEvents(ctx, previewd.EventFilter{After: cursor, Limit: in.Limit, Wait: wait})
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", mediaJSON)
		_ = json.NewEncoder(hc.BodyWriter()).Encode(page) // a reader that has gone away asks again
	}}, nil
}

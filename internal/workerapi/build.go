package workerapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

type createBuildInput struct {
	RequiredKeyInput
	ProjectID string `path:"projectId"`
	Body      createBuildBody
}

type createBuildBody struct {
	Prompt        string         `json:"prompt,omitempty" doc:"At most 32 KiB."`
	TemplateFiles templateFiles  `json:"templateFiles,omitempty"`
	Metadata      map[string]any `json:"metadata,omitempty" doc:"As for a new project; at most 16 KiB."`

	Policy previewd.BuildPolicy `json:"policy,omitempty" enum:"supersede,queue,reject" doc:"What becomes of a build of the project that is not over: supersede (the default) ends it, queue lets one that runs go on and ends one that waits, reject refuses the new build with 409."`
}

type createBuildOutput struct {
	Status   int
	Location string `header:"Location"`
	ReplayOutput
	Body *previewd.Build
}

func (s *Server) createBuild(ctx context.Context, in *createBuildInput) (*createBuildOutput, error) {
	files, err := in.Body.TemplateFiles.files()
	if err != nil {
		return nil, err
	}
	build, err := s.Worker.CreateBuild(ctx, previewd.CreateBuildRequest{
		ProjectID: in.ProjectID, Prompt: in.Body.Prompt, TemplateFiles: files, Metadata: in.Body.Metadata,
		Policy: in.Body.Policy, IdempotencyKey: in.key, Caller: httpx.CallerOf(ctx),
	})
	if err != nil {
		return nil, err
	}
	out := &createBuildOutput{
		Status: http.StatusCreated, Location: "/v1/builds/" + build.ID, ReplayOutput: replayOf(build.Replay), Body: build,
	}
	if build.Replayed == previewd.ReplayedResource {
		out.Status = http.StatusOK
	}
	return out, nil
}

type getBuildInput struct {
	BuildID string `path:"buildId"`
	Wait    string `query:"wait" doc:"Wait up to this long, such as 30s, for the status to change or the build to end; at most 60s." example:"30s"`
}

type buildOutput struct {
	Status int
	Body   *previewd.Build
}

const maxWait = 60 * time.Second

func (s *Server) getBuild(ctx context.Context, in *getBuildInput) (*buildOutput, error) {
	wait, err := parseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	build, err := s.Worker.FindBuild(ctx, in.BuildID, wait)
	if err != nil {
		return nil, err
	}
	return &buildOutput{Status: http.StatusOK, Body: build}, nil
}

func parseWait(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	if seconds, err := strconv.Atoi(text); err == nil {
		text = strconv.Itoa(seconds) + "s"
	}
	wait, err := time.ParseDuration(text)
	if err != nil || wait < 0 {
		return 0, &previewd.Error{Code: previewd.CodeInvalid, Message: "wait must be a duration such as 30s.", Details: "query.wait"}
	}
	return min(wait, maxWait), nil
}

type buildEventsInput struct {
	BuildID     string `path:"buildId"`
	After       string `query:"after" doc:"Resume after this event's id."`
	LastEventID string `header:"Last-Event-ID" doc:"As after; it goes before it."`
	Log         bool   `query:"log" doc:"Stream the log too, as log frames."`
}

// eventStream describes a stream of events.
func (s *Server) eventStream(path, id, summary string) huma.Operation {
	o := op(http.MethodGet, path, id, summary)
	o.Description = "Server-sent events. Each event's data is an Event and its id resumes after it; `log` frames carry the log, `reset` says that" +
		" the cursor was not of this build and everything is sent again, " +
		"`end` closes the stream of a build that is over. A client that has seen everything gets a 204."
	event := huma.SchemaFromType(s.api.OpenAPI().Components.Schemas, eventType)
	o.Responses = map[string]*huma.Response{
		"200": {Description: "The stream.", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: event}}},
		"204": {Description: "The build is over and the client has seen all of it."},
	}
	return o
}

func (s *Server) streamBuildEvents(ctx context.Context, in *buildEventsInput) (*huma.StreamResponse, error) {
	cursor := in.LastEventID
	if cursor == "" {
		cursor = in.After
	}
	after, err := parseEventCursor(cursor)
	if err != nil {
		return nil, err
	}
	build, err := s.Worker.FindBuild(ctx, in.BuildID, 0)
	if err != nil {
		return nil, err
	}
	known, rest, err := s.after(ctx, in.BuildID, after)
	if err != nil {
		return nil, err
	}
	if !known {
		after = 0
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		if known && !rest && build.Status.Terminal() {
			w.WriteHeader(http.StatusNoContent) // tells EventSource not to come back
			return
		}
		follower := httpx.BuildFollower{Source: s.Events, Hints: s.Hints, Build: build, After: after, Log: in.Log}
		stream, err := httpx.NewStream(w)
		if err == nil && !known {
			err = stream.Send("", "reset", map[string]string{"reason": "The cursor is of no event of this build."})
		}
		if err == nil {
			_ = follower.Run(r.Context(), stream) // a reader that has gone away resumes by its cursor
		}
	}}, nil
}

// parseEventCursor reads the id of an event; "" is before the first.
func parseEventCursor(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	after, err := strconv.ParseInt(text, 10, 64)
	if err != nil || after < 0 {
		return 0, &previewd.Error{Code: previewd.CodeInvalid, Message: "The cursor is no event id.", Details: text}
	}
	return after, nil
}

// after reports whether a cursor is an event of the build, or the beginning,
// and whether there are events after it.
func (s *Server) after(ctx context.Context, buildID string, cursor int64) (known, rest bool, err error) {
	events, err := s.Events.ListBuildEvents(ctx, buildID, max(cursor-1, 0), 2)
	if err != nil || cursor == 0 {
		return true, true, err
	}
	known = len(events) > 0 && events[0].Seq == cursor
	return known, len(events) > 1, nil
}

type readLogInput struct {
	BuildID string `path:"buildId"`
	Offset  int64  `query:"offset" minimum:"0" doc:"Byte to begin at: 0, or what Log-Next-Offset said."`
	Limit   int    `query:"limit" minimum:"0" maximum:"262144" doc:"Most bytes to return; default 262144."`
}

type readLogOutput struct {
	ContentType string `header:"Content-Type"`
	Next        int64  `header:"Log-Next-Offset" doc:"Where to read on."`
	Complete    bool   `header:"Log-Complete" doc:"true when the build is over and this is the end of its log."`
	Body        []byte
}

func logText(path, id, summary string) huma.Operation {
	o := op(http.MethodGet, path, id, summary)
	o.Responses = map[string]*huma.Response{"200": {
		Description: "The log's bytes from offset on.",
		Content:     map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}}
	return o
}

func (s *Server) readLog(ctx context.Context, in *readLogInput) (*readLogOutput, error) {
	chunk, err := s.Worker.ReadLog(ctx, in.BuildID, in.Offset, in.Limit)
	if err != nil {
		return nil, err
	}
	return &readLogOutput{ContentType: "text/plain; charset=utf-8", Next: chunk.Next, Complete: chunk.Complete, Body: chunk.Data}, nil
}

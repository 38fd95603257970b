package gateway

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

// CursorInput is where a stream goes on. It is exported because huma reads only
// exported embedded fields.
type CursorInput struct {
	After       string `query:"after" doc:"Resume after the event of this id; 0 is the beginning."`
	LastEventID string `header:"Last-Event-ID" doc:"As after; it goes before it."`
	Ticket      string `query:"ticket" doc:"From /api/stream-tickets, where no Authorization can be sent."`
}

func (c CursorInput) cursor() string {
	if c.LastEventID != "" {
		return c.LastEventID
	}
	return c.After
}

type projectEventsInput struct {
	CursorInput
	ProjectID string `path:"projectId"`
}

func (a *API) streamOp(path, id, summary, begins string) huma.Operation {
	o := httpx.TakesTicket(op(http.MethodGet, path, id, summary))
	o.Description = "Server-sent events. Each event's data is an Event, with `status` in the words of this API, and its id resumes after it." +
		" Without a cursor the stream begins with `snapshot`, " + begins + "; `after=0` begins with the first event. `reset` says that the" +
		" cursor was of another log; a snapshot follows. `reauth` closes the stream of a token that has expired, `end` one to which nothing" +
		" more is expected, `bye` that of a server that stops. A client that has seen everything there will be for now gets a 204."
	o.Responses = map[string]*huma.Response{
		"200": {Description: "The events.", Content: map[string]*huma.MediaType{"text/event-stream": {
			Schema: a.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[previewd.Event](), true, ""),
		}}},
		"204": {Description: "The client has seen all there is, and nothing more is expected for now."},
	}
	return o
}

func (a *API) streamProject(ctx context.Context, in *projectEventsInput) (*huma.StreamResponse, error) {
	return httpx.StreamBy(a.followProject(ctx, in.ProjectID, in.cursor()))
}

func (a *API) streamUser(ctx context.Context, in *CursorInput) (*huma.StreamResponse, error) {
	return httpx.StreamBy(a.followUser(ctx, in.cursor()))
}

package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tmaxmax/go-sse"

	"github.com/previewd/previewd"
)

// User calls a server's /api as one user: its Config's Token is the user's. It is
// safe for concurrent use.
type User struct{ c *Client }

// NewUser returns a User.
func NewUser(cfg Config) (*User, error) {
	c, err := New(cfg)
	return &User{c}, err
}

// NewProject is what a user's project is made of.
type NewProject struct {
	Name          string         `json:"name,omitempty"` // "" has one made of the prompt's first words
	Prompt        string         `json:"prompt,omitempty"`
	Template      string         `json:"template,omitempty"`
	TemplateFiles previewd.Files `json:"templateFiles,omitempty"`
	Metadata      map[string]any `json:"metadata,omitempty"`

	IdempotencyKey string `json:"-"` // "" makes one for this call
}

// CreateProject creates a project and its first build. While the worker cannot be
// reached the answer has an Intent instead: see WaitIntent.
func (u *User) CreateProject(ctx context.Context, p NewProject) (*previewd.AppCreation, error) {
	return u.create(ctx, "/api/projects", p.IdempotencyKey, p)
}

// NewBuild is what the next build of a user's project is made of.
type NewBuild struct {
	Prompt        string               `json:"prompt,omitempty"`
	Template      string               `json:"template,omitempty"`
	TemplateFiles previewd.Files       `json:"templateFiles,omitempty"`
	Metadata      map[string]any       `json:"metadata,omitempty"`
	Policy        previewd.BuildPolicy `json:"policy,omitempty"`

	IdempotencyKey string `json:"-"` // "" makes one for this call
}

// CreateBuild creates the next build of a project; as CreateProject.
func (u *User) CreateBuild(ctx context.Context, projectID string, b NewBuild) (*previewd.AppCreation, error) {
	return u.create(ctx, "/api/projects/"+url.PathEscape(projectID)+"/builds", b.IdempotencyKey, b)
}

// Failure returns what mending a failed build takes.
func (u *User) Failure(ctx context.Context, buildID string) (*previewd.FailurePacket, error) {
	var p previewd.FailurePacket
	return &p, u.get(ctx, "/api/builds/"+url.PathEscape(buildID)+"/failure", nil, &p)
}

// RepairBuild creates the next build of a failed build's project from its tree,
// with changes; as CreateProject.
func (u *User) RepairBuild(ctx context.Context, req previewd.RepairBuildRequest) (*previewd.AppCreation, error) {
	return u.create(ctx, "/api/builds/"+url.PathEscape(req.BuildID)+"/repair", req.IdempotencyKey, req)
}

func (u *User) create(ctx context.Context, path, key string, in any) (*previewd.AppCreation, error) {
	var made previewd.AppCreation
	err := u.c.do(ctx, request{method: http.MethodPost, path: path, key: keyOr(key), in: in, out: &made, replay: &made.Replay})
	return &made, err
}

// Intent returns a creation, at once or when it has ended or wait has passed.
func (u *User) Intent(ctx context.Context, id string, wait time.Duration) (*previewd.Intent, error) {
	var in previewd.Intent
	return &in, u.get(ctx, "/api/intents/"+url.PathEscape(id), waitQuery(wait), &in)
}

// CancelIntent takes a pending creation back.
func (u *User) CancelIntent(ctx context.Context, id string) (*previewd.Intent, error) {
	var in previewd.Intent
	return &in, u.post(ctx, "/api/intents/"+url.PathEscape(id)+"/cancel", &in)
}

// Project returns CodeNotFound when the user has no such project.
func (u *User) Project(ctx context.Context, id string) (*previewd.AppProject, error) {
	var p previewd.AppProject
	return &p, u.get(ctx, "/api/projects/"+url.PathEscape(id), nil, &p)
}

// Projects returns a page of the user's projects, newest first.
func (u *User) Projects(ctx context.Context, p previewd.Page) (*previewd.AppProjectPage, error) {
	var page previewd.AppProjectPage
	return &page, u.get(ctx, "/api/projects", pageQuery(p), &page)
}

// RenameProject gives a project another name.
func (u *User) RenameProject(ctx context.Context, id, name string) (*previewd.AppProject, error) {
	var p previewd.AppProject
	err := u.c.do(ctx, request{
		method: http.MethodPatch, path: "/api/projects/" + url.PathEscape(id), in: map[string]string{"name": name}, out: &p,
	})
	return &p, err
}

// DeleteProject deletes a project, its builds and its preview. When the worker
// cannot be reached it is done as soon as it can.
func (u *User) DeleteProject(ctx context.Context, id string) error {
	return u.c.do(ctx, request{method: http.MethodDelete, path: "/api/projects/" + url.PathEscape(id)})
}

// Build returns a build, at once or when its status has changed or wait has
// passed. The server waits at most a minute.
func (u *User) Build(ctx context.Context, id string, wait time.Duration) (*previewd.AppBuild, error) {
	var b previewd.AppBuild
	return &b, u.get(ctx, "/api/builds/"+url.PathEscape(id), waitQuery(wait), &b)
}

// CancelBuild ends a build. It is safe to repeat by its nature.
func (u *User) CancelBuild(ctx context.Context, id string) (*previewd.AppBuild, error) {
	var b previewd.AppBuild
	return &b, u.post(ctx, "/api/builds/"+url.PathEscape(id)+"/cancel", &b)
}

// Billing returns a page of what the user's builds have cost, newest first.
func (u *User) Billing(ctx context.Context, p previewd.Page) (*previewd.BillingPage, error) {
	var page previewd.BillingPage
	return &page, u.get(ctx, "/api/billing/sessions", pageQuery(p), &page)
}

func (u *User) get(ctx context.Context, path string, query url.Values, out any) error {
	return u.c.do(ctx, request{method: http.MethodGet, path: path, query: query, out: out})
}

// post is for what is safe to repeat by its nature.
func (u *User) post(ctx context.Context, path string, out any) error {
	return u.c.do(ctx, request{method: http.MethodPost, path: path, key: previewd.NewRequestID(), out: out})
}

func waitQuery(wait time.Duration) url.Values {
	if wait <= 0 {
		return nil
	}
	return url.Values{"wait": {wait.String()}}
}

// Follow calls event for each event of a project, or with "" of all the user's,
// after a cursor, in order, until ctx ends, event fails, or nothing more is to be
// expected of the project for now. It takes up a broken stream again where it
// was. A snapshot, of how things are, comes as an event of the type "snapshot"
// without a number: it stands for all events before it.
func (u *User) Follow(ctx context.Context, projectID, cursor string, event func(previewd.Event) error) error {
	path := "/api/events"
	if projectID != "" {
		path = "/api/projects/" + url.PathEscape(projectID) + "/events"
	}
	return u.c.follow(ctx, "the events", &cursor, func(ctx context.Context) (done bool, err error) {
		query := url.Values{}
		if cursor != "" {
			query.Set("after", cursor)
		}
		return u.c.readStream(ctx, path, query, func(message sse.Event) error {
			switch message.Type {
			case "reauth":
				return &previewd.Error{Code: previewd.CodeUnauthorized, Message: "The token has expired."}
			case "reset", "bye":
				return nil // a snapshot follows, or the end of the connection
			}
			e, err := readUserEvent(message)
			if err != nil {
				return err
			}
			if message.LastEventID != "" {
				cursor = message.LastEventID
			}
			return event(e)
		})
	})
}

func readUserEvent(message sse.Event) (e previewd.Event, err error) {
	if message.Type != "snapshot" {
		err = json.Unmarshal([]byte(message.Data), &e)
	} else {
		e = previewd.Event{ID: message.LastEventID, Type: "snapshot"}
		err = json.Unmarshal([]byte(message.Data), &e.Data)
	}
	if err != nil {
		err = fmt.Errorf("cannot read event %s: %w", strconv.Quote(message.LastEventID), err)
	}
	return e, err
}

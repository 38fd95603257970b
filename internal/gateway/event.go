package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

// quietFor is how long after the end of its newest build a project's stream goes
// on: its version is activated, and users look at it.
const quietFor = 30 * time.Second

// projectLog is a project's events, by their number in the project.
type projectLog struct {
	*Service
	id string
}

// List implements httpx.EventLog.
func (l projectLog) List(ctx context.Context, after int64, limit int) ([]httpx.LogEvent, error) {
	events, err := l.Store.ListAppProjectEvents(ctx, l.id, after, limit)
	return logEvents(events, func(e *previewd.Event) (string, int64) {
		id := e.ID
		e.Cursor = "" // of another stream
		return id, e.Seq
	}), err
}

// Last implements httpx.EventLog.
func (l projectLog) Last(ctx context.Context) (int64, error) {
	return l.Store.LastAppProjectEvent(ctx, l.id)
}

// Over implements httpx.EventLog: nothing happens to a project whose newest build
// is over until somebody makes another.
func (l projectLog) Over(ctx context.Context) (bool, error) {
	p, err := l.Store.FindAnyAppProject(ctx, l.id)
	if err != nil {
		return false, err
	}
	return p.State == "deleted" || p.Build.FinishedAt != nil && time.Since(p.UpdatedAt) > quietFor, nil
}

// userLog is the events of all projects of a user, by their place among all.
type userLog struct {
	*Service
	id string
}

// List implements httpx.EventLog.
func (l userLog) List(ctx context.Context, after int64, limit int) ([]httpx.LogEvent, error) {
	events, err := l.Store.ListAppOwnerEvents(ctx, l.id, after, limit)
	return logEvents(events, func(e *previewd.Event) (string, int64) {
		c, err := previewd.ParseCursor(e.Cursor)
		if err != nil {
			return "", 0
		}
		return e.Cursor, c.Position
	}), err
}

// Last implements httpx.EventLog.
func (l userLog) Last(ctx context.Context) (int64, error) {
	return l.Store.LastAppOwnerEvent(ctx, l.id)
}

// Over implements httpx.EventLog: a user can always make another project.
func (userLog) Over(context.Context) (bool, error) { return false, nil }

func logEvents(events []previewd.Event, place func(*previewd.Event) (id string, number int64)) []httpx.LogEvent {
	list := make([]httpx.LogEvent, 0, len(events))
	for _, e := range events {
		id, number := place(&e)
		list = append(list, httpx.LogEvent{ID: id, Number: number, Event: e})
	}
	return list
}

// stream is what all streams of the user who asks have in common.
func (a *API) stream(ctx context.Context, cursor string) (httpx.LogStream, error) {
	user := httpx.UserOf(ctx)
	s := httpx.LogStream{Owner: user.ID, Expires: user.Expires, Resumes: cursor != ""}
	var err error
	s.Cursor, err = previewd.ParseCursor(cursor)
	return s, err
}

// followProject answers with the stream of a project of the user's. It returns
// CodeNotFound and CodeInvalid.
func (a *API) followProject(ctx context.Context, projectID, cursor string) (http.HandlerFunc, error) {
	s, err := a.stream(ctx, cursor)
	if err != nil {
		return nil, err
	}
	user := httpx.UserOf(ctx)
	p, err := a.Service.Store.FindAppProject(ctx, user.ID, projectID)
	if err != nil {
		return nil, err
	}
	feed, err := a.Service.Store.FindAppFeed(ctx)
	if err != nil {
		return nil, err
	}
	s.Key, s.Topic, s.Log = "project "+projectID, ProjectTopic(projectID), projectLog{a.Service, projectID}
	s.Head = previewd.Cursor{Generation: feed.Generation, Position: p.LastEventSeq}
	s.Snapshot = func(ctx context.Context) (any, error) { return a.Service.FindProject(ctx, user.ID, projectID) }
	s.Allowed = a.allowed(user, func(ctx context.Context) error {
		_, err := a.Service.Store.FindAppProject(ctx, user.ID, projectID)
		return err
	})
	return a.Streams.FollowLog(ctx, s)
}

// followUser answers with the stream of all projects of the user.
func (a *API) followUser(ctx context.Context, cursor string) (http.HandlerFunc, error) {
	s, err := a.stream(ctx, cursor)
	if err != nil {
		return nil, err
	}
	user := httpx.UserOf(ctx)
	feed, err := a.Service.Store.FindAppFeed(ctx)
	if err != nil {
		return nil, err
	}
	s.Key, s.Topic, s.Log = "user "+user.ID, UserTopic(user.ID), userLog{a.Service, user.ID}
	s.Head = previewd.Cursor{Generation: feed.Generation, Position: feed.Position}
	s.Snapshot = func(ctx context.Context) (any, error) {
		return a.Service.ListProjects(ctx, user.ID, previewd.Page{Limit: maxPage})
	}
	s.Allowed = a.allowed(user, func(context.Context) error { return nil })
	return a.Streams.FollowLog(ctx, s)
}

// allowed says whether a user may go on following: at once not when the user is
// denied, and a minute later not what is no longer the user's. That costs a query.
func (a *API) allowed(user previewd.User, owns func(context.Context) error) func(context.Context) error {
	asked := time.Now()
	return func(ctx context.Context) error {
		if err := a.refuseDenied(ctx, user); err != nil {
			return err
		}
		if time.Since(asked) < a.Recheck {
			return nil
		}
		asked = time.Now()
		return owns(ctx)
	}
}

// refuseDenied returns CodeUnauthorized for a user who is denied.
func (a *API) refuseDenied(ctx context.Context, user previewd.User) error {
	denied, err := a.Denials.Denied(ctx, user.ID, user.SessionID)
	if err == nil && denied {
		err = &previewd.Error{Code: previewd.CodeUnauthorized, Message: "The user is denied."}
	}
	return err
}

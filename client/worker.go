package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/previewd/previewd"
)

// CreatePreview creates a project and its first build. Without an
// IdempotencyKey it makes one for this call.
func (c *Client) CreatePreview(ctx context.Context, req previewd.CreatePreviewRequest) (*previewd.Preview, error) {
	var preview previewd.Preview
	err := c.do(ctx, request{
		method: http.MethodPost, path: "/v1/create-preview-for-new-project",
		key: keyOr(req.IdempotencyKey), in: req, out: &preview, replay: &preview.Replay,
	})
	return &preview, err
}

// CreateBuild creates the next build of a project. Without an IdempotencyKey
// it makes one for this call.
func (c *Client) CreateBuild(ctx context.Context, req previewd.CreateBuildRequest) (*previewd.Build, error) {
	var build previewd.Build
	err := c.do(ctx, request{
		method: http.MethodPost, path: "/v1/projects/" + url.PathEscape(req.ProjectID) + "/builds",
		key: keyOr(req.IdempotencyKey), in: req, out: &build, replay: &build.Replay,
	})
	return &build, err
}

// FindFailure returns what mending a failed build takes.
func (c *Client) FindFailure(ctx context.Context, buildID string) (*previewd.FailurePacket, error) {
	var packet previewd.FailurePacket
	err := c.do(ctx, request{method: http.MethodGet, path: "/v1/builds/" + url.PathEscape(buildID) + "/failure", out: &packet})
	return &packet, err
}

// RepairBuild creates the next build of a failed build's project from its tree,
// with changes. Without an IdempotencyKey it makes one for this call.
func (c *Client) RepairBuild(ctx context.Context, req previewd.RepairBuildRequest) (*previewd.Build, error) {
	var build previewd.Build
	err := c.do(ctx, request{
		method: http.MethodPost, path: "/v1/builds/" + url.PathEscape(req.BuildID) + "/repair",
		key: keyOr(req.IdempotencyKey), in: req, out: &build, replay: &build.Replay,
	})
	return &build, err
}

// CancelBuild ends a build. It is safe to repeat by its nature.
func (c *Client) CancelBuild(ctx context.Context, req previewd.CancelBuildRequest) (*previewd.Build, error) {
	var build previewd.Build
	err := c.do(ctx, request{
		method: http.MethodPost, path: "/v1/builds/" + url.PathEscape(req.BuildID) + "/cancel", key: previewd.NewRequestID(), out: &build,
	})
	return &build, err
}

// DeleteProject deletes a project. It is safe to repeat by its nature.
func (c *Client) DeleteProject(ctx context.Context, req previewd.DeleteProjectRequest) error {
	return c.do(ctx, request{method: http.MethodDelete, path: "/v1/projects/" + url.PathEscape(req.ProjectID)})
}

// FindOperation tells what became of an idempotency key. The caller is who the
// client's token belongs to.
func (c *Client) FindOperation(ctx context.Context, _ previewd.Caller, key string) (*previewd.Operation, error) {
	var op previewd.Operation
	err := c.do(ctx, request{method: http.MethodGet, path: "/v1/operations", query: url.Values{"idempotencyKey": {key}}, out: &op})
	return &op, err
}

// CheckIntegrity looks whether every promise of the server holds now.
func (c *Client) CheckIntegrity(ctx context.Context) (*previewd.Integrity, error) {
	var found previewd.Integrity
	err := c.do(ctx, request{method: http.MethodGet, path: "/v1/integrity", out: &found})
	return &found, err
}

func keyOr(key string) string {
	if key == "" {
		return previewd.NewRequestID()
	}
	return key
}

// FindProject returns CodeNotFound when there is no such project.
func (c *Client) FindProject(ctx context.Context, id string) (*previewd.Project, error) {
	var project previewd.Project
	err := c.do(ctx, request{method: http.MethodGet, path: "/v1/projects/" + url.PathEscape(id), out: &project})
	return &project, err
}

// ListProjects returns a page of projects, newest first.
func (c *Client) ListProjects(ctx context.Context, filter previewd.ProjectFilter) (*previewd.ProjectPage, error) {
	query := pageQuery(filter.Page)
	if filter.UserID != "" {
		query.Set("userId", filter.UserID)
	}
	if filter.CreatedBy != "" {
		query.Set("createdBy", filter.CreatedBy)
	}
	if filter.After != "" {
		query.Set("after", filter.After)
	}
	var page previewd.ProjectPage
	err := c.do(ctx, request{method: http.MethodGet, path: "/v1/projects", query: query, out: &page})
	return &page, err
}

func pageQuery(p previewd.Page) url.Values {
	query := url.Values{}
	if p.Cursor != "" {
		query.Set("cursor", p.Cursor)
	}
	if p.Limit != 0 {
		query.Set("limit", strconv.Itoa(p.Limit))
	}
	return query
}

// FindBuild returns a build, at once or when its status has changed or wait
// has passed. The server waits at most a minute.
func (c *Client) FindBuild(ctx context.Context, id string, wait time.Duration) (*previewd.Build, error) {
	var build previewd.Build
	err := c.do(ctx, request{method: http.MethodGet, path: "/v1/builds/" + url.PathEscape(id), query: waitQuery(wait), out: &build})
	return &build, err
}

// ListEvents returns a page of the feed. The server waits at most a minute.
func (c *Client) ListEvents(ctx context.Context, filter previewd.EventFilter) (*previewd.EventPage, error) {
	query := url.Values{}
	if filter.After != "" {
		query.Set("after", filter.After)
	}
	if filter.Limit != 0 {
		query.Set("limit", strconv.Itoa(filter.Limit))
	}
	if filter.Wait > 0 {
		query.Set("wait", filter.Wait.String())
	}
	var page struct {
		Events []json.RawMessage
		Next   string
		Reset  bool
	}
	if err := c.do(ctx, request{method: http.MethodGet, path: "/v1/events", query: query, out: &page}); err != nil {
		return nil, err
	}
	found := &previewd.EventPage{Events: []previewd.Event{}, Next: page.Next, Reset: page.Reset}
	for _, raw := range page.Events {
		found.Events = append(found.Events, readEvent(raw))
	}
	return found, nil
}

// readEvent reads an event of the feed. One that is none keeps its place only, so
// that it does not keep the others back: its type is "".
func readEvent(raw json.RawMessage) (e previewd.Event) {
	if json.Unmarshal(raw, &e) == nil {
		return e
	}
	var place struct {
		Cursor    string
		ProjectID string
		Seq       int64
	}
	_ = json.Unmarshal(raw, &place) // what it could read of it
	return previewd.Event{Cursor: place.Cursor, ProjectID: place.ProjectID, Seq: place.Seq}
}

// ListTemplates returns the server's built-in templates.
func (c *Client) ListTemplates(ctx context.Context) ([]previewd.Template, error) {
	var list struct{ Templates []previewd.Template }
	err := c.do(ctx, request{method: http.MethodGet, path: "/v1/templates", out: &list})
	return list.Templates, err
}

// ListVersions returns a page of a project's versions, newest first.
func (c *Client) ListVersions(ctx context.Context, projectID string, page previewd.Page) (*previewd.VersionPage, error) {
	var list previewd.VersionPage
	err := c.do(ctx, request{
		method: http.MethodGet, path: "/v1/projects/" + url.PathEscape(projectID) + "/versions", query: pageQuery(page), out: &list,
	})
	return &list, err
}

// ActivateVersion makes a version the project's current one. It is safe to
// repeat by its nature.
func (c *Client) ActivateVersion(ctx context.Context, req previewd.ActivateVersionRequest) (*previewd.Version, error) {
	var version previewd.Version
	err := c.do(ctx, request{
		method: http.MethodPost,
		path:   "/v1/projects/" + url.PathEscape(req.ProjectID) + "/versions/" + strconv.FormatInt(req.Number, 10) + "/activate",
		key:    previewd.NewRequestID(), out: &version,
	})
	return &version, err
}

// ListPackages returns the npm packages that a build was made with.
func (c *Client) ListPackages(ctx context.Context, buildID string) (*previewd.PackageList, error) {
	var list previewd.PackageList
	err := c.do(ctx, request{method: http.MethodGet, path: "/v1/builds/" + url.PathEscape(buildID) + "/packages", out: &list})
	return &list, err
}

// ReadLog returns a build's log from a byte offset.
func (c *Client) ReadLog(ctx context.Context, buildID string, offset int64, limit int) (*previewd.LogChunk, error) {
	query := url.Values{"offset": {strconv.FormatInt(offset, 10)}}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	response, err := c.send(ctx, request{method: http.MethodGet, path: "/v1/builds/" + url.PathEscape(buildID) + "/log", query: query}, nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return &previewd.LogChunk{
		Offset: offset, Next: offset + int64(len(data)), Data: data, Complete: response.Header.Get("Log-Complete") == "true",
	}, err
}

package workerapi

import (
	"context"
	"time"

	"github.com/previewd/previewd"
)

// ListEnv implements previewd.Worker.
func (c *Client) ListEnv(ctx context.Context, projectID string) ([]previewd.EnvVar, error) {
	if !previewd.IsID(projectID) {
		return nil, previewd.NotFound("project", projectID)
	}
	return ask(ctx, c, c.read(),
		func(ctx context.Context, _ time.Duration) ([]previewd.EnvVar, error) {
			return c.worker.ListEnv(ctx, projectID)
		},
		checkEnv)
}

// SetEnv implements previewd.Worker.
func (c *Client) SetEnv(ctx context.Context, req previewd.SetEnvRequest) (*previewd.EnvVar, error) {
	switch {
	case !previewd.IsID(req.ProjectID):
		return nil, previewd.NotFound("project", req.ProjectID)
	case !previewd.IsEnvName(req.Name): // it may be no path to ask at
		return nil, previewd.BadEnvName()
	}
	return ask(ctx, c, call{timeout: c.cfg.Timeouts.Change, caller: req.Caller},
		func(ctx context.Context, _ time.Duration) (*previewd.EnvVar, error) {
			return c.worker.SetEnv(ctx, req)
		},
		func(v *previewd.EnvVar) error { return checkEnvVar(v, req.Name) })
}

// DeleteEnv implements previewd.Worker.
func (c *Client) DeleteEnv(ctx context.Context, req previewd.DeleteEnvRequest) error {
	switch {
	case !previewd.IsID(req.ProjectID):
		return previewd.NotFound("project", req.ProjectID)
	case !previewd.IsEnvName(req.Name):
		return previewd.BadEnvName()
	}
	_, err := ask(ctx, c, call{timeout: c.cfg.Timeouts.Change, caller: req.Caller, form: formNone},
		func(ctx context.Context, _ time.Duration) (struct{}, error) {
			return struct{}{}, c.worker.DeleteEnv(ctx, req)
		},
		func(struct{}) error { return nil })
	return err
}

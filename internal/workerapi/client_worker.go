package workerapi

import (
	"cmp"
	"context"
	"time"

	"github.com/previewd/previewd"
)

// CreatePreview implements previewd.Worker. It needs a key: without one, a
// repeated request could create two projects.
func (c *Client) CreatePreview(ctx context.Context, req previewd.CreatePreviewRequest) (*previewd.Preview, error) {
	if req.IdempotencyKey == "" {
		return nil, keyMissing()
	}
	preview, err := ask(ctx, c, call{timeout: c.cfg.Timeouts.Change, caller: req.Caller},
		func(ctx context.Context, _ time.Duration) (*previewd.Preview, error) {
			return c.worker.CreatePreview(ctx, req)
		},
		func(p *previewd.Preview) error { return checkPreview(p, req) })
	if err == nil && preview.Replayed == "" {
		c.recent.add(preview.ProjectID, preview.ProjectID, preview.BuildID)
	}
	return preview, err
}

// CreateBuild implements previewd.Worker. It needs a key.
func (c *Client) CreateBuild(ctx context.Context, req previewd.CreateBuildRequest) (*previewd.Build, error) {
	switch {
	case req.IdempotencyKey == "":
		return nil, keyMissing()
	case req.ProjectID == "": // no path to ask at
		return nil, previewd.NotFound("project", "")
	}
	build, err := ask(ctx, c, call{timeout: c.cfg.Timeouts.Change, caller: req.Caller},
		func(ctx context.Context, _ time.Duration) (*previewd.Build, error) {
			return c.worker.CreateBuild(ctx, req)
		},
		func(b *previewd.Build) error { return checkBuild(b, "", req.ProjectID) })
	if err == nil && build.Replayed == "" {
		c.recent.add(build.ProjectID, build.ID)
	}
	return build, err
}

// FindFailure implements previewd.Worker.
func (c *Client) FindFailure(ctx context.Context, buildID string) (*previewd.FailurePacket, error) {
	if !previewd.IsID(buildID) {
		return nil, previewd.NotFound("build", buildID)
	}
	return ask(ctx, c, c.read(),
		func(ctx context.Context, _ time.Duration) (*previewd.FailurePacket, error) {
			return c.worker.FindFailure(ctx, buildID)
		},
		func(p *previewd.FailurePacket) error { return checkFailure(p, buildID) })
}

// RepairBuild implements previewd.Worker. It needs a key.
func (c *Client) RepairBuild(ctx context.Context, req previewd.RepairBuildRequest) (*previewd.Build, error) {
	switch {
	case req.IdempotencyKey == "":
		return nil, keyMissing()
	case !previewd.IsID(req.BuildID):
		return nil, previewd.NotFound("build", req.BuildID)
	}
	build, err := ask(ctx, c, call{timeout: c.cfg.Timeouts.Change, caller: req.Caller},
		func(ctx context.Context, _ time.Duration) (*previewd.Build, error) {
			return c.worker.RepairBuild(ctx, req)
		},
		func(b *previewd.Build) error {
			return cmp.Or(checkBuild(b, "", ""), isID("repairs", b.Repairs, req.BuildID))
		})
	if err == nil && build.Replayed == "" {
		c.recent.add(build.ProjectID, build.ID)
	}
	return build, err
}

func keyMissing() error {
	return &previewd.Error{Code: previewd.CodeKeyMissing, Message: "What creates something needs an idempotency key."}
}

// CancelBuild implements previewd.Worker.
func (c *Client) CancelBuild(ctx context.Context, req previewd.CancelBuildRequest) (*previewd.Build, error) {
	if !previewd.IsID(req.BuildID) {
		return nil, previewd.NotFound("build", req.BuildID)
	}
	return ask(ctx, c, call{timeout: c.cfg.Timeouts.Change, caller: req.Caller, key: previewd.NewRequestID()},
		func(ctx context.Context, _ time.Duration) (*previewd.Build, error) {
			return c.worker.CancelBuild(ctx, req)
		},
		func(b *previewd.Build) error { return checkBuild(b, req.BuildID, "") })
}

// DeleteProject implements previewd.Worker.
func (c *Client) DeleteProject(ctx context.Context, req previewd.DeleteProjectRequest) error {
	if !previewd.IsID(req.ProjectID) {
		return previewd.NotFound("project", req.ProjectID)
	}
	c.recent.forget(req.ProjectID) // before: what is not found from now on may be deleted
	_, err := ask(ctx, c, call{timeout: c.cfg.Timeouts.Change, caller: req.Caller, form: formNone},
		func(ctx context.Context, _ time.Duration) (struct{}, error) {
			return struct{}{}, c.worker.DeleteProject(ctx, req)
		},
		func(struct{}) error { return nil })
	return err
}

// ActivateVersion implements previewd.Worker.
func (c *Client) ActivateVersion(ctx context.Context, req previewd.ActivateVersionRequest) (*previewd.Version, error) {
	switch {
	case !previewd.IsID(req.ProjectID):
		return nil, previewd.NotFound("project", req.ProjectID)
	case req.Number < 1: // numbers count from 1
		return nil, previewd.NotFound("version", req.ProjectID)
	}
	return ask(ctx, c, call{timeout: c.cfg.Timeouts.Change, caller: req.Caller, key: previewd.NewRequestID()},
		func(ctx context.Context, _ time.Duration) (*previewd.Version, error) {
			return c.worker.ActivateVersion(ctx, req)
		},
		func(v *previewd.Version) error { return checkVersion(v, req.ProjectID, req.Number) })
}

// FindProject implements previewd.Worker.
func (c *Client) FindProject(ctx context.Context, id string) (*previewd.Project, error) {
	if !previewd.IsID(id) {
		return nil, previewd.NotFound("project", id)
	}
	return patiently(ctx, c, id, func() (*previewd.Project, error) {
		return ask(ctx, c, c.read(),
			func(ctx context.Context, _ time.Duration) (*previewd.Project, error) {
				return c.worker.FindProject(ctx, id)
			},
			func(p *previewd.Project) error { return checkProject(p, id, "") })
	})
}

// FindBuild implements previewd.Worker. It waits for a minute at most, and not
// at all while the worker has to show that it is back.
func (c *Client) FindBuild(ctx context.Context, id string, wait time.Duration) (*previewd.Build, error) {
	if !previewd.IsID(id) {
		return nil, previewd.NotFound("build", id)
	}
	return patiently(ctx, c, id, func() (*previewd.Build, error) {
		return ask(ctx, c, c.poll(wait),
			func(ctx context.Context, wait time.Duration) (*previewd.Build, error) {
				return c.worker.FindBuild(ctx, id, wait)
			},
			func(b *previewd.Build) error { return checkBuild(b, id, "") })
	})
}

// ListEvents implements previewd.Worker. It waits as FindBuild does.
func (c *Client) ListEvents(ctx context.Context, filter previewd.EventFilter) (*previewd.EventPage, error) {
	return ask(ctx, c, c.poll(filter.Wait),
		func(ctx context.Context, wait time.Duration) (*previewd.EventPage, error) {
			filter.Wait = wait
			return c.worker.ListEvents(ctx, filter)
		},
		func(p *previewd.EventPage) error { return checkEvents(p, filter) })
}

// ListProjects implements previewd.Worker.
func (c *Client) ListProjects(ctx context.Context, filter previewd.ProjectFilter) (*previewd.ProjectPage, error) {
	return ask(ctx, c, c.read(),
		func(ctx context.Context, _ time.Duration) (*previewd.ProjectPage, error) {
			return c.worker.ListProjects(ctx, filter)
		},
		func(p *previewd.ProjectPage) error { return checkProjects(p, filter) })
}

// ListVersions implements previewd.Worker.
func (c *Client) ListVersions(ctx context.Context, projectID string, page previewd.Page) (*previewd.VersionPage, error) {
	if projectID == "" { // no path to ask at
		return nil, previewd.NotFound("project", "")
	}
	return ask(ctx, c, c.read(),
		func(ctx context.Context, _ time.Duration) (*previewd.VersionPage, error) {
			return c.worker.ListVersions(ctx, projectID, page)
		},
		func(p *previewd.VersionPage) error { return checkVersions(p, projectID, page) })
}

// ListTemplates implements previewd.Worker.
func (c *Client) ListTemplates(ctx context.Context) ([]previewd.Template, error) {
	return ask(ctx, c, c.read(),
		func(ctx context.Context, _ time.Duration) ([]previewd.Template, error) {
			return c.worker.ListTemplates(ctx)
		},
		checkTemplates)
}

// ListPackages implements previewd.Worker.
func (c *Client) ListPackages(ctx context.Context, buildID string) (*previewd.PackageList, error) {
	if !previewd.IsID(buildID) {
		return nil, previewd.NotFound("build", buildID)
	}
	return ask(ctx, c, c.read(),
		func(ctx context.Context, _ time.Duration) (*previewd.PackageList, error) {
			return c.worker.ListPackages(ctx, buildID)
		},
		func(l *previewd.PackageList) error { return isID("buildId", l.BuildID, buildID) })
}

// maxLogChunk is what the worker answers at most.
const maxLogChunk = 256 << 10

// ReadLog implements previewd.Worker.
func (c *Client) ReadLog(ctx context.Context, buildID string, offset int64, limit int) (*previewd.LogChunk, error) {
	if !previewd.IsID(buildID) {
		return nil, previewd.NotFound("build", buildID)
	}
	if limit <= 0 || limit > maxLogChunk {
		limit = maxLogChunk
	}
	o := c.read()
	o.form = formText
	return ask(ctx, c, o,
		func(ctx context.Context, _ time.Duration) (*previewd.LogChunk, error) {
			return c.worker.ReadLog(ctx, buildID, offset, limit)
		},
		func(l *previewd.LogChunk) error { return checkLog(l, limit) })
}

// FindOperation implements previewd.Worker. The caller is who the client's token
// belongs to.
func (c *Client) FindOperation(ctx context.Context, caller previewd.Caller, key string) (*previewd.Operation, error) {
	o := c.read()
	o.caller = caller
	return ask(ctx, c, o,
		func(ctx context.Context, _ time.Duration) (*previewd.Operation, error) {
			return c.worker.FindOperation(ctx, caller, key)
		},
		func(op *previewd.Operation) error { return checkOperation(op, key) })
}

// CheckIntegrity implements previewd.Worker.
func (c *Client) CheckIntegrity(ctx context.Context) (*previewd.Integrity, error) {
	return ask(ctx, c, call{timeout: c.cfg.Timeouts.Integrity},
		func(ctx context.Context, _ time.Duration) (*previewd.Integrity, error) {
			return c.worker.CheckIntegrity(ctx)
		},
		checkIntegrity)
}

func (c *Client) read() call { return call{timeout: c.cfg.Timeouts.Read} }

// maxWait is how long the worker lets anybody wait.
const maxWait = time.Minute

func (c *Client) poll(wait time.Duration) call {
	wait = min(max(wait, 0), maxWait)
	return call{timeout: c.cfg.Timeouts.Read + wait, wait: wait}
}

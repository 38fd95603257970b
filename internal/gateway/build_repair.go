package gateway

import (
	"context"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// RepairBuild is a request for the next build of a project, from a failed build's
// tree with changes.
type RepairBuild struct {
	BuildID       string
	Prompt        string // "" means the build's
	TemplateFiles previewd.Files
	Remove        []string // paths of the build's tree
}

// FindFailure returns what mending a failed build of the user's takes. It returns
// CodeNotFound, and CodeNotFailed.
func (s *Service) FindFailure(ctx context.Context, userID, buildID string) (*previewd.FailurePacket, error) {
	if _, err := s.Store.FindAppBuild(ctx, userID, buildID); err != nil {
		return nil, err
	}
	return s.Worker.FindFailure(ctx, buildID)
}

// RepairBuild makes the next build of a project of the user's from a failed one.
// Beside what CreateBuild returns it returns CodeNotFailed and CodeBuildOutdated.
func (s *Service) RepairBuild(ctx context.Context, req Request, want RepairBuild) (*previewd.AppCreation, error) {
	b, err := s.Store.FindAppBuild(ctx, req.User.ID, want.BuildID)
	if err != nil {
		return nil, err
	}
	a := ask{Prompt: want.Prompt, Files: want.TemplateFiles, Repairs: b.ID, Remove: want.Remove}
	return s.create(ctx, req, previewd.IntentCreateBuild, b.ProjectID, a)
}

// checkRepairs refuses to repair what has not failed.
func (c *creation) checkRepairs(ctx context.Context, tx *store.DB) error {
	if c.ask.Repairs == "" {
		return nil
	}
	b, err := tx.FindAppBuild(ctx, c.intent.UserID, c.ask.Repairs)
	if err == nil && b.Status != previewd.ProjectFailed {
		err = &previewd.Error{Code: previewd.CodeNotFailed, Message: "The build has not failed: it is " + string(b.Status) + ".", Details: "build " + b.ID}
	}
	return err
}

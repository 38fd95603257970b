package worker

import (
	"context"

	"github.com/previewd/previewd"
)

// seen is the worker as one principal sees it.
type seen struct {
	*Service
	principal string
}

// For returns the worker as a principal sees it through /v1: a project's key is
// told only to who has sent it.
func (s *Service) For(principal string) previewd.Worker { return seen{s, principal} }

// FindProject implements previewd.Worker.
func (s seen) FindProject(ctx context.Context, id string) (*previewd.Project, error) {
	p, err := s.Service.FindProject(ctx, id)
	if err == nil {
		p.HideKey(s.principal)
	}
	return p, err
}

// ListProjects implements previewd.Worker.
func (s seen) ListProjects(ctx context.Context, filter previewd.ProjectFilter) (*previewd.ProjectPage, error) {
	page, err := s.Service.ListProjects(ctx, filter)
	if err == nil {
		for i := range page.Projects {
			page.Projects[i].HideKey(s.principal)
		}
	}
	return page, err
}

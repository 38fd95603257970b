package workerapi

import (
	"context"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

type listProjectsInput struct {
	httpx.PageInput
	UserID    string `query:"userId" doc:"Only this user's."`
	CreatedBy string `query:"createdBy" doc:"Only those that this service asked for."`
	After     string `query:"after" doc:"Only those whose id sorts after this project's: made later, unless a client has made the id."`
}

type listProjectsOutput struct {
	Body *previewd.ProjectPage
}

func (s *Server) listProjects(ctx context.Context, in *listProjectsInput) (*listProjectsOutput, error) {
	page, err := s.Worker.ListProjects(ctx, previewd.ProjectFilter{
		UserID: in.UserID, CreatedBy: in.CreatedBy, After: in.After, Page: in.Page(),
	})
	if err != nil {
		return nil, err
	}
	for i := range page.Projects {
		page.Projects[i].HideKey(httpx.CallerOf(ctx).Principal)
	}
	return &listProjectsOutput{Body: page}, nil
}

type projectInput struct {
	ProjectID string `path:"projectId"`
}

type projectOutput struct {
	Body *previewd.Project
}

func (s *Server) getProject(ctx context.Context, in *projectInput) (*projectOutput, error) {
	project, err := s.Worker.FindProject(ctx, in.ProjectID)
	if err != nil {
		return nil, err
	}
	project.HideKey(httpx.CallerOf(ctx).Principal)
	return &projectOutput{Body: project}, nil
}

func (s *Server) deleteProject(ctx context.Context, in *projectInput) (*struct{}, error) {
	return nil, s.Worker.DeleteProject(ctx, previewd.DeleteProjectRequest{ProjectID: in.ProjectID, Caller: httpx.CallerOf(ctx)})
}

type listVersionsInput struct {
	httpx.PageInput
	ProjectID string `path:"projectId"`
}

type listVersionsOutput struct {
	Body *previewd.VersionPage
}

func (s *Server) listVersions(ctx context.Context, in *listVersionsInput) (*listVersionsOutput, error) {
	page, err := s.Worker.ListVersions(ctx, in.ProjectID, in.Page())
	if err != nil {
		return nil, err
	}
	return &listVersionsOutput{Body: page}, nil
}

type activateVersionInput struct {
	ProjectID string `path:"projectId"`
	Number    int64  `path:"number" minimum:"1"`
}

type versionOutput struct {
	Body *previewd.Version
}

func (s *Server) activateVersion(ctx context.Context, in *activateVersionInput) (*versionOutput, error) {
	version, err := s.Worker.ActivateVersion(ctx, previewd.ActivateVersionRequest{
		ProjectID: in.ProjectID, Number: in.Number, Caller: httpx.CallerOf(ctx),
	})
	if err != nil {
		return nil, err
	}
	return &versionOutput{Body: version}, nil
}

type listTemplatesOutput struct {
	Body templatesBody
}

type templatesBody struct {
	Templates []previewd.Template `json:"templates" nullable:"false"`
}

func (s *Server) listTemplates(ctx context.Context, _ *struct{}) (*listTemplatesOutput, error) {
	templates, err := s.Worker.ListTemplates(ctx)
	if err != nil {
		return nil, err
	}
	return &listTemplatesOutput{Body: templatesBody{Templates: templates}}, nil
}

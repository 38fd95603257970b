package gateway

import (
	"context"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

type createBuildInput struct {
	httpx.KeyInput
	ProjectID string `path:"projectId"`
	Body      createBuildBody
}

type createBuildBody struct {
	Prompt        string               `json:"prompt,omitempty" doc:"At most 32 KiB."`
	Template      string               `json:"template,omitempty" doc:"Name of a built-in template; files are laid over it."`
	TemplateFiles httpx.TemplateFiles  `json:"templateFiles,omitempty"`
	Metadata      map[string]any       `json:"metadata,omitempty" doc:"As for a new project; at most 16 KiB."`
	Policy        previewd.BuildPolicy `json:"policy,omitempty" enum:"supersede,queue,reject" doc:"What becomes of a build of the project that is not over: supersede (the default) ends it, queue lets one that runs go on and ends one that waits, reject refuses the new build with 409."`
}

func (a *API) createBuild(ctx context.Context, in *createBuildInput) (*creationOutput, error) {
	files, err := in.Body.TemplateFiles.Files()
	if err != nil {
		return nil, err
	}
	answer, err := a.Service.CreateBuild(ctx, requestOf(ctx, in.Key()), CreateBuild{
		ProjectID: in.ProjectID, Prompt: in.Body.Prompt, Template: in.Body.Template, TemplateFiles: files,
		Metadata: in.Body.Metadata, Policy: in.Body.Policy,
	})
	if err != nil {
		return nil, err
	}
	return buildCreationOf(answer), nil
}

func buildCreationOf(answer *previewd.AppCreation) *creationOutput {
	out := creationOf(answer)
	if answer.Build != nil {
		out.Location = "/api/builds/" + answer.Build.ID
	}
	return out
}

func (a *API) getFailure(ctx context.Context, in *buildInput) (*output[*previewd.FailurePacket], error) {
	packet, err := a.Service.FindFailure(ctx, httpx.UserOf(ctx).ID, in.BuildID)
	return &output[*previewd.FailurePacket]{packet}, err
}

func (a *API) listPackages(ctx context.Context, in *buildInput) (*output[*previewd.PackageList], error) {
	list, err := a.Service.ListPackages(ctx, httpx.UserOf(ctx).ID, in.BuildID)
	return &output[*previewd.PackageList]{list}, err
}

type repairBuildInput struct {
	httpx.KeyInput
	BuildID string `path:"buildId"`
	Body    httpx.RepairBody
}

func (a *API) repairBuild(ctx context.Context, in *repairBuildInput) (*creationOutput, error) {
	files, err := in.Body.TemplateFiles.Files()
	if err != nil {
		return nil, err
	}
	answer, err := a.Service.RepairBuild(ctx, requestOf(ctx, in.Key()), RepairBuild{
		BuildID: in.BuildID, Prompt: in.Body.Prompt, TemplateFiles: files, Remove: in.Body.Remove,
	})
	if err != nil {
		return nil, err
	}
	return buildCreationOf(answer), nil
}

type listBuildsInput struct {
	httpx.PageInput
	ProjectID string `path:"projectId"`
}

func (a *API) listBuilds(ctx context.Context, in *listBuildsInput) (*output[*AppBuildPage], error) {
	page, err := a.Service.ListBuilds(ctx, httpx.UserOf(ctx).ID, in.ProjectID, in.Page())
	return &output[*AppBuildPage]{page}, err
}

type getBuildInput struct {
	BuildID string `path:"buildId"`
	Wait    string `query:"wait" doc:"Wait up to this long, such as 30s, for the status to change or the build to end; at most 60s." example:"30s"`
}

func (a *API) getBuild(ctx context.Context, in *getBuildInput) (*output[*previewd.AppBuild], error) {
	wait, err := httpx.ParseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	b, err := a.Service.WaitBuild(ctx, httpx.UserOf(ctx).ID, in.BuildID, wait)
	return &output[*previewd.AppBuild]{b}, err
}

// WaitBuild returns a build of the user's once its status differs from what it
// was at the call, or it is over, or wait has passed, with its place in the queue
// if the worker says it in time. It returns CodeNotFound.
func (s *Service) WaitBuild(ctx context.Context, userID, id string, wait time.Duration) (*previewd.AppBuild, error) {
	b, err := s.Store.FindAppBuild(ctx, userID, id)
	if err != nil {
		return nil, err
	}
	if was := b.Status; wait > 0 && b.FinishedAt == nil {
		err = s.Changes.Wait(ctx, ProjectTopic(b.ProjectID), wait, func() (done bool, err error) {
			b, err = s.Store.FindAppBuild(ctx, userID, id)
			return err == nil && b.Status != was, err
		})
		if err != nil {
			return nil, err
		}
	}
	s.place(ctx, &b.AppBuild)
	return &b.AppBuild, nil
}

type buildInput struct {
	httpx.KeyInput
	BuildID string `path:"buildId"`
}

func (a *API) cancelBuild(ctx context.Context, in *buildInput) (*output[*previewd.AppBuild], error) {
	b, err := a.Service.CancelBuild(ctx, requestOf(ctx, ""), in.BuildID)
	return &output[*previewd.AppBuild]{b}, err
}

func (a *API) readLog(ctx context.Context, in *httpx.ReadLogInput) (*httpx.ReadLogOutput, error) {
	chunk, err := a.Service.ReadLog(ctx, httpx.UserOf(ctx).ID, in.BuildID, in.Offset, in.Limit)
	if err != nil {
		return nil, err
	}
	return httpx.LogOutput(chunk), nil
}

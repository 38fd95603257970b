package workerapi

import (
	"context"
	"net/http"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

type createBuildInput struct {
	httpx.RequiredKeyInput
	ProjectID string `path:"projectId"`
	Body      createBuildBody
}

type createBuildBody struct {
	Prompt        string              `json:"prompt,omitempty" doc:"At most 32 KiB."`
	TemplateFiles httpx.TemplateFiles `json:"templateFiles,omitempty"`
	Metadata      map[string]any      `json:"metadata,omitempty" doc:"As for a new project; at most 16 KiB."`

	Policy previewd.BuildPolicy `json:"policy,omitempty" enum:"supersede,queue,reject" doc:"What becomes of a build of the project that is not over: supersede (the default) ends it, queue lets one that runs go on and ends one that waits, reject refuses the new build with 409."`
}

type createBuildOutput struct {
	Status   int
	Location string `header:"Location"`
	httpx.ReplayOutput
	Body *previewd.Build
}

func (s *Server) createBuild(ctx context.Context, in *createBuildInput) (*createBuildOutput, error) {
	files, err := in.Body.TemplateFiles.Files()
	if err != nil {
		return nil, err
	}
	build, err := s.Worker.CreateBuild(ctx, previewd.CreateBuildRequest{
		ProjectID: in.ProjectID, Prompt: in.Body.Prompt, TemplateFiles: files, Metadata: in.Body.Metadata,
		Policy: in.Body.Policy, IdempotencyKey: in.Key(), Caller: httpx.CallerOf(ctx),
	})
	if err != nil {
		return nil, err
	}
	return createdBuild(build), nil
}

func createdBuild(build *previewd.Build) *createBuildOutput {
	return &createBuildOutput{
		Status: httpx.CreatedStatus(build.Replay), Location: "/v1/builds/" + build.ID, ReplayOutput: httpx.ReplayOf(build.Replay), Body: build,
	}
}

type getBuildInput struct {
	BuildID string `path:"buildId"`
	Wait    string `query:"wait" doc:"Wait up to this long, such as 30s, for the status to change or the build to end; at most 60s." example:"30s"`
}

type buildOutput struct {
	Status int
	Body   *previewd.Build
}

func (s *Server) getBuild(ctx context.Context, in *getBuildInput) (*buildOutput, error) {
	wait, err := httpx.ParseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	build, err := s.Worker.FindBuild(ctx, in.BuildID, wait)
	if err != nil {
		return nil, err
	}
	return &buildOutput{Status: http.StatusOK, Body: build}, nil
}

func (s *Server) readLog(ctx context.Context, in *httpx.ReadLogInput) (*httpx.ReadLogOutput, error) {
	chunk, err := s.Worker.ReadLog(ctx, in.BuildID, in.Offset, in.Limit)
	if err != nil {
		return nil, err
	}
	return httpx.LogOutput(chunk), nil
}

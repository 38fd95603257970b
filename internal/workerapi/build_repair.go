package workerapi

import (
	"context"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

type oneBuildInput struct {
	BuildID string `path:"buildId"`
}

type failureOutput struct {
	Body *previewd.FailurePacket
}

func (s *Server) getFailure(ctx context.Context, in *oneBuildInput) (*failureOutput, error) {
	packet, err := s.Worker.FindFailure(ctx, in.BuildID)
	if err != nil {
		return nil, err
	}
	return &failureOutput{Body: packet}, nil
}

type packagesOutput struct {
	Body *previewd.PackageList
}

func (s *Server) listPackages(ctx context.Context, in *oneBuildInput) (*packagesOutput, error) {
	list, err := s.Worker.ListPackages(ctx, in.BuildID)
	if err != nil {
		return nil, err
	}
	return &packagesOutput{Body: list}, nil
}

type repairBuildInput struct {
	httpx.RequiredKeyInput
	BuildID string `path:"buildId"`
	Body    httpx.RepairBody
}

func (s *Server) repairBuild(ctx context.Context, in *repairBuildInput) (*createBuildOutput, error) {
	files, err := in.Body.TemplateFiles.Files()
	if err != nil {
		return nil, err
	}
	build, err := s.Worker.RepairBuild(ctx, previewd.RepairBuildRequest{
		BuildID: in.BuildID, Prompt: in.Body.Prompt, TemplateFiles: files, Remove: in.Body.Remove,
		IdempotencyKey: in.Key(), Caller: httpx.CallerOf(ctx),
	})
	if err != nil {
		return nil, err
	}
	return createdBuild(build), nil
}

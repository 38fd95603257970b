package workerapi

import (
	"context"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

type failureInput struct {
	BuildID string `path:"buildId"`
}

type failureOutput struct {
	Body *previewd.FailurePacket
}

func (s *Server) getFailure(ctx context.Context, in *failureInput) (*failureOutput, error) {
	packet, err := s.Worker.FindFailure(ctx, in.BuildID)
	if err != nil {
		return nil, err
	}
	return &failureOutput{Body: packet}, nil
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

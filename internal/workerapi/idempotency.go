package workerapi

import (
	"context"
	"net/http"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

type findOperationInput struct {
	IdempotencyKey string `query:"idempotencyKey" required:"true" doc:"The key to ask for."`
}

type operationOutput struct {
	Body *previewd.Operation
}

func (s *Server) findOperation(ctx context.Context, in *findOperationInput) (*operationOutput, error) {
	key, err := httpx.ParseKey([]string{in.IdempotencyKey})
	if err != nil {
		return nil, err
	}
	op, err := s.Worker.FindOperation(ctx, httpx.CallerOf(ctx), key)
	if err != nil {
		return nil, err
	}
	return &operationOutput{Body: op}, nil
}

type cancelBuildInput struct {
	httpx.KeyInput
	BuildID string `path:"buildId"`
}

func (s *Server) cancelBuild(ctx context.Context, in *cancelBuildInput) (*buildOutput, error) {
	build, err := s.Worker.CancelBuild(ctx, previewd.CancelBuildRequest{BuildID: in.BuildID, Caller: httpx.CallerOf(ctx)})
	if err != nil {
		return nil, err
	}
	return &buildOutput{Status: http.StatusOK, Body: build}, nil
}

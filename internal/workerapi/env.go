package workerapi

import (
	"context"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

type envOutput struct {
	Body httpx.EnvList
}

func (s *Server) listEnv(ctx context.Context, in *projectInput) (*envOutput, error) {
	list, err := s.Worker.ListEnv(ctx, in.ProjectID)
	if err != nil {
		return nil, err
	}
	return &envOutput{Body: httpx.EnvList{Variables: list}}, nil
}

type setEnvOutput struct {
	Body *previewd.EnvVar
}

func (s *Server) setEnv(ctx context.Context, in *httpx.SetEnvInput) (*setEnvOutput, error) {
	v, err := s.Worker.SetEnv(ctx, in.Request(httpx.CallerOf(ctx)))
	if err != nil {
		return nil, err
	}
	return &setEnvOutput{Body: v}, nil
}

func (s *Server) deleteEnv(ctx context.Context, in *httpx.EnvInput) (*struct{}, error) {
	return nil, s.Worker.DeleteEnv(ctx, previewd.DeleteEnvRequest{ProjectID: in.ProjectID, Name: in.Name, Caller: httpx.CallerOf(ctx)})
}

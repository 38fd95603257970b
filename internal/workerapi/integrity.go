package workerapi

import (
	"context"

	"github.com/previewd/previewd"
)

type integrityOutput struct {
	Body *previewd.Integrity
}

func (s *Server) checkIntegrity(ctx context.Context, _ *struct{}) (*integrityOutput, error) {
	found, err := s.Worker.CheckIntegrity(ctx)
	if err != nil {
		return nil, err
	}
	return &integrityOutput{Body: found}, nil
}

package worker

import (
	"context"
	"net/http"

	"github.com/previewd/previewd"
)

// FindOperation implements previewd.Worker. What a key has made is told for
// ever, what it was answered for as long as answers are kept.
func (s *Service) FindOperation(ctx context.Context, caller previewd.Caller, key string) (*previewd.Operation, error) {
	stored, err := s.Store.FindKey(ctx, caller.Principal, key)
	if err != nil {
		return nil, err
	}
	op := &previewd.Operation{IdempotencyKey: key, Operation: operationCreatePreview, Status: http.StatusCreated}
	if stored == nil {
		op.ProjectID, op.CreatedAt, err = s.Store.FindProjectByKey(ctx, caller.Principal, key)
		if err == nil && op.ProjectID == "" {
			err = &previewd.Error{Code: previewd.CodeNotFound, Message: "The key has answered no request: it is free.", Details: key}
		}
		if err != nil {
			return nil, err
		}
		return op, nil
	}
	op.Operation, op.Status, op.RequestID, op.CreatedAt = stored.Operation, stored.Status, stored.RequestID, stored.CreatedAt
	if stored.Operation == operationCreatePreview {
		op.ProjectID = stored.ResourceID
		return op, nil
	}
	op.BuildID = stored.ResourceID
	return op, nil
}

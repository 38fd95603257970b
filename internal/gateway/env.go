package gateway

import (
	"context"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// ListEnv returns the variables of a project of the user's. It returns
// CodeNotFound.
func (s *Service) ListEnv(ctx context.Context, userID, projectID string) ([]previewd.EnvVar, error) {
	if _, err := s.Store.FindAppProject(ctx, userID, projectID); err != nil {
		return nil, err
	}
	return s.Worker.ListEnv(ctx, projectID)
}

// SetEnv stores a variable of a project of the user's. It returns CodeNotFound and
// what previewd.EnvKeeper does.
func (s *Service) SetEnv(ctx context.Context, req Request, set previewd.SetEnvRequest) (*previewd.EnvVar, error) {
	if _, err := s.Store.FindAppProject(ctx, req.User.ID, set.ProjectID); err != nil {
		return nil, err
	}
	call, cancel := context.WithTimeout(ctx, workerTime)
	defer cancel()
	set.Caller = s.caller(req.RequestID)
	v, err := s.Worker.SetEnv(call, set)
	if err != nil {
		return nil, err
	}
	return v, s.auditEnv(ctx, req, set.ProjectID, "env.set", map[string]any{"name": v.Name, "secret": v.Secret, "scopes": v.Scopes})
}

// DeleteEnv removes a variable of a project of the user's, if there is one of the
// name. It returns CodeNotFound when the user has no such project.
func (s *Service) DeleteEnv(ctx context.Context, req Request, projectID, name string) error {
	if _, err := s.Store.FindAppProject(ctx, req.User.ID, projectID); err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, workerTime)
	defer cancel()
	err := s.Worker.DeleteEnv(call, previewd.DeleteEnvRequest{ProjectID: projectID, Name: name, Caller: s.caller(req.RequestID)})
	if err != nil {
		return err
	}
	return s.auditEnv(ctx, req, projectID, "env.delete", map[string]any{"name": name})
}

// auditEnv notes a change without its value.
func (s *Service) auditEnv(ctx context.Context, req Request, projectID, action string, data map[string]any) error {
	data["requestId"] = req.RequestID
	return s.Store.Tx(ctx, "app.env", func(tx *store.DB) error {
		return audit(ctx, tx, userActor(req.User.ID), store.AuditEntry{Action: action, Subject: "project/" + projectID, Data: data})
	})
}

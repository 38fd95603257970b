package gateway

import (
	"context"
	"net/http"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
)

// maxAttention bounds the list of what needs an operator.
const maxAttention = 200

// Attention is what needs an operator, the first of each kind.
type Attention struct {
	Projects []AttentionProject `json:"projects" nullable:"false"`
	Events   []AttentionEvent   `json:"events" nullable:"false"`
}

// AttentionProject is a project that needs an operator.
type AttentionProject struct {
	ID     string `json:"id"`
	UserID string `json:"userId"`
	Name   string `json:"name"`
	Why    string `json:"why"`
}

// AttentionEvent is an event of the worker's that could not be applied.
type AttentionEvent struct {
	previewd.Event
	Error    string `json:"error"`
	Attempts int    `json:"attempts"`
}

func (a *API) listAttention(ctx context.Context, _ *struct{}) (*output[*Attention], error) {
	found := &Attention{Projects: []AttentionProject{}, Events: []AttentionEvent{}}
	projects, err := a.Service.Store.ListAttention(ctx, maxAttention)
	if err != nil {
		return nil, err
	}
	for _, p := range projects {
		found.Projects = append(found.Projects, AttentionProject{p.ID, p.OwnerID, p.Name, p.Attention})
	}
	events, err := a.Service.Store.ListPoison(ctx, maxAttention)
	for _, e := range events {
		found.Events = append(found.Events, AttentionEvent{e.Event, e.Error, e.Attempts})
	}
	return &output[*Attention]{found}, err
}

func (a *API) settleAttention(ctx context.Context, in *projectInput) (*deleteOutput, error) {
	return &deleteOutput{http.StatusNoContent}, a.Service.Settle(ctx, requestOf(ctx, ""), in.ProjectID)
}

// Settle takes a project off the list of those that need an operator, with its
// events that could not be applied. Those after which none was applied are tried
// again, the others forgotten: no event is applied after a later one. It returns
// CodeNotFound.
func (s *Service) Settle(ctx context.Context, req Request, projectID string) error {
	err := s.Store.Tx(ctx, "attention.settle", func(tx *store.DB) error {
		if _, err := tx.LockAppProject(ctx, projectID); err != nil {
			return err
		}
		if err := tx.UpdateAppProject(ctx, projectID, store.AppProjectChange{Attention: new("")}); err != nil {
			return err
		}
		if err := tx.RetryPoison(ctx, projectID); err != nil {
			return err
		}
		return audit(ctx, tx, actor("operator/"+req.User.ID), store.AuditEntry{
			Action: "project.settled", Subject: "project/" + projectID, Data: map[string]any{"requestId": httpx.RequestID(ctx)},
		})
	})
	if err == nil {
		s.Changes.Notify(followTopic)
	}
	return err
}

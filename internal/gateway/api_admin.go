package gateway

import (
	"context"
	"net/http"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
)

// AdminIntent is an intent as an operator sees it.
type AdminIntent struct {
	previewd.Intent
	UserID    string `json:"userId"`
	WorkerKey string `json:"workerKey" doc:"The Idempotency-Key that the worker is asked with."`
	RequestID string `json:"requestId"`
}

// IntentPage is one page of intents.
type IntentPage struct {
	Intents []AdminIntent `json:"intents" nullable:"false"`
	Next    string        `json:"nextCursor,omitempty"`
}

type listIntentsInput struct {
	httpx.PageInput
	State previewd.IntentState `query:"state" enum:"pending,confirmed,rejected,canceled,attention" default:"attention"`
}

func (a *API) listIntents(ctx context.Context, in *listIntentsInput) (*output[*IntentPage], error) {
	limit, below, err := pageOf(in.Page())
	if err != nil {
		return nil, err
	}
	list, err := a.Service.Store.ListIntents(ctx, in.State, below, limit+1)
	if err != nil {
		return nil, err
	}
	page := &IntentPage{Intents: []AdminIntent{}}
	list, page.Next = paged(list, limit, func(in *store.Intent) string { return in.ID })
	for _, in := range list {
		page.Intents = append(page.Intents, AdminIntent{in.Intent, in.UserID, in.WorkerKey, in.RequestID})
	}
	return &output[*IntentPage]{page}, nil
}

func (a *API) retryIntent(ctx context.Context, in *cancelIntentInput) (*output[*previewd.Intent], error) {
	intent, err := a.Service.RetryIntent(ctx, requestOf(ctx, ""), in.IntentID)
	return &output[*previewd.Intent]{intent}, err
}

// RetryIntent has the worker asked about an open intent now, whoever's it is. One
// that needed attention is asked for again, for as long as a new one. It returns
// CodeConflict for one that has ended, and CodeNotFound.
func (s *Service) RetryIntent(ctx context.Context, req Request, id string) (*previewd.Intent, error) {
	var in *store.Intent
	err := s.Store.Tx(ctx, "intent.retry", func(tx *store.DB) (err error) {
		if in, err = tx.LockIntent(ctx, id); err != nil {
			return err
		}
		if in.State.Final() {
			return &previewd.Error{Code: previewd.CodeConflict, Message: "The intent has ended.", Details: "intent " + id + " " + string(in.State)}
		}
		if err := tx.ReviveIntent(ctx, id, tx.Now().Add(s.Deadline)); err != nil {
			return err
		}
		return audit(ctx, tx, actor("operator/"+req.User.ID), store.AuditEntry{
			Action: "intent.retry", Subject: "intent/" + id, Data: map[string]any{"requestId": req.RequestID},
		})
	})
	if err != nil {
		return nil, err
	}
	s.Changes.Notify(intentsTopic)
	return s.FindIntent(ctx, "", id)
}

type referenceInput struct {
	ReferenceID string `path:"referenceId"`
}

func (a *API) findReference(ctx context.Context, in *referenceInput) (*output[*previewd.ReferenceInfo], error) {
	info, err := a.References.FindReference(ctx, in.ReferenceID)
	return &output[*previewd.ReferenceInfo]{info}, err
}

type deniedList struct {
	Denied []store.Denied `json:"denied" nullable:"false"`
}

func (a *API) listDenied(ctx context.Context, _ *struct{}) (*output[deniedList], error) {
	list, err := a.Service.Store.ListDenied(ctx)
	return &output[deniedList]{deniedList{append([]store.Denied{}, list...)}}, err
}

type denyInput struct {
	Body struct {
		store.DeniedSubject
		Reason string `json:"reason" maxLength:"500"`
	}
}

func (a *API) deny(ctx context.Context, in *denyInput) (*deleteOutput, error) {
	err := a.Service.Deny(ctx, requestOf(ctx, ""), in.Body.DeniedSubject, in.Body.Reason)
	return &deleteOutput{http.StatusNoContent}, err
}

type allowInput struct {
	Kind    string `path:"kind" enum:"user,session"`
	Subject string `path:"subject"`
}

func (a *API) allow(ctx context.Context, in *allowInput) (*deleteOutput, error) {
	err := a.Service.Allow(ctx, requestOf(ctx, ""), store.DeniedSubject{Kind: in.Kind, Subject: in.Subject})
	return &deleteOutput{http.StatusNoContent}, err
}

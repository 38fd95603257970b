package gateway

import (
	"context"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
)

type getIntentInput struct {
	IntentID string `path:"intentId"`
	Wait     string `query:"wait" doc:"Wait up to this long, such as 30s, for the intent to end; at most 60s." example:"30s"`
}

func (a *API) getIntent(ctx context.Context, in *getIntentInput) (*output[*previewd.Intent], error) {
	wait, err := httpx.ParseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	intent, err := a.Service.WaitIntent(ctx, httpx.UserOf(ctx).ID, in.IntentID, wait)
	return &output[*previewd.Intent]{intent}, err
}

// WaitIntent returns an intent of the user's once it has ended, or wait has
// passed. It returns CodeNotFound.
func (s *Service) WaitIntent(ctx context.Context, userID, id string, wait time.Duration) (*previewd.Intent, error) {
	var in *store.Intent
	err := s.Changes.Wait(ctx, intentTopic(id), wait, func() (done bool, err error) {
		in, err = s.Store.FindIntent(ctx, userID, id)
		return err == nil && in.State.Final(), err
	})
	if err != nil {
		return nil, err
	}
	return &in.Intent, nil
}

type cancelIntentInput struct {
	httpx.KeyInput
	IntentID string `path:"intentId"`
}

func (a *API) cancelIntent(ctx context.Context, in *cancelIntentInput) (*output[*previewd.Intent], error) {
	intent, err := a.Service.CancelIntent(ctx, requestOf(ctx, ""), in.IntentID)
	return &output[*previewd.Intent]{intent}, err
}

func (a *API) listBilling(ctx context.Context, in *httpx.PageInput) (*output[*previewd.BillingPage], error) {
	page, err := a.Service.ListBilling(ctx, httpx.UserOf(ctx).ID, in.Page())
	return &output[*previewd.BillingPage]{page}, err
}

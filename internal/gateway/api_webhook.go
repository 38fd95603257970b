package gateway

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/webhook"
)

// webhookRoutes are those of a user's webhooks, and below /api/admin those of the
// operator's, which are told of all users' events.
func (a *API) webhookRoutes(api huma.API) {
	const get, post, patch, del = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
	for _, w := range []webhookAPI{
		{a, httpx.User, "/api/webhooks", "", func(ctx context.Context) string { return httpx.UserOf(ctx).ID }},
		{a, httpx.Operator, "/api/admin/webhooks", "admin-", func(context.Context) string { return store.Operator }},
	} {
		route := func(method, path, verb, noun, summary string) huma.Operation {
			return op(method, w.path+path, verb+"-"+w.prefix+noun, summary)
		}
		one, delivery := "/{webhookId}", "/{webhookId}/deliveries/{deliveryId}"
		made := route(post, "", "create", "webhook", "Have a URL told of events")
		made.DefaultStatus = http.StatusCreated
		httpx.Route(api, w.access, made, w.create)
		httpx.Route(api, w.access, route(get, "", "list", "webhooks", "List webhooks"), w.list)
		httpx.Route(api, w.access, route(get, one, "get", "webhook", "Read a webhook"), w.find)
		httpx.Route(api, w.access, route(patch, one, "update", "webhook", "Change a webhook, disable or enable it"), w.update)
		httpx.Route(api, w.access, route(del, one, "delete", "webhook", "Delete a webhook"), w.delete)
		httpx.Route(api, w.access, route(post, one+"/rotate", "rotate", "webhook-secret", "Make a new secret; for a day both sign"), w.rotate)
		httpx.Route(api, w.access, route(post, one+"/test", "test", "webhook", "Send a test"), w.test)
		httpx.Route(api, w.access, route(get, one+"/deliveries", "list", "webhook-deliveries", "List what was sent, newest first"), w.deliveries)
		httpx.Route(api, w.access, route(get, delivery, "get", "webhook-delivery", "Read what was sent, and each attempt"), w.delivery)
		httpx.Route(api, w.access, route(post, delivery+"/replay", "replay", "webhook-delivery", "Send an event again"), w.replay)
	}
}

// webhookAPI answers the routes of one kind of owners.
type webhookAPI struct {
	*API
	access httpx.Access
	path   string
	prefix string
	owner  func(context.Context) string
}

type createWebhookInput struct {
	Body struct {
		URL         string   `json:"url" doc:"https://, reachable from outside." example:"https://example.com/hooks/previewd"`
		Types       []string `json:"types,omitempty" doc:"Types of events, or groups as build.*; none is all."`
		Description string   `json:"description,omitempty"`
	}
}

func (w webhookAPI) create(ctx context.Context, in *createWebhookInput) (*output[*webhook.CreatedEndpoint], error) {
	e, err := w.Hooks.Create(ctx, webhook.NewEndpoint{
		OwnerID: w.owner(ctx), URL: in.Body.URL, Types: in.Body.Types, Description: in.Body.Description,
	})
	return &output[*webhook.CreatedEndpoint]{e}, err
}

type webhookList struct {
	Webhooks []previewd.WebhookEndpoint `json:"webhooks" nullable:"false"`
}

func (w webhookAPI) list(ctx context.Context, _ *struct{}) (*output[webhookList], error) {
	list, err := w.Hooks.List(ctx, w.owner(ctx))
	return &output[webhookList]{webhookList{append([]previewd.WebhookEndpoint{}, list...)}}, err
}

type webhookInput struct {
	WebhookID string `path:"webhookId"`
}

func (w webhookAPI) find(ctx context.Context, in *webhookInput) (*output[*previewd.WebhookEndpoint], error) {
	e, err := w.Hooks.Find(ctx, w.owner(ctx), in.WebhookID)
	return &output[*previewd.WebhookEndpoint]{e}, err
}

type updateWebhookInput struct {
	WebhookID string `path:"webhookId"`
	Body      struct {
		URL         *string   `json:"url,omitempty"`
		Types       *[]string `json:"types,omitempty"`
		Description *string   `json:"description,omitempty"`
		Active      *bool     `json:"active,omitempty" doc:"false drops what is pending; true begins with the next event."`
	}
}

func (w webhookAPI) update(ctx context.Context, in *updateWebhookInput) (*output[*previewd.WebhookEndpoint], error) {
	e, err := w.Hooks.Update(ctx, w.owner(ctx), in.WebhookID, webhook.UpdateEndpoint{
		URL: in.Body.URL, Types: in.Body.Types, Description: in.Body.Description, Active: in.Body.Active,
	})
	return &output[*previewd.WebhookEndpoint]{e}, err
}

func (w webhookAPI) delete(ctx context.Context, in *webhookInput) (*deleteOutput, error) {
	return &deleteOutput{http.StatusNoContent}, w.Hooks.Delete(ctx, w.owner(ctx), in.WebhookID)
}

func (w webhookAPI) rotate(ctx context.Context, in *webhookInput) (*output[*webhook.CreatedEndpoint], error) {
	e, err := w.Hooks.RotateSecret(ctx, w.owner(ctx), in.WebhookID)
	return &output[*webhook.CreatedEndpoint]{e}, err
}

func (w webhookAPI) test(ctx context.Context, in *webhookInput) (*output[*previewd.WebhookDelivery], error) {
	d, err := w.Hooks.SendTest(ctx, w.owner(ctx), in.WebhookID)
	return &output[*previewd.WebhookDelivery]{d}, err
}

type listDeliveriesInput struct {
	WebhookID string                         `path:"webhookId"`
	Status    previewd.WebhookDeliveryStatus `query:"status" enum:"pending,delivered,failed,dropped"`
	After     string                         `query:"after" doc:"next of the page before."`
	Limit     int                            `query:"limit" minimum:"0" maximum:"200" doc:"Most items of a page; default 50."`
}

func (w webhookAPI) deliveries(ctx context.Context, in *listDeliveriesInput) (*output[*previewd.WebhookDeliveryPage], error) {
	page, err := w.Hooks.ListDeliveries(ctx, w.owner(ctx), in.WebhookID, previewd.WebhookDeliveryFilter{
		Status: in.Status, After: in.After, Limit: in.Limit,
	})
	return &output[*previewd.WebhookDeliveryPage]{page}, err
}

type deliveryInput struct {
	WebhookID  string `path:"webhookId"`
	DeliveryID string `path:"deliveryId"`
}

func (w webhookAPI) delivery(ctx context.Context, in *deliveryInput) (*output[*previewd.WebhookDelivery], error) {
	d, err := w.Hooks.FindDelivery(ctx, w.owner(ctx), in.WebhookID, in.DeliveryID)
	return &output[*previewd.WebhookDelivery]{d}, err
}

func (w webhookAPI) replay(ctx context.Context, in *deliveryInput) (*output[*previewd.WebhookDelivery], error) {
	d, err := w.Hooks.Replay(ctx, w.owner(ctx), in.WebhookID, in.DeliveryID)
	return &output[*previewd.WebhookDelivery]{d}, err
}

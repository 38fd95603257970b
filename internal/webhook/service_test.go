package webhook_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/webhook"
)

func TestEndpointLife(t *testing.T) {
	t.Parallel()
	eachSetup(t, nil, func(t *testing.T, s *setup) {
		ctx := t.Context()
		require.Regexp(t, `^we_[a-z2-7]{26}$`, s.endpoint.ID)
		require.True(t, strings.HasPrefix(s.endpoint.Secret, "whsec_"))
		types, text, url := []string{"build.*", "build.*", "version.activated"}, "main", s.receiver.URL+"/other"
		e, err := s.service.Update(ctx, owner, s.endpoint.ID, webhook.UpdateEndpoint{Types: &types, Description: &text, URL: &url})
		require.NoError(t, err)
		require.Equal(t, []string{"build.*", "version.activated"}, e.Types)
		require.Equal(t, e, s.found())
		list, err := s.service.List(ctx, owner)
		require.NoError(t, err)
		require.Equal(t, []previewd.WebhookEndpoint{*e}, list)

		s.tell("e1")
		inactive := false
		e, err = s.service.Update(ctx, owner, e.ID, webhook.UpdateEndpoint{Active: &inactive})
		require.NoError(t, err)
		require.Equal(t, previewd.WebhookDisabled, e.Status)
		require.Equal(t, previewd.WebhookDropped, s.delivery("e1").Status)
		for _, act := range []func() error{
			func() error { _, err := s.service.SendTest(ctx, owner, e.ID); return err },
			func() error { _, err := s.service.Replay(ctx, owner, e.ID, e.ID+".e1"); return err },
		} {
			require.Equal(t, previewd.CodeConflict, previewd.ErrorCode(act()))
		}
		require.NoError(t, s.service.Delete(ctx, owner, e.ID))
		_, err = s.service.Find(ctx, owner, e.ID)
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err))
		subject := " webhook/" + e.ID + " ann"
		require.Equal(t, []string{"webhook.create" + subject, "webhook.update" + subject, "webhook.update" + subject, "webhook.delete" + subject}, s.audits)
	})
}

func TestBadEndpointsAreRefused(t *testing.T) {
	t.Parallel()
	eachSetup(t, nil, func(t *testing.T, s *setup) {
		strict := webhook.NewService(webhook.ServiceConfig{Store: s.db})
		for _, bad := range []webhook.NewEndpoint{
			{URL: "http://example.com/"}, {URL: "https://127.0.0.1/"}, {URL: "https://2130706433/"},
			{URL: "https://example.com/", Types: []string{"build.step"}}, {URL: "https://example.com/", Types: []string{"*"}},
			{URL: "https://example.com/", Types: []string{"build.%"}}, {URL: "https://example.com/", Types: []string{""}},
			{URL: "https://example.com/", Description: strings.Repeat("x", 501)},
		} {
			bad.OwnerID = owner
			_, err := strict.Create(t.Context(), bad)
			require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err), bad)
		}
		for range 19 {
			_, err := strict.Create(t.Context(), webhook.NewEndpoint{OwnerID: owner, URL: "https://example.com/"})
			require.NoError(t, err)
		}
		_, err := strict.Create(t.Context(), webhook.NewEndpoint{OwnerID: owner, URL: "https://example.com/"})
		require.Equal(t, previewd.CodeConflict, previewd.ErrorCode(err))
	})
}

// What is another's is not there, whatever one asks for.
func TestOthersEndpointsAreNotThere(t *testing.T) {
	t.Parallel()
	eachSetup(t, nil, func(t *testing.T, s *setup) {
		s.tell("e1")
		id, delivery := s.endpoint.ID, s.endpoint.ID+".e1"
		bobs, err := s.service.Create(t.Context(), webhook.NewEndpoint{OwnerID: "bob", URL: s.receiver.URL})
		require.NoError(t, err)
		for _, other := range []string{"bob", store.Operator} {
			ctx := t.Context()
			for name, act := range map[string]func() error{
				"Find":         func() error { _, err := s.service.Find(ctx, other, id); return err },
				"Update":       func() error { _, err := s.service.Update(ctx, other, id, webhook.UpdateEndpoint{}); return err },
				"Delete":       func() error { return s.service.Delete(ctx, other, id) },
				"RotateSecret": func() error { _, err := s.service.RotateSecret(ctx, other, id); return err },
				"ListDeliveries": func() error {
					_, err := s.service.ListDeliveries(ctx, other, id, previewd.WebhookDeliveryFilter{})
					return err
				},
				"FindDelivery":  func() error { _, err := s.service.FindDelivery(ctx, other, id, delivery); return err },
				"Replay":        func() error { _, err := s.service.Replay(ctx, other, id, delivery); return err },
				"SendTest":      func() error { _, err := s.service.SendTest(ctx, other, id); return err },
				"ByOwnEndpoint": func() error { _, err := s.service.FindDelivery(ctx, "bob", bobs.ID, delivery); return err },
				"ReplayByOwn":   func() error { _, err := s.service.Replay(ctx, "bob", bobs.ID, delivery); return err },
			} {
				require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(act()), name)
			}
		}
	})
}

func TestReplay(t *testing.T) {
	t.Parallel()
	eachSetup(t, nil, func(t *testing.T, s *setup) {
		s.clock.stop()
		ctx := t.Context()
		s.tell("e1")
		d := s.deliverer()
		require.Equal(t, 1, s.once(d))
		for n := 1; n <= 3; n++ {
			again, err := s.service.Replay(ctx, owner, s.endpoint.ID, s.endpoint.ID+".e1")
			require.NoError(t, err)
			require.Equal(t, n, again.Replay)
			require.Equal(t, "e1", again.WebhookID)
			require.Equal(t, 1, s.once(d))
		}
		calls := s.receiver.all()
		require.Len(t, calls, 4)
		for _, c := range calls {
			require.Equal(t, "e1", c.header.Get("webhook-id"))
			require.Equal(t, calls[0].body, c.body)
		}
		// One that is pending is hurried instead.
		s.receiver.answers(status(500))
		s.tell("e2")
		require.Equal(t, 1, s.once(d))
		require.Zero(t, s.once(d))
		same, err := s.service.Replay(ctx, owner, s.endpoint.ID, s.endpoint.ID+".e2")
		require.NoError(t, err)
		require.Zero(t, same.Replay)
		require.Equal(t, 1, s.once(d))
		require.Equal(t, 2, s.delivery("e2").Attempts)
	})
}

func TestSendTest(t *testing.T) {
	t.Parallel()
	eachSetup(t, nil, func(t *testing.T, s *setup) {
		e := s.create("/picky", "version.activated")
		_, err := s.service.SendTest(t.Context(), owner, e.ID)
		require.NoError(t, err)
		d := s.deliverer()
		require.Equal(t, 1, s.once(d))
		got := s.receiver.all()[0]
		require.Equal(t, "/picky", got.path)
		require.Contains(t, string(got.body), `"type":"webhook.test"`)
		s.receiver.answers(status(500))
		failed, err := s.service.SendTest(t.Context(), owner, e.ID)
		require.NoError(t, err)
		require.Equal(t, 1, s.once(d))
		failed, err = s.service.FindDelivery(t.Context(), owner, e.ID, failed.ID)
		require.NoError(t, err)
		require.Equal(t, previewd.WebhookFailed, failed.Status)
		found, err := s.service.Find(t.Context(), owner, e.ID)
		require.NoError(t, err)
		require.Nil(t, found.FailingSince, "a test says nothing of the endpoint")
	})
}

// For a day both secrets sign, so that receivers change when they like.
func TestRotation(t *testing.T) {
	t.Parallel()
	eachSetup(t, nil, func(t *testing.T, s *setup) {
		d := s.deliverer()
		rotated, err := s.service.RotateSecret(t.Context(), owner, s.endpoint.ID)
		require.NoError(t, err)
		old, current := s.endpoint.Secret, rotated.Secret
		require.NotEqual(t, old, current)
		verify := func(secret string) error {
			all := s.receiver.all()
			got := all[len(all)-1]
			reference, err := standardwebhooks.NewWebhook(secret)
			require.NoError(t, err)
			return reference.VerifyIgnoringTimestamp(got.body, got.header) // the clock is ours
		}
		s.tell("e1")
		require.Equal(t, 1, s.once(d))
		require.NoError(t, verify(old))
		require.NoError(t, verify(current))
		s.clock.advance(23 * time.Hour)
		s.tell("e2")
		require.Equal(t, 1, s.once(d))
		require.NoError(t, verify(old))
		s.clock.advance(61 * time.Minute)
		s.tell("e3")
		require.Equal(t, 1, s.once(d))
		require.ErrorIs(t, verify(old), standardwebhooks.ErrNoMatchingSignature)
		require.NoError(t, verify(current))
		require.NoError(t, d.Prune(t.Context()))
		require.Nil(t, s.found().BothSignUntil)
	})
}

func TestDeliveriesArePaged(t *testing.T) {
	t.Parallel()
	eachSetup(t, nil, func(t *testing.T, s *setup) {
		s.tell(numbers("e", 25)...) // all at the same time
		var seen []string
		f := previewd.WebhookDeliveryFilter{Limit: 10}
		for pages := 0; pages == 0 || f.After != ""; pages++ {
			require.Less(t, pages, 4)
			page, err := s.service.ListDeliveries(t.Context(), owner, s.endpoint.ID, f)
			require.NoError(t, err)
			for _, d := range page.Deliveries {
				require.NotContains(t, seen, d.ID)
				seen = append(seen, d.ID)
			}
			f.After = page.Next
		}
		require.Len(t, seen, 25)
		require.Equal(t, 2, s.once(s.deliverer()))
		page, err := s.service.ListDeliveries(t.Context(), owner, s.endpoint.ID, previewd.WebhookDeliveryFilter{Status: previewd.WebhookDelivered})
		require.NoError(t, err)
		require.Len(t, page.Deliveries, 2)
		require.Empty(t, page.Next)
		for _, bad := range []string{"x", "!", "MQ", "MSAA"} {
			_, err := s.service.ListDeliveries(t.Context(), owner, s.endpoint.ID, previewd.WebhookDeliveryFilter{After: bad})
			require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err), bad)
		}
	})
}

// What cannot be written to the audit log does not happen.
func TestAuditIsPartOfTheChange(t *testing.T) {
	t.Parallel()
	eachSetup(t, status(http.StatusGone), func(t *testing.T, s *setup) {
		failure := errors.New("no audit")
		deaf := webhook.NewService(webhook.ServiceConfig{Store: s.db, Egress: s.egress, Audit: func(context.Context, *store.DB, string, string, map[string]any) error { return failure }})
		before := s.found()
		for i, act := range []func() error{
			func() error {
				_, err := deaf.Create(t.Context(), webhook.NewEndpoint{OwnerID: owner, URL: s.receiver.URL})
				return err
			},
			func() error { _, err := deaf.RotateSecret(t.Context(), owner, before.ID); return err },
			func() error { _, err := deaf.SendTest(t.Context(), owner, before.ID); return err },
			func() error { return deaf.Delete(t.Context(), owner, before.ID) },
		} {
			require.ErrorIs(t, act(), failure, "%d", i)
		}
		list, err := s.service.List(t.Context(), owner)
		require.NoError(t, err)
		require.Equal(t, []previewd.WebhookEndpoint{*before}, list)
		require.Zero(t, s.once(s.deliverer()))
	})
}

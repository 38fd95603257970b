package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
)

// ticketFor is how long a ticket is good.
const ticketFor = time.Minute

// StreamTicket lets a browser follow a stream without a header.
type StreamTicket struct {
	Ticket    string    `json:"ticket" doc:"Goes into the query of one stream, as ticket. It is good once."`
	ExpiresAt time.Time `json:"expiresAt"`
}

// NewTicket returns a ticket for one stream of the user's.
func (s *Service) NewTicket(ctx context.Context, user previewd.User) (*StreamTicket, error) {
	t := &StreamTicket{Ticket: "tkt_" + rand.Text()}
	err := s.Store.Tx(ctx, "ticket", func(tx *store.DB) error {
		t.ExpiresAt = tx.Now().Add(ticketFor)
		return tx.InsertStreamTicket(ctx, ticketHash(t.Ticket), user, t.ExpiresAt)
	})
	return t, err
}

// TakeTicket returns whose ticket it is, once. It returns CodeUnauthorized for one
// that is none, was used or is too old.
func (s *Service) TakeTicket(ctx context.Context, ticket string) (user *previewd.User, err error) {
	err = s.Store.Tx(ctx, "ticket.take", func(tx *store.DB) (err error) {
		user, err = tx.TakeStreamTicket(ctx, ticketHash(ticket))
		return err
	})
	if err == nil && (user == nil || !user.Expires.IsZero() && user.Expires.Before(time.Now())) {
		return nil, &previewd.Error{
			Code: previewd.CodeUnauthorized, Message: "The ticket is not good: each is for one stream, and for a minute. Get a new one.",
		}
	}
	return user, err
}

func ticketHash(ticket string) string {
	sum := sha256.Sum256([]byte(ticket))
	return hex.EncodeToString(sum[:])
}

// takeTicket is TakeTicket for those who are not denied.
func (a *API) takeTicket(ctx context.Context, ticket string) (*previewd.User, error) {
	user, err := a.Service.TakeTicket(ctx, ticket)
	if err != nil {
		return nil, err
	}
	return user, a.refuseDenied(ctx, *user)
}

func (*API) ticketOp() huma.Operation {
	o := op(http.MethodPost, "/api/stream-tickets", "create-stream-ticket", "Get a ticket for a stream of a browser that can send no header")
	o.DefaultStatus = http.StatusCreated
	return o
}

func (a *API) createTicket(ctx context.Context, _ *struct{}) (*output[*StreamTicket], error) {
	t, err := a.Service.NewTicket(ctx, httpx.UserOf(ctx))
	return &output[*StreamTicket]{t}, err
}

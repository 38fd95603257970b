package worker

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// NewToken is what a service token is made of.
type NewToken struct {
	Name      string          // unique among tokens that are not revoked
	Service   string          // default Name
	Principal string          // default Service
	Scopes    previewd.Scopes // default all but operate
	LegacyIDs bool
	Expires   time.Duration // from now; 0: never
}

var (
	tokenName      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	tokenPrincipal = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}$`)
)

// tokenActor is who makes and revokes tokens, for the audit log: whoever can
// write the database.
const tokenActor = "operator/tokens"

func (n *NewToken) complete() error {
	if n.Service == "" {
		n.Service = n.Name
	}
	if n.Principal == "" {
		n.Principal = n.Service
	}
	if len(n.Scopes) == 0 {
		n.Scopes = previewd.Scopes{previewd.ScopeProjectsRead, previewd.ScopeProjectsWrite, previewd.ScopeEventsRead}
	}
	switch {
	case !tokenName.MatchString(n.Name):
		return invalid("A token's name has 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit.", n.Name)
	case !tokenName.MatchString(n.Service):
		return invalid("A service's name has 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit.", n.Service)
	case !tokenPrincipal.MatchString(n.Principal):
		return invalid("A principal has 1 to 128 of A-Z a-z 0-9 . _ : / @ - and begins with a letter or digit.", n.Principal)
	case n.Expires < 0:
		return invalid("A token cannot expire before it is made.", n.Expires.String())
	}
	var scopes previewd.Scopes
	for _, scope := range n.Scopes {
		if !previewd.AllScopes().Has(scope) {
			return invalid(fmt.Sprintf("There is no such scope; there are %s.", previewd.AllScopes()), string(scope))
		}
		if !scopes.Has(scope) {
			scopes = append(scopes, scope)
		}
	}
	n.Scopes = scopes
	return nil
}

// CreateToken makes a service token and returns it with its secret, which is
// kept nowhere. It returns CodeInvalid for what a token cannot be, and
// CodeConflict when a token that is not revoked has the name.
func (s *Service) CreateToken(ctx context.Context, n NewToken) (t *previewd.Token, secret string, err error) {
	if err := n.complete(); err != nil {
		return nil, "", err
	}
	t = &previewd.Token{
		ID: previewd.NewTokenID(), Name: n.Name, Principal: n.Principal, Service: n.Service, Scopes: n.Scopes, LegacyIDs: n.LegacyIDs,
	}
	secret = previewd.NewTokenSecret()
	err = s.Store.Tx(ctx, "token.create", func(tx *store.DB) error {
		same, err := tx.FindTokenByName(ctx, n.Name)
		if err != nil {
			return err
		}
		if same != nil {
			return &previewd.Error{
				Code: previewd.CodeConflict, Message: "A token has this name already: choose another, or revoke that one first.", Details: same.ID,
			}
		}
		if t.CreatedAt = tx.Now(); n.Expires > 0 {
			t.ExpiresAt = new(tx.Now().Add(n.Expires))
		}
		if err := tx.InsertToken(ctx, t, previewd.DigestOf([]byte(secret))); err != nil {
			return err
		}
		return tx.AppendAudit(ctx, store.AuditEntry{Actor: tokenActor, Action: "token.create", Subject: "token/" + t.ID, Data: map[string]any{
			"name": t.Name, "principal": t.Principal, "service": t.Service, "scopes": t.Scopes, "legacyIds": t.LegacyIDs, "expiresAt": t.ExpiresAt,
		}})
	})
	if err != nil {
		return nil, "", err
	}
	return t, secret, nil
}

// ListTokens returns the tokens that are good, the oldest first; all of them
// when so asked.
func (s *Service) ListTokens(ctx context.Context, all bool) ([]previewd.Token, error) {
	stored, err := s.Store.ListTokens(ctx)
	list := []previewd.Token{}
	for _, t := range stored {
		if all || t.Live(time.Now()) {
			list = append(list, *t)
		}
	}
	return list, err
}

// RevokeToken ends a token, named by its id or, while it is not revoked, by its
// name. Servers refuse it within two seconds. Revoking it again changes nothing.
// It returns CodeNotFound when there is no such token.
func (s *Service) RevokeToken(ctx context.Context, idOrName string) (*previewd.Token, error) {
	var t *previewd.Token
	err := s.Store.Tx(ctx, "token.revoke", func(tx *store.DB) (err error) {
		if t, err = tx.FindTokenByName(ctx, idOrName); err != nil {
			return err
		}
		if t == nil {
			return previewd.NotFound("token", idOrName)
		}
		if t.RevokedAt != nil {
			return nil
		}
		if err := tx.RevokeToken(ctx, t.ID); err != nil {
			return err
		}
		t.RevokedAt = new(tx.Now())
		return tx.AppendAudit(ctx, store.AuditEntry{
			Actor: tokenActor, Action: "token.revoke", Subject: "token/" + t.ID, Data: map[string]any{"name": t.Name},
		})
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

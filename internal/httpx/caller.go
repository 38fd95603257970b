package httpx

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
)

// Callers knows who bears a service token.
type Callers interface {
	// FindCaller tells whose the secret is and what it may be used for. ok is false
	// when it is nobody's; an error says that this cannot be told now.
	FindCaller(ctx context.Context, secret string) (caller previewd.Caller, scopes previewd.Scopes, ok bool, err error)
}

// Token is a service token of the configuration: who may call, with all scopes,
// and what the caller is.
type Token struct {
	Secret string
	Caller previewd.Caller
}

// Tokens are the Callers of a configuration.
type Tokens []Token

// FindCaller implements Callers. It compares digests in constant time, so that
// neither a token's length nor its beginning can be found by timing.
func (tokens Tokens) FindCaller(_ context.Context, secret string) (previewd.Caller, previewd.Scopes, bool, error) {
	got := sha256.Sum256([]byte(secret))
	for _, t := range tokens {
		want := sha256.Sum256([]byte(t.Secret))
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			return t.Caller, previewd.AllScopes(), true, nil
		}
	}
	return previewd.Caller{}, nil, false, nil
}

// CallerChain asks one after the other, until one knows.
type CallerChain []Callers

// FindCaller implements Callers.
func (chain CallerChain) FindCaller(ctx context.Context, secret string) (previewd.Caller, previewd.Scopes, bool, error) {
	for _, callers := range chain {
		if caller, scopes, ok, err := callers.FindCaller(ctx, secret); ok || err != nil {
			return caller, scopes, ok, err
		}
	}
	return previewd.Caller{}, nil, false, nil
}

type callerKey struct{}

// CallerOf returns who sent the request that ctx belongs to.
func CallerOf(ctx context.Context) previewd.Caller {
	caller, _ := ctx.Value(callerKey{}).(previewd.Caller)
	caller.RequestID = RequestID(ctx)
	return caller
}

// RequireService lets a request pass that bears a service token with the scope
// that its route names.
func RequireService(api huma.API, callers Callers) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		security := ctx.Operation().Security
		if len(security) == 0 {
			next(ctx)
			return
		}
		var scope previewd.Scope // "" is in no token's scopes
		if scopes := security[0][schemeService]; len(scopes) == 1 {
			scope = previewd.Scope(scopes[0])
		}
		caller, p, challenge := admit(ctx.Context(), callers, ctx.Header("Authorization"), scope)
		if p != nil {
			refuse(api, ctx, p, challenge)
			return
		}
		next(huma.WithValue(ctx, callerKey{}, caller))
	}
}

// refuse answers a request before its handler, with a challenge unless it is "".
func refuse(api huma.API, ctx huma.Context, p *Problem, challenge string) {
	if challenge != "" {
		ctx.SetHeader("WWW-Authenticate", challenge)
	}
	for name, values := range p.headers() {
		ctx.SetHeader(name, values[0])
	}
	_ = huma.WriteErr(api, ctx, p.Status, "", p)
}

// WithService lets requests pass that bear a service token with the scope, for
// what is not part of an API's description.
func WithService(callers Callers, scope previewd.Scope, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, p, challenge := admit(r.Context(), callers, r.Header.Get("Authorization"), scope); p != nil {
			if challenge != "" {
				w.Header().Set("WWW-Authenticate", challenge)
			}
			WriteProblem(w, r, p)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// admit tells who sends a request, or why it is refused and by which challenge
// (RFC 6750 §3).
func admit(ctx context.Context, callers Callers, header string, scope previewd.Scope) (caller previewd.Caller, refused *Problem, challenge string) {
	secret, bears := strings.CutPrefix(header, "Bearer ")
	var scopes previewd.Scopes
	if bears {
		var err error
		if caller, scopes, bears, err = callers.FindCaller(ctx, secret); err != nil {
			return caller, NewProblem(ctx, err), ""
		}
	}
	if !bears {
		p := NewProblem(ctx, &previewd.Error{
			Code: previewd.CodeUnauthorized, Message: "Send a service token as Authorization: Bearer <token>.",
		})
		p.cause = errors.New("no known token")
		return caller, p, "Bearer"
	}
	if !scopes.Has(scope) {
		p := NewProblem(ctx, &previewd.Error{
			Code: previewd.CodeForbidden, Message: "The token lacks the scope " + string(scope) + ": use one that has it.", Details: string(scope),
		})
		return caller, p, `Bearer error="insufficient_scope", scope="` + string(scope) + `"`
	}
	return caller, nil, ""
}

package httpx

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/telemetry"
)

// VerifyUser returns who a token speaks for. It returns CodeUnauthorized, and
// CodeUnavailable when that cannot be known now.
type VerifyUser func(ctx context.Context, token string) (*previewd.User, error)

// UserSecurity is the security of an API for users.
func UserSecurity() map[string]*huma.SecurityScheme {
	return map[string]*huma.SecurityScheme{
		schemeUser: bearer("A user's token."), schemeOperator: bearer("The token of a user who is an operator."),
	}
}

type userKey struct{}

// UserOf returns whose request ctx belongs to.
func UserOf(ctx context.Context) previewd.User {
	user, _ := ctx.Value(userKey{}).(previewd.User)
	return user
}

// TakesTicket marks an operation whose caller may bring a ticket instead of a
// token: a browser's EventSource sends no header.
func TakesTicket(o huma.Operation) huma.Operation {
	o.Metadata = map[string]any{ticketQuery: true}
	return o
}

const ticketQuery = "ticket"

// UserAuth says who a caller is.
type UserAuth struct {
	Token  VerifyUser
	Ticket VerifyUser // on routes that take one
}

// RequireUser lets a request pass that bears a user's token, and on the routes
// of operators only theirs.
func RequireUser(api huma.API, auth UserAuth) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		if len(ctx.Operation().Security) == 0 {
			next(ctx)
			return
		}
		user, err := auth.find(ctx)
		if err == nil {
			Note(ctx.Context(), telemetry.UserID, user.ID)
			if _, operators := ctx.Operation().Security[0][schemeOperator]; operators && !user.Operator {
				err = &previewd.Error{Code: previewd.CodeForbidden, Message: "This route is for operators."}
			}
		}
		if err != nil {
			p, challenge := NewProblem(ctx.Context(), err), ""
			if p.Status == http.StatusUnauthorized {
				challenge = "Bearer"
			}
			refuse(api, ctx, p, challenge)
			return
		}
		next(huma.WithValue(ctx, userKey{}, *user))
	}
}

func (auth UserAuth) find(ctx huma.Context) (*previewd.User, error) {
	header := ctx.Header("Authorization")
	if ticket := ctx.Query(ticketQuery); header == "" && ticket != "" && ctx.Operation().Metadata[ticketQuery] == true {
		return auth.Ticket(ctx.Context(), ticket)
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, &previewd.Error{Code: previewd.CodeUnauthorized, Message: "Send the user's token as Authorization: Bearer <token>."}
	}
	return auth.Token(ctx.Context(), token)
}

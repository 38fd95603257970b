package cli

import (
	"fmt"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/app"
	"github.com/previewd/previewd/internal/config"
)

type tokensCmd struct {
	Create tokensCreateCmd `cmd:"" help:"Make a service token and print its secret, once."`
	List   tokensListCmd   `cmd:"" help:"List service tokens, the oldest first."`
	Revoke tokensRevokeCmd `cmd:"" help:"End a service token; servers refuse it within two seconds."`
}

// operate opens the database for what do does.
func (l *local) operate(e *env, do func(*app.Operator) error) (err error) {
	return operate(e, l.config(), do)
}

func operate(e *env, cfg config.Config, do func(*app.Operator) error) (err error) {
	operator, err := app.OpenOperator(e.ctx, cfg)
	if err != nil {
		return err
	}
	defer func() {
		if failed := operator.Close(); err == nil {
			err = failed
		}
	}()
	return do(operator)
}

type tokensCreateCmd struct {
	local
	Name      string        `arg:"" help:"What it is for; unique among tokens that are not revoked."`
	Scope     []string      `help:"What it may do: projects:read, projects:write, events:read, operate (integrity, metrics). Default: the first three." placeholder:"SCOPE,..."`
	Service   string        `help:"Name of the service, shown as createdByService. Default: the token's name." placeholder:"NAME"`
	Principal string        `help:"Whose idempotency keys it uses: tokens that replace each other share one. Default: the service's name." placeholder:"NAME"`
	LegacyIDs bool          `name:"legacy-ids" help:"Let it bring project ids of its own. Deprecated: for clients that are being moved."`
	Expires   time.Duration `help:"How long it is good, such as 720h. Default: until it is revoked." placeholder:"DURATION"`
}

// madeToken is the JSON form of a new token.
type madeToken struct {
	*previewd.Token
	Secret string `json:"secret"`
}

// Run implements the command.
func (c *tokensCreateCmd) Run(e *env) error {
	n := app.NewToken{Name: c.Name, Service: c.Service, Principal: c.Principal, LegacyIDs: c.LegacyIDs, Expires: c.Expires}
	for _, scope := range c.Scope {
		n.Scopes = append(n.Scopes, previewd.Scope(scope))
	}
	return c.operate(e, func(operator *app.Operator) error {
		token, secret, err := operator.CreateToken(e.ctx, n)
		if err != nil {
			return err
		}
		if c.JSON {
			return e.streams.printJSON(madeToken{token, secret})
		}
		fmt.Fprintf(e.streams.Err, "Token %s (%s) of service %s may: %s. Its secret is shown this once:\n", token.Name, token.ID, token.Service, token.Scopes)
		_, err = fmt.Fprintln(e.streams.Out, secret)
		return err
	})
}

type tokensListCmd struct {
	local
	All bool `help:"Also those that are revoked or expired."`
}

// Run implements the command.
func (c *tokensListCmd) Run(e *env) error {
	return c.operate(e, func(operator *app.Operator) error {
		tokens, err := operator.ListTokens(e.ctx, c.All)
		if err != nil {
			return err
		}
		if c.JSON {
			return e.streams.printJSON(map[string]any{"tokens": tokens})
		}
		rows := [][]any{{"ID", "NAME", "STATE", "SERVICE", "PRINCIPAL", "SCOPES", "CREATED", "LAST USED", "EXPIRES"}}
		for _, t := range tokens {
			rows = append(rows, []any{
				t.ID, t.Name, tokenState(&t), t.Service, t.Principal, t.Scopes, minute(&t.CreatedAt), minute(t.LastUsedAt), minute(t.ExpiresAt),
			})
		}
		return printTable(e.streams.Out, rows, "")
	})
}

func tokenState(t *previewd.Token) string {
	switch {
	case t.RevokedAt != nil:
		return "revoked"
	case !t.Live(time.Now()):
		return "expired"
	case t.LegacyIDs:
		return "good, legacy ids"
	}
	return "good"
}

func minute(at *time.Time) string {
	if at == nil {
		return "-"
	}
	return at.Local().Format("2006-01-02 15:04")
}

type tokensRevokeCmd struct {
	local
	Token string `arg:"" help:"Id or name."`
}

// Run implements the command.
func (c *tokensRevokeCmd) Run(e *env) error {
	return c.operate(e, func(operator *app.Operator) error {
		token, err := operator.RevokeToken(e.ctx, c.Token)
		if err != nil {
			return err
		}
		if c.JSON {
			return e.streams.printJSON(token)
		}
		_, err = fmt.Fprintf(e.streams.Out, "revoked  %s (%s)\n", token.Name, token.ID)
		return err
	})
}

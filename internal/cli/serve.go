package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/alecthomas/kong"

	"github.com/previewd/previewd/internal/app"
	"github.com/previewd/previewd/internal/config"
)

type serveCmd struct {
	config.Config
	File kong.ConfigFlag `name:"config" help:"YAML file with these settings by flag name; flags and variables go before it." placeholder:"FILE"`
}

// Run implements the command.
func (c *serveCmd) Run(e *env) error {
	if os.Getenv("GOGC") == "" {
		// The heap is small and requests are short: collecting it a fifth as often
		// costs some memory under load and none at rest.
		debug.SetGCPercent(400)
	}
	log, err := newLogger(e.streams.Err, c.LogLevel, c.LogFormat)
	if err != nil {
		return err
	}
	a, err := app.New(e.ctx, app.Options{Config: c.Config, Version: buildVersion(), Log: log})
	if err != nil {
		return err
	}
	used := a.Config
	fmt.Fprintf(e.streams.Out, "previewd %s serves\n", buildVersion())
	printRoles(e.streams.Out, &used)
	fmt.Fprintln(e.streams.Out, "Ctrl-C stops it.")
	return a.Run(e.ctx)
}

// printRoles says what is served, and where the tokens for it are.
func printRoles(w io.Writer, used *config.Config) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-9s "+format+"\n", append([]any{name}, args...)...)
	}
	token := func(configured bool, path string) string {
		if configured {
			return "token as configured"
		}
		return "token in " + displayPath(path)
	}
	if used.Is(config.RoleWorker) {
		line("worker", "%s/v1  (docs: %s/docs; %s)", used.BaseURL, used.BaseURL, token(used.ServiceToken != "", used.TokenPath()))
	}
	switch {
	case !used.Is(config.RoleGateway):
		line("users", "nobody: set --jwks-url and --jwt-issuer for a gateway")
	case used.LocalUser():
		line("users", "%s/api  (docs: %s/api/docs; %s)", used.BaseURL, used.BaseURL, token(false, used.UserTokenPath()))
	default:
		line("users", "%s/api  (docs: %s/api/docs; %s)", used.BaseURL, used.BaseURL, usersOf(used))
	}
	if used.Is(config.RolePreview) {
		line("previews", "%s", used.PreviewURL("<project id>"))
	}
	if used.WorkerURL != "" {
		line("asks", "%s", used.WorkerURL)
	}
	line("data", "%s", displayPath(used.Data))
}

// usersOf says how users are known.
func usersOf(used *config.Config) string {
	switch {
	case used.JWKSURL != "":
		return used.JWTProvider + " tokens of " + used.JWTIssuer
	case used.JWTSecret != "":
		return used.JWTProvider + " tokens signed with the configured secret"
	}
	return "token as configured"
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("cannot use log level %q: %w", level, err)
	}
	return app.NewLogger(w, l, format == "json"), nil
}

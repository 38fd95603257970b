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
	fmt.Fprintf(e.streams.Out, "previewd %s serves\n  API       %s  (docs: %s/docs)\n  previews  %s\n  data      %s\n",
		buildVersion(), used.BaseURL, used.BaseURL, used.PreviewURL("<project id>"), displayPath(used.Data))
	if used.ServiceToken == "" {
		fmt.Fprintf(e.streams.Out, "  token     %s\n", displayPath(used.TokenPath()))
	} else {
		fmt.Fprintln(e.streams.Out, "  token     as configured")
	}
	fmt.Fprintln(e.streams.Out, "Ctrl-C stops it.")
	return a.Run(e.ctx)
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("cannot use log level %q: %w", level, err)
	}
	return app.NewLogger(w, l, format == "json"), nil
}

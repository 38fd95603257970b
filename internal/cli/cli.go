// Package cli is the command line: a file per command.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/client"
	"github.com/previewd/previewd/internal/app"
	"github.com/previewd/previewd/internal/config"
)

// Exit codes, as documented in the help.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitBuildFailed = 3
	exitNotFound    = 4
	exitDenied      = 5
	exitUnreachable = 6
	exitTimeout     = 7
	exitBroken      = 8
	exitInterrupted = 130
)

const exitHelp = `Exit codes: 0 done; 1 error; 2 wrong usage; 3 the build failed, was canceled or superseded, or is refused (detect);
4 not found; 5 not allowed; 6 the server cannot be reached; 7 waited too long; 8 a promise is broken (doctor);
130 interrupted.`

// commands is the grammar of the command line.
type commands struct {
	Demo       demoCmd       `cmd:"" help:"Start everything in a temporary folder, create a project and show it."`
	Serve      serveCmd      `cmd:"" help:"Run the server."`
	Projects   projectsCmd   `cmd:"" help:"Create, list and show projects."`
	Builds     buildsCmd     `cmd:"" help:"Watch builds and read their logs."`
	Versions   versionsCmd   `cmd:"" help:"List versions, and choose the one that is shown."`
	Env        envCmd        `cmd:"" help:"Set, list and remove variables of a project's builds, secrets among them."`
	Detect     detectCmd     `cmd:"" help:"Tell how a folder would be built, and why; runs nothing of it."`
	Tokens     tokensCmd     `cmd:"" help:"Create, list and revoke service tokens, on the database itself."`
	Support    supportCmd    `cmd:"" help:"Tell what is known of a reference id, on the database itself."`
	Doctor     doctorCmd     `cmd:"" help:"Check a database and its files, with or without a server; repair and verify."`
	Migrate    migrateCmd    `cmd:"" help:"Show the schema of a database, or bring it up to date."`
	Templates  templatesCmd  `cmd:"" help:"List the built-in templates."`
	Version    versionCmd    `cmd:"" help:"Print the program's version."`
	Completion completionCmd `cmd:"" help:"Print a completion script for a shell."`
}

// remote is what every command needs that calls a server.
type remote struct {
	URL   string `help:"Server to call. Default: the one that runs on the data folder, else http://127.0.0.1:8080." env:"PREVIEWD_URL" placeholder:"URL"`
	Token string `help:"Service token. Default: the data folder's." env:"PREVIEWD_SERVICE_TOKEN" placeholder:"TOKEN"`
	Data  string `help:"Data folder of a server on this machine." default:"./previewd-data" env:"PREVIEWD_DATA" type:"path"`
	JSON  bool   `help:"Print JSON for programs."`
}

// Streams are where a command reads and writes.
type Streams struct {
	In  io.Reader
	Out io.Writer // results
	Err io.Writer // progress and errors
}

// Standard returns the process's own streams.
func Standard() Streams { return Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr} }

// terminal reports whether progress can be drawn.
func (s Streams) terminal() bool {
	f, ok := s.Err.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printJSON writes a result for programs.
func (s Streams) printJSON(v any) error {
	enc := json.NewEncoder(s.Out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// env is what commands get beside their flags.
type env struct {
	ctx     context.Context
	streams Streams
	started time.Time
	model   *kong.Kong
}

// Main runs a command line and returns the exit code.
func Main(args []string, streams Streams) int {
	started := time.Now()
	if len(args) > 0 {
		switch args[0] {
		case app.BuildChildArg:
			return app.BuildChild(streams.In, streams.Out)
		case app.SandboxInitArg:
			return app.SandboxInit()
		case app.ContainerAgentArg:
			return app.ContainerAgent()
		case completeArg:
			return complete(args[1:], streams)
		}
	}
	ctx, stop := signalContext(streams)
	defer stop()
	exit := -1
	parser, err := newParser(streams, func(code int) { exit = code })
	if err != nil {
		fmt.Fprintln(streams.Err, "previewd:", err)
		return exitError
	}
	parsed, err := parser.Parse(args)
	if exit >= 0 {
		return exit // help or version was printed
	}
	if err != nil {
		fmt.Fprintf(streams.Err, "previewd: %v\nRun previewd --help.\n", err)
		return exitUsage
	}
	err = parsed.Run(&env{ctx: ctx, streams: streams, started: started, model: parser})
	return report(ctx, streams, err)
}

func newParser(streams Streams, exit func(int)) (*kong.Kong, error) {
	return kong.New(&commands{},
		kong.Name("previewd"),
		kong.Description("Creates projects from a prompt and files, builds them, and serves them at a preview URL.\n\n"+exitHelp),
		kong.Writers(streams.Out, streams.Err), kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Configuration(strictYAML), kong.Vars{"user": defaultUser()},
	)
}

// signalContext ends on the first SIGINT or SIGTERM; the second ends the
// process, and so does a stop that takes too long.
func signalContext(streams Streams) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
		case <-done:
			return
		}
		cancel(errInterrupted)
		select {
		case <-signals:
			fmt.Fprintln(streams.Err, "previewd: stopped at once")
		case <-time.After(10 * time.Second):
			fmt.Fprintln(streams.Err, "previewd: stopping took too long")
		case <-done:
			return
		}
		os.Exit(exitInterrupted)
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

var (
	errInterrupted = errors.New("interrupted")
	errTimedOut    = errors.New("waited too long")
)

// usageError says that the command line cannot be meant so.
type usageError string

func (e usageError) Error() string { return string(e) }

// buildEndedError says that a build that was waited for made no version.
type buildEndedError struct{ build *previewd.Build }

func (e *buildEndedError) Error() string { return "the build ended as " + string(e.build.Status) }

// report prints an error and returns the exit code that stands for it.
func report(ctx context.Context, streams Streams, err error) int {
	if err == nil {
		return exitOK
	}
	var ended *buildEndedError
	var refused *refusedError
	switch {
	case errors.As(err, &ended), errors.As(err, &refused):
		return exitBuildFailed // has been printed, in full
	case errors.Is(context.Cause(ctx), errInterrupted) && (errors.Is(err, context.Canceled) || errors.Is(err, errInterrupted)):
		fmt.Fprintln(streams.Err, "previewd: interrupted")
		return exitInterrupted
	}
	fmt.Fprintln(streams.Err, "previewd:", err)
	if usage := usageError(""); errors.As(err, &usage) {
		return exitUsage
	}
	if broken := brokenError(""); errors.As(err, &broken) {
		return exitBroken
	}
	var e *previewd.Error
	if errors.As(err, &e) && e.ReferenceID != "" {
		fmt.Fprintln(streams.Err, "reference:", e.ReferenceID)
	}
	if errors.Is(err, errTimedOut) {
		return exitTimeout
	}
	switch previewd.ErrorCode(err) {
	case previewd.CodeNotFound:
		return exitNotFound
	case previewd.CodeUnauthorized, previewd.CodeForbidden:
		fmt.Fprintln(streams.Err, "Give the server's token with --token or PREVIEWD_SERVICE_TOKEN, or name its data folder with --data.")
		return exitDenied
	case previewd.CodeUnavailable:
		fmt.Fprintln(streams.Err, "Is it running? Start one with: previewd serve")
		return exitUnreachable
	}
	return exitError
}

// connect returns a client of the server that the flags name.
func (r *remote) connect() (*client.Client, error) {
	address, token := r.URL, r.Token
	if address == "" {
		address = "http://127.0.0.1:8080"
		if raw, err := os.ReadFile(config.AddressPath(r.Data)); err == nil {
			address = strings.TrimSpace(string(raw))
		}
	}
	if token == "" {
		if raw, err := os.ReadFile(config.TokenPath(r.Data)); err == nil {
			token = strings.TrimSpace(string(raw))
		}
	}
	return client.New(client.Config{URL: address, Token: token})
}

// buildVersion returns the program's version as the Go toolchain recorded it.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "devel"
	}
	return strings.Trim(info.Main.Version, "()")
}

type versionCmd struct {
	JSON bool `help:"Print JSON for programs."`
}

// Run implements the command.
func (c *versionCmd) Run(e *env) error {
	if c.JSON {
		return e.streams.printJSON(map[string]string{"version": buildVersion()})
	}
	_, err := fmt.Fprintf(e.streams.Out, "previewd %s\n", buildVersion())
	return err
}

// displayPath shortens a path for messages.
func displayPath(name string) string {
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, name); err == nil && !strings.HasPrefix(rel, "..") {
			return rel
		}
	}
	return name
}

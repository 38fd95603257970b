// Package app builds a server from its configuration and runs it. It is the one
// place that knows all parts.
package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/preview"
	"github.com/previewd/previewd/internal/runner"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
	"github.com/previewd/previewd/internal/worker"
	"github.com/previewd/previewd/internal/workerapi"
)

// Options are what a program, rather than its user, decides.
type Options struct {
	Config     config.Config
	Version    string
	Log        *slog.Logger // default slog.Default()
	Executable string       // runs builds' children; default this program
	// Patience is how long a user's request waits for the worker before it is answered
	// 202; default the gateway's.
	Patience time.Duration
}

// App is a whole server, or the roles of one that its configuration names.
type App struct {
	Config   config.Config    // complete: with the address that it listens on
	Worker   *worker.Service  // nil in a gateway by itself
	Gateway  *gateway.Service // nil when this is none
	Store    *store.DB        // the worker's, or that of a gateway by itself
	Users    *store.DB        // the gateway's, often the same; nil when this is none
	listener net.Listener
	handler  http.Handler
	runnerID string
	metrics  *metrics
	streams  *httpx.Streams
	bearers  *worker.Callers // of stored tokens
	problems problems
	lock     *flock.Flock
	log      *slog.Logger
	recover  func(context.Context) error   // before anything else runs
	parts    []func(context.Context) error // each runs until its context ends
}

// New builds everything, in the order in which it is needed, and begins to
// listen. The caller calls Run, which closes everything, or Close.
func New(ctx context.Context, opts Options) (_ *App, err error) {
	if err := opts.Config.Validate(); err != nil {
		return nil, err
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	a := &App{Config: opts.Config, log: opts.Log, recover: func(context.Context) error { return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if err := a.open(ctx); err != nil {
		return nil, err
	}
	token, err := a.serviceToken()
	if err != nil {
		return nil, err
	}
	if a.runnerID, err = a.findRunnerID(); err != nil {
		return nil, err
	}
	b := &builder{App: a, opts: opts, mux: http.NewServeMux(), hub: &event.Hub{Bus: a.Store}, callers: a.callers(token)}
	a.metrics = newMetrics(opts.Version, a.Store)
	a.problems = newProblems(a.Store, a.Users, opts.Log)
	a.metrics.countProblems(a.problems)
	b.run(b.hub.Run, a.bearers.Run)
	if a.Config.OwnsWorker() {
		err = b.worker()
	} else {
		a.streams = httpx.NewStreams(httpx.StreamConfig{Hints: b.hub, Log: opts.Log})
		b.run(a.streams.Run)
	}
	if err == nil && a.Config.Is(config.RoleGateway) {
		err = b.gateway()
	}
	if err != nil {
		return nil, err
	}
	if a.Config.Is(config.RoleWorker) || a.Config.Is(config.RoleGateway) {
		b.run(a.watchIntegrity)
	}
	b.mux.Handle("GET /metrics", a.metrics.handler(a.listener.Addr(), b.callers))
	a.health(b.mux)
	b.mux.Handle("/", httpx.Fallback(b.mux))
	api := httpx.WithRequest(opts.Log, withCORS(a.Config.AllowOrigin, httpx.WithBodyLimit(httpx.WithExactPath(b.mux))), httpx.RecordTo(a.problems))
	a.handler = api
	if b.previews != nil {
		a.handler = byHost(b.previews, api)
	}
	return a, nil
}

// builder holds what the parts of a server have in common while it is built.
type builder struct {
	*App
	opts     Options
	mux      *http.ServeMux
	hub      *event.Hub
	callers  httpx.Callers
	previews *preview.Server
	boxes    *sandboxes
	disk     *disk
}

// run adds what runs for as long as the server does.
func (b *builder) run(parts ...func(context.Context) error) { b.parts = append(b.parts, parts...) }

// worker builds what works on the worker's database: each role of it.
func (b *builder) worker() error {
	cfg := b.Config
	artifacts, err := artifact.NewFolder(cfg.ArtifactsPath())
	if err != nil {
		return err
	}
	b.boxes = newSandboxes(b)
	b.disk = &disk{
		folders: []string{cfg.Data, cfg.ArtifactsPath()}, cached: cfg.Data, least: cmp.Or(cfg.MinFree, 256) << 20,
		shrink: b.boxes.shrink, log: b.log, free: freeOn,
	}
	b.Worker, err = worker.New(worker.Config{
		Store: b.Store, Artifacts: artifacts, Changes: b.hub, Log: b.log, PreviewURL: cfg.PreviewURL,
		Switched: func(projectID string) { b.switched(projectID) },
		Deleted:  func(projectID string) { b.deleted(projectID) },
		Room:     b.disk.room,
		Queue:    &store.QueueLimits{Owner: cfg.QueuePerUser, Total: cfg.QueueTotal},
		Lease:    cfg.Lease, Timeouts: b.timeouts(), SecretsKey: (&secretsKey{cfg: cfg, log: b.log}).get,
	})
	if err != nil {
		return err
	}
	b.streams = httpx.NewStreams(httpx.StreamConfig{Source: b.Worker, Hints: b.hub, FeedTopic: worker.FeedTopic, Log: b.log})
	b.run(b.streams.Run)
	b.metrics.watchWorker(b.Worker)
	if cfg.Is(config.RolePreview) {
		b.previews = preview.New(preview.Config{
			Source: b.Worker, Streams: b.streams, Artifacts: artifacts, Domain: cfg.PreviewHost(), Log: b.log, Recorder: b.problems,
		})
	}
	if cfg.Is(config.RoleWorker) {
		relay := &event.Relay{
			Feed: b.Store, Hub: b.hub, Holder: b.runnerID, Wake: worker.EventTopic, Grown: worker.FeedTopic,
			Failed: func(err error) { b.log.Error("giving places in the feed failed", telemetry.Error, err) },
		}
		workerapi.Register(b.mux, workerapi.Config{Worker: b.Worker, Streams: b.streams, Version: b.opts.Version, Callers: b.callers})
		b.run(relay.Run, b.Worker.RunReaper, b.Worker.RunSweeper)
	}
	if cfg.Is(config.RoleRunner) {
		return b.runner(artifacts)
	}
	return nil
}

func (b *builder) switched(projectID string) {
	if b.previews != nil {
		b.previews.Switched(projectID)
	}
}

func (b *builder) deleted(projectID string) {
	if b.previews != nil {
		b.previews.Deleted(projectID)
	}
}

func (b *builder) runner(artifacts artifact.Store) error {
	r, err := runner.New(runner.Config{
		Dispatcher: b.Worker, Artifacts: artifacts, ID: b.runnerID, WorkDir: b.Config.WorkPath(),
		Executable: b.opts.Executable, Sandbox: b.boxes.get, Room: b.disk.makeRoom, Slots: max(b.Config.Builds, 0), Log: b.log,
	})
	if err != nil {
		return err
	}
	if b.Config.UnsafeNoSandbox {
		b.log.Warn("--unsafe-no-sandbox: commands of trees can do all that this machine's user can")
	}
	b.recover = func(ctx context.Context) error { return b.Worker.Recover(ctx, b.runnerID) }
	if b.Config.Builds >= 0 {
		b.run(r.Run)
	}
	return nil
}

// lockPatience is how long a start waits for a data folder that is in use.
const lockPatience = time.Second

// open takes the data folder for this process, listens and opens the database.
func (a *App) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(a.Config.Data, 0o700); err != nil {
		return fmt.Errorf("cannot create the data folder: %w", err)
	}
	a.lock = flock.New(a.Config.LockPath(), flock.SetFlag(os.O_CREATE|os.O_RDWR))
	// A child that a killed server was starting keeps the lock for the moment until
	// it notices.
	patience, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	locked, err := a.lock.TryLockContext(patience, lockPatience/20)
	if err != nil && patience.Err() == nil {
		return fmt.Errorf("cannot lock the data folder: %w", err)
	}
	if !locked {
		pid, _ := os.ReadFile(a.Config.LockPath())
		a.lock = nil
		return fmt.Errorf("the data folder %s is in use by another previewd (pid %s): stop it, or name another folder with --data",
			a.Config.Data, strings.TrimSpace(string(pid)))
	}
	if err := os.WriteFile(a.Config.LockPath(), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return fmt.Errorf("cannot write the lock: %w", err)
	}
	if a.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", a.Config.Addr); err != nil {
		return fmt.Errorf("cannot listen: %w; name another address with --addr", err)
	}
	a.Config.Complete(a.listener.Addr())
	if err := a.openStores(ctx); err != nil {
		return err
	}
	return os.WriteFile(a.Config.AddressPath(), []byte(a.Config.BaseURL), 0o600)
}

// timeouts are the worker's, each with its default when it is 0.
func (a *App) timeouts() worker.Timeouts {
	t := worker.DefaultTimeouts
	if a.Config.BuildTimeout > 0 {
		t.Build = a.Config.BuildTimeout
	}
	if a.Config.QueueTimeout > 0 {
		t.Queue = a.Config.QueueTimeout
	}
	return t
}

// callers are those of the configuration, with all scopes, and those of tokens in
// the database.
func (a *App) callers(service string) httpx.Callers {
	a.bearers = worker.NewCallers(worker.CallersConfig{Store: a.Store, Log: a.log})
	return httpx.CallerChain{a.tokens(service), a.bearers}
}

func (a *App) tokens(service string) httpx.Tokens {
	tokens := httpx.Tokens{{Secret: service, Caller: previewd.Caller{Principal: "local", Service: "local"}}}
	if a.Config.LegacyToken != "" {
		legacy := previewd.Caller{Principal: "legacy", Service: "legacy", LegacyIDs: true}
		tokens = append(tokens, httpx.Token{Secret: a.Config.LegacyToken, Caller: legacy})
	}
	return tokens
}

// findRunnerID returns the name of this folder's runner, made at the first
// start. Only one process uses a folder, so whatever a runner of this name holds
// at start is left from before.
func (a *App) findRunnerID() (string, error) {
	raw, err := os.ReadFile(a.Config.RunnerPath())
	if id := strings.TrimSpace(string(raw)); err == nil && id != "" {
		return id, nil
	}
	random := make([]byte, 8)
	rand.Read(random)
	id := "runner-" + hex.EncodeToString(random)
	if err := os.WriteFile(a.Config.RunnerPath(), []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("cannot name the runner: %w", err)
	}
	return id, nil
}

// serviceToken returns the configured token, or the data folder's own.
func (a *App) serviceToken() (string, error) {
	if a.Config.ServiceToken != "" {
		return a.Config.ServiceToken, nil
	}
	return localToken(a.Config.TokenPath(), "pvd_")
}

// localToken returns the token in a file of the data folder, made at the first
// start.
func localToken(path, prefix string) (string, error) {
	raw, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(raw))) >= 16 {
		return strings.TrimSpace(string(raw)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot read a token: %w", err)
	}
	secret := make([]byte, 24)
	rand.Read(secret)
	token := prefix + hex.EncodeToString(secret)
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("cannot write a token: %w", err)
	}
	return token, nil
}

// byHost gives requests for preview hosts to the previews and all others to
// the API, so that neither can be reached under the other's name.
func byHost(previews *preview.Server, api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if previews.Serves(r.Host) {
			previews.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}

func (a *App) health(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := a.ping(r.Context()); err != nil {
			httpx.WriteProblem(w, r, &previewd.Error{Code: previewd.CodeUnavailable, Message: "The database does not answer.", Err: err})
			return
		}
		fmt.Fprintln(w, "ready")
	})
}

// Run serves until ctx ends or a part fails, then stops all parts and closes
// everything. Builds that run get a moment to finish; others take them up again
// at the next start.
func (a *App) Run(ctx context.Context) error {
	// Short, and needed by the next start if this one is stopped at once.
	if err := a.recover(context.WithoutCancel(ctx)); err != nil {
		return errors.Join(err, a.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	recording, served := context.WithCancel(context.WithoutCancel(ctx)) // until the last request is answered
	group.Go(func() error {
		defer served()
		return a.serve(ctx)
	})
	for _, problems := range a.problems.each() {
		group.Go(func() error { return problems.Run(recording) })
	}
	for _, part := range a.parts {
		group.Go(func() error { return part(ctx) })
	}
	return errors.Join(group.Wait(), a.Close())
}

// shutdownTime bounds how long requests that run may take once told to stop.
const shutdownTime = 8 * time.Second

func (a *App) serve(ctx context.Context) error {
	requests, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	server := &http.Server{
		Handler: a.handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute,
		WriteTimeout: 10 * time.Minute, MaxHeaderBytes: 32 << 10,
		BaseContext: func(net.Listener) context.Context { return requests },
		ErrorLog:    slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(a.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("cannot serve: %w", err)
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	// Long polls end at once; short requests get their answer. Streams that have
	// taken their connection end by themselves.
	time.AfterFunc(500*time.Millisecond, stop)
	if err := server.Shutdown(deadline); err != nil {
		return errors.Join(fmt.Errorf("cannot stop serving in time: %w", err), server.Close())
	}
	return nil
}

// Close releases what New has taken. Run calls it.
func (a *App) Close() error {
	var errs []error
	if a.listener != nil {
		if err := a.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if a.Users != nil && a.Users != a.Store {
		errs = append(errs, a.Users.Close())
	}
	if a.Store != nil {
		errs = append(errs, a.Store.Close())
	}
	if a.lock != nil {
		errs = append(errs, os.Remove(a.Config.AddressPath()), a.lock.Unlock())
		if errors.Is(errs[len(errs)-2], fs.ErrNotExist) {
			errs[len(errs)-2] = nil
		}
	}
	return errors.Join(errs...)
}

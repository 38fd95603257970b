package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"path"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/npm"
	"github.com/previewd/previewd/internal/sandbox"
	"github.com/previewd/previewd/internal/telemetry"
	"github.com/previewd/previewd/internal/toolchain"
)

// Sandbox is what builds need that run strangers' code.
type Sandbox struct {
	// Open starts a box. Level is how well it confines: sandbox.LevelNamespace, say.
	Open    func(ctx context.Context, cfg sandbox.BoxConfig) (Box, error)
	Level   string
	Runner  string           // what builds are said to be made by; default previewd.RunnerSandbox
	Root    string           // folder of the toolchain, named after what is in it
	Nodes   *toolchain.Shelf // toolchains for trees that want another Node.js; nil for none
	Mirror  *npm.Mirror      // the only network that a build has
	Caches  *Caches          // what build tools keep for a project's next build; nil for nothing
	Modules *Modules         // installed packages that were kept
	Limits  sandbox.Limits
	UID     int           // of the host, for builds of a server that is root
	Idle    time.Duration // how long a command may say nothing; default 2 min
}

// ErrNoSandbox says that a server runs no tree's code, whichever it is.
var ErrNoSandbox = errors.New("there is no sandbox")

// Ports of 127.0.0.1 in a sandbox.
const (
	portMirror = 4873
	portProxy  = 3128 // where tools are told to go for all else; nothing gets through
)

const (
	mirrorURL  = "http://127.0.0.1:4873"
	maxRawLog  = 64 << 20 // of a command; a build that says more is stopped
	outputTail = 64 << 10 // of it, that is read for what went wrong
	maxDenied  = 50       // connections that are closed before the build is stopped

	maxConnections = 64 // of a build at a time, on each port
)

// Why a command was stopped.
var (
	errIdle   = errors.New("the command said nothing for too long")
	errOutput = errors.New("the command wrote too much")
	errDenied = errors.New("the build tried to reach the network too often")
)

// packagesBuild is one run of a plan: packages are installed, and the tree's own
// build command is run.
type packagesBuild struct {
	*job
	plan    *previewd.Plan
	with    *Sandbox
	view    *npm.View
	denials denials
	keep    func() // completes what is kept for later builds
	notKept bool   // that was tried, in vain
	keeping bool   // what is being installed is for later builds too
}

// runPlan has the tree's own code make the site, in a sandbox. The caller closes
// j.box once the site is published.
func (j *job) runPlan(ctx context.Context) error {
	p := &packagesBuild{job: j, plan: j.result.Plan, keep: func() {}}
	var err error
	if p.with, err = j.Sandbox(ctx); err != nil {
		if !errors.Is(err, ErrNoSandbox) {
			return err
		}
		return &failedError{&previewd.Failure{
			Class: previewd.FailureUser, Code: previewd.FailRunnerUnavailable, Step: previewd.StepBuild, File: p.plan.Runner.From,
			Message: fmt.Sprintf("%s, so building this tree runs its code, which this server does not do: %s.", strings.TrimSuffix(p.plan.Runner.Reason, "."), err),
			Hint:    `Whoever runs the server can see why with previewd doctor sandbox. To do without, add previewd.json with {"runner": "bundle"} or {"runner": "static"}.`,
		}}
	}
	defer func() { p.keep() }()
	if done, err := p.bundle(ctx); done || err != nil {
		return err
	}
	p.tellWhy()
	if err := p.install(ctx); err != nil {
		return err
	}
	if err := j.start(ctx, previewd.StepBuild); err != nil {
		return err
	}
	if err := p.makeSite(ctx); err != nil {
		return err
	}
	return p.findSite(ctx)
}

// tellWhy logs why the tree's own code is run.
func (p *packagesBuild) tellWhy() {
	why := p.result.Aside
	if why == "" && p.plan.Framework.Name == "vite" {
		why = clause(p.plan.Bundle.Reason)
	}
	if why != "" {
		p.result.Reason = clip(p.result.Reason+"; not bundled: "+why, 300)
	}
	p.log.printf("runner: %s, because %s", cmp.Or(p.with.Runner, previewd.RunnerSandbox), p.result.Reason)
	for _, note := range p.plan.Notes {
		p.log.printf("note: %s", clip(strings.Map(printable, note), 500))
	}
}

func asFailed(f *previewd.Failure) error {
	if f == nil {
		return nil
	}
	return &failedError{f}
}

// open starts a sandbox with these files and modules, and what it can reach.
func (p *packagesBuild) open(ctx context.Context, source io.Reader, modules string) error {
	began := time.Now()
	box, err := p.with.Open(ctx, sandbox.BoxConfig{
		Executable: p.Executable, Root: p.with.Root, Source: source, Modules: modules, Limits: p.with.Limits, UID: p.with.UID,
		Ports: []int{portMirror, portProxy}, WorkDir: p.dir,
	})
	if err != nil {
		return p.setupError(ctx, "cannot start the sandbox", err)
	}
	p.box, p.result.Isolation = box, p.with.Level
	p.result.Runner = cmp.Or(p.with.Runner, p.result.Runner)
	p.view = p.with.Mirror.View(mirrorURL)
	listeners := p.box.Listeners()
	server := &http.Server{
		Handler: p.view, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, WriteTimeout: 5 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: log.New(io.Discard, "", 0),
	}
	// Both end when the box closes its listeners.
	go func() { _ = server.Serve(netutil.LimitListener(listeners[0], maxConnections)) }()
	p.denials.reset()
	go p.denials.serve(netutil.LimitListener(listeners[1], maxConnections))
	if p.with.Level == sandbox.LevelNone {
		p.log.printf("WARNING: there is no sandbox (--unsafe-no-sandbox): commands of this tree run as processes of the server's machine")
		return nil
	}
	p.log.printf("sandbox: ready in %d ms", time.Since(began).Milliseconds())
	return nil
}

// setupError returns what kept a sandbox from being made. A tree that does not fit
// in is its author's; a host without room, or without its runner any more, is not.
func (p *packagesBuild) setupError(ctx context.Context, what string, err error) error {
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, sandbox.ErrFull):
		return &failedError{&previewd.Failure{
			Class: previewd.FailureUser, Code: previewd.FailDiskLimit, Step: p.step,
			Message: fmt.Sprintf("The tree, with its packages, needs more than the %d MB or %d files that a build may have.", p.with.Limits.Disk>>20, p.with.Limits.Inodes),
			Hint:    "Send less, or ask whoever runs the server for more.",
		}}
	case errors.Is(err, sandbox.ErrUnavailable):
		p.Log.ErrorContext(ctx, "the runner has gone", telemetry.BuildID, p.claim.BuildID, telemetry.ReferenceID, p.claim.ReferenceID, telemetry.Error, p.log.hide(err.Error()))
		return &failedError{&previewd.Failure{
			Class: previewd.FailureInfra, Code: previewd.FailRunnerUnavailable, Step: p.step,
			Message: "What runs builds on the server was there and does not answer now. It is not your source's fault.",
			Hint:    "Try again later. Whoever runs the server can see why with previewd doctor sandbox, and in its log under the reference " + p.claim.ReferenceID + ".",
		}}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// command runs one command of the plan to its end. The failure is the author's to
// mend.
func (p *packagesBuild) command(ctx context.Context, argv []string) (*previewd.Failure, error) {
	began := time.Now()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	p.log.printf("$ %s", strings.Join(argv, " "))
	out := newCommandOutput(p.log, stop)
	patience := cmp.Or(p.with.Idle, 2*time.Minute)
	idle := time.AfterFunc(patience, func() { stop(errIdle) })
	defer idle.Stop()
	out.heard = func() { idle.Reset(patience) }
	p.denials.onTooMany(func() { stop(errDenied) })
	end, err := p.box.Run(ctx, sandbox.Task{Argv: p.argv(argv), Env: append(p.env(), p.vars()...), Output: out})
	out.flush()
	p.addPackages(packagesOf(p.view.Fetched())...)
	user := func(code, message, hint string) (*previewd.Failure, error) {
		lines := meaningful(readable(out.tail.String()))
		failure := bounded(previewd.Failure{
			Class: previewd.FailureUser, Code: code, Step: p.step, Message: message, Hint: hint,
			Excerpt: strings.Join(lines[max(0, len(lines)-excerptLines):], "\n"),
		})
		return &failure, nil
	}
	switch {
	case errors.Is(err, errIdle):
		return user(previewd.FailIdleTimeout, fmt.Sprintf("The command wrote nothing for %s and was stopped.", patience),
			"Does it wait for an answer, or watch files? A build must end by itself.")
	case errors.Is(err, errOutput):
		return user(previewd.FailOutputLimit, fmt.Sprintf("The command wrote more than %d MB and was stopped.", maxRawLog>>20), "Let it say less.")
	case errors.Is(err, errDenied):
		return user(previewd.FailNetworkBlocked, "The build tried again and again to reach "+strings.Join(p.log.hideEach(p.denials.hosts()), ", ")+".", noNetwork)
	case err != nil:
		return nil, err
	case end.Code == 0:
		p.log.printf("done in %.1f s", time.Since(began).Seconds())
		return nil, nil
	case end.OutOfMemory:
		return user(previewd.FailOOM, fmt.Sprintf("The build needed more than %d MB of memory, its files among them.", p.with.Limits.Memory>>20),
			"Build less at once, or ask whoever runs the server for more.")
	case end.ProcessesBound:
		return user(previewd.FailPidsLimit, fmt.Sprintf("The build started more than %d processes and threads.", p.with.Limits.Processes),
			"Let it start fewer at once.")
	}
	return diagnose(p.commandEnd(argv, end.Code, out.tail.String())), nil
}

const noNetwork = "Builds reach nothing but the npm registry. Put what is needed into the tree, or have the page load it in the browser."

func (p *packagesBuild) commandEnd(argv []string, code int, output string) commandEnd {
	e := commandEnd{install: p.step == previewd.StepInstall, plan: p.plan, argv: argv, code: code, output: output, source: p.sourceFile, denied: p.log.hideEach(p.denials.hosts())}
	for _, r := range p.view.Refused() {
		switch r.Reason {
		case "not_found", "blocked", "too_young":
			e.missing = append(e.missing, p.log.hide(strings.TrimPrefix(r.Path, "/")))
		case "unreachable":
			e.unreachable = true
		}
	}
	return e
}

// sourceFile returns a file as it was sent.
func (p *packagesBuild) sourceFile(name string) (string, bool) {
	if !fs.ValidPath(name) {
		return "", false
	}
	raw, err := readLimited(p.sourceRoot.FS(), name, maxJSONFile)
	return string(raw), err == nil
}

// argv has npm fetch the package manager that the tree wants, if it is another.
func (p *packagesBuild) argv(argv []string) []string {
	if argv[0] == "npm" || argv[0] != p.plan.PackageManager.Name {
		return argv
	}
	return append([]string{"npm", "exec", "--yes", "--package=" + p.managerSpec(), "--"}, argv...)
}

// managerSpec is the package of the package manager that the tree wants.
func (p *packagesBuild) managerSpec() string {
	m := p.plan.PackageManager
	spec := m.Name + "@" + m.Version
	switch {
	case m.Version == "" && m.Name == "yarn" && m.Variant == "classic":
		spec = "yarn@1"
	case m.Name == "yarn" && m.Variant == "berry":
		spec = "@yarnpkg/cli-dist@" + m.Version
	}
	return strings.TrimSuffix(spec, "@")
}

// env is all that commands see of an environment.
func (p *packagesBuild) env() []string {
	env := []string{
		"PATH=" + sandbox.Workspace + "/node_modules/.bin:/usr/local/bin:/usr/bin:/bin", "HOME=" + sandbox.Home, "TMPDIR=" + sandbox.TempDir,
		"LANG=C.UTF-8", "CI=true", "NO_UPDATE_NOTIFIER=1", "ASTRO_TELEMETRY_DISABLED=1", "NEXT_TELEMETRY_DISABLED=1",
		"npm_config_registry=" + mirrorURL + "/", "npm_config_replace_registry_host=always", "npm_config_update_notifier=false",
		"npm_config_audit=false", "npm_config_fund=false", "npm_config_allow_git=none", "npm_config_allow_remote=none",
		"pnpm_config_registry=" + mirrorURL + "/", "pnpm_config_minimum_release_age=0", "pnpm_config_dangerously_allow_all_builds=true",
		"YARN_NPM_REGISTRY_SERVER=" + mirrorURL, "YARN_UNSAFE_HTTP_WHITELIST=127.0.0.1", "YARN_ENABLE_TELEMETRY=0",
		"BUN_CONFIG_REGISTRY=" + mirrorURL,
		fmt.Sprintf("https_proxy=http://127.0.0.1:%d", portProxy), fmt.Sprintf("HTTPS_PROXY=http://127.0.0.1:%d", portProxy),
		"no_proxy=127.0.0.1,localhost", "NO_PROXY=127.0.0.1,localhost",
	}
	for name, value := range p.claim.Env {
		env = append(env, name+"="+value)
	}
	return env
}

// findSite ends the sandbox and opens the folder that the build has made.
func (p *packagesBuild) findSite(ctx context.Context) error {
	tree, err := p.box.Output(ctx, ".")
	if err != nil {
		return fmt.Errorf("cannot open the workspace: %w", err)
	}
	defer tree.Close()
	names := []string{p.plan.Output.Path}
	if p.plan.Output.Unsure {
		names = p.plan.Output.Candidates
	}
	usage := p.box.Usage()
	p.log.printf("sandbox: %.1f s of CPU, at most %d MB", usage.CPU.Seconds(), usage.Memory>>20)
	for _, name := range names {
		info, err := tree.Stat(path.Join(name, "index.html"))
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		p.log.printf("the site is in %s", name)
		p.siteDir = path.Clean(name)
		p.site, err = tree.OpenRoot(name)
		return err
	}
	return &failedError{&previewd.Failure{
		Class: previewd.FailureUser, Code: previewd.FailNoOutputDir, Step: previewd.StepBuild,
		Message: "The build command succeeded, but there is no index.html in " + strings.Join(names, ", ") + ".",
		Hint:    `Name the folder that it writes in previewd.json: {"output": "dist"}.`,
	}}
}

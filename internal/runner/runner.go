// Package runner takes builds from the worker and runs them: it lays out the
// tree, has a confined child of this program make the site, and stores the
// result. What goes wrong becomes a failure that says what to do.
package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/sandbox"
	"github.com/previewd/previewd/internal/telemetry"
)

// Config is everything a Runner needs. A zero field takes the default its comment names.
type Config struct {
	Dispatcher previewd.Dispatcher
	Artifacts  artifact.Store
	ID         string        // names the runner in leases; one process at a time
	WorkDir    string        // the runner's own; Run empties it
	Executable string        // runs Child when its argument is ChildArg, and sandbox.Init; default this program
	Slots      int           // builds at once; default the number of CPUs
	Grace      time.Duration // for builds that run when Run is told to stop; default 4 s
	MaxFiles   int           // of a site; default 20,000
	MaxBytes   int64         // of a site; default 200 MiB
	// Sandbox returns what builds need that run their tree's code; an error says
	// why not; ErrNoSandbox that this server never does. Default: it has none.
	Sandbox func(context.Context) (*Sandbox, error)
	// Room makes room on the disk for a build, or returns why there is none; default
	// there always is.
	Room func() error
	Log  *slog.Logger // default slog.Default()
}

// Runner runs builds, as many at once as it has slots.
type Runner struct{ Config }

// New returns a Runner.
func New(cfg Config) (*Runner, error) {
	if cfg.Executable == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("cannot find this program: %w", err)
		}
		if runtime.GOOS == "linux" {
			self = "/proc/self/exe" // this very program, also when its file has been replaced
		}
		cfg.Executable = self
	}
	if cfg.Sandbox == nil {
		cfg.Sandbox = func(context.Context) (*Sandbox, error) { return nil, ErrNoSandbox }
	}
	if cfg.Room == nil {
		cfg.Room = func() error { return nil }
	}
	if cfg.Slots == 0 {
		cfg.Slots = runtime.NumCPU()
	}
	if cfg.Grace == 0 {
		cfg.Grace = 4 * time.Second
	}
	if cfg.MaxFiles == 0 {
		cfg.MaxFiles = 20_000
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 200 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Runner{cfg}, nil
}

// Why a build's context ended.
var (
	errCanceled = errors.New("the build was canceled")
	errLost     = errors.New("the lease was lost")
	errReleased = errors.New("the runner stops")
	errTimeout  = errors.New("the build took too long")
)

// Run claims and runs builds until ctx ends. Then it claims no more, gives
// running builds the grace to finish and returns the rest to the queue.
func (r *Runner) Run(ctx context.Context) error {
	if err := os.RemoveAll(r.WorkDir); err != nil {
		return fmt.Errorf("cannot clear %s: %w", r.WorkDir, err)
	}
	if err := sandbox.Sweep(); err != nil {
		r.Log.WarnContext(ctx, "temporary files of an earlier process stay", telemetry.Error, err)
	}
	if err := os.MkdirAll(r.WorkDir, 0o700); err != nil {
		return fmt.Errorf("cannot create %s: %w", r.WorkDir, err)
	}
	dir, err := realPath(r.WorkDir)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	builds, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(r.Grace, func() { stop(errReleased) })
	})()
	var slots errgroup.Group
	for range r.Slots {
		slots.Go(func() error {
			r.loop(ctx, builds, dir)
			return nil
		})
	}
	return slots.Wait()
}

// realPath returns a folder's absolute path without links, which would hide whether
// a file lies inside it.
func realPath(dir string) (string, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return "", fmt.Errorf("cannot resolve %s: %w", dir, err)
	}
	return real, nil
}

func (r *Runner) loop(ctx, builds context.Context, dir string) {
	for ctx.Err() == nil {
		if r.Room() != nil {
			pause(ctx, roomEvery) // builds wait in the queue
			continue
		}
		claim, err := r.Dispatcher.ClaimBuild(ctx, r.ID, 30*time.Second)
		if err != nil {
			if ctx.Err() == nil {
				r.Log.ErrorContext(ctx, "claiming failed", telemetry.Error, err)
				pause(ctx, time.Second)
			}
			continue
		}
		switch {
		case claim == nil || fault.Point("runner.claimed") != nil:
		case r.Room() != nil:
			r.finish(claim, previewd.Outcome{Kind: previewd.OutcomeReleased}) // it waits on
		default:
			r.work(builds, claim, dir)
		}
	}
}

// roomEvery is how often a runner looks whether there is room again.
const roomEvery = time.Second

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// work runs one claimed build to its end and tells the worker.
func (r *Runner) work(builds context.Context, claim *previewd.Claim, dir string) {
	ctx, cancel := context.WithCancelCause(builds)
	defer cancel(nil)
	ctx, stop := context.WithTimeoutCause(ctx, claim.Timeout, errTimeout)
	defer stop()
	var watching sync.WaitGroup
	watching.Go(func() { r.heartbeat(ctx, claim, cancel) })
	watching.Go(func() { r.awaitCancel(ctx, claim, cancel) })

	j := &job{Runner: r, claim: claim, immutable: map[string]bool{}, dir: filepath.Join(dir, fmt.Sprintf("%s-%d", claim.BuildID, claim.Epoch))}
	outcome, err := j.run(ctx)
	if err != nil {
		outcome = r.outcomeOf(ctx, j, err)
	}
	outcome.Reason, outcome.Failure = j.log.hide(outcome.Reason), j.log.hideIn(outcome.Failure)
	stop() // ends the heartbeat; the lease holds long enough to finish
	watching.Wait()
	if outcome.Kind != "" && fault.Point("runner.built") == nil {
		r.finish(claim, outcome)
	}
	_ = fault.Point("runner.finished")
}

// outcomeOf turns the error of a build into its outcome: first what ended its
// context, then what it says itself. What is nobody's fault but ours is infra.
func (r *Runner) outcomeOf(ctx context.Context, j *job, err error) previewd.Outcome {
	out := previewd.Outcome{Kind: previewd.OutcomeFailed, Runner: j.result.Runner, Reason: j.result.Reason, Isolation: j.result.Isolation, Cache: j.cache, Packages: j.packageList()}
	var failed *failedError
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errLost):
		return previewd.Outcome{}
	case errors.Is(cause, errCanceled):
		out.Kind = previewd.OutcomeCanceled
	case errors.Is(cause, errReleased):
		out.Kind = previewd.OutcomeReleased
	case errors.Is(cause, errTimeout):
		code := previewd.FailTimeout
		if j.step == previewd.StepInstall {
			code = previewd.FailInstallTimeout
		}
		out.Failure = &previewd.Failure{
			Class: previewd.FailureTimeout, Code: code, Step: j.step,
			Message: fmt.Sprintf("The build took longer than %s.", j.claim.Timeout),
		}
	case errors.As(err, &failed):
		out.Failure = failed.Failure
	default:
		r.Log.ErrorContext(ctx, "build failed by the infrastructure", telemetry.BuildID, j.claim.BuildID,
			telemetry.ReferenceID, j.claim.ReferenceID, telemetry.Error, j.log.hide(err.Error()))
		out.Failure = &previewd.Failure{
			Class: previewd.FailureInfra, Code: previewd.FailInfra, Step: j.step,
			Message: "The server could not run this build. It is not your source's fault.",
			Hint:    "Try again later, or name the reference " + j.claim.ReferenceID + " to whoever runs the server.",
		}
	}
	return out
}

// heartbeat renews the lease until ctx ends. It ends the build when the worker
// wants it gone, and by itself before a lease that cannot be renewed runs out:
// then somebody else has the build.
func (r *Runner) heartbeat(ctx context.Context, claim *previewd.Claim, cancel context.CancelCauseFunc) {
	every := time.NewTicker(claim.LeaseFor / 3)
	defer every.Stop()
	renewed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		canceling, err := r.Dispatcher.HeartbeatBuild(ctx, claim.Lease)
		switch code := previewd.ErrorCode(err); {
		case err == nil && canceling:
			cancel(errCanceled)
		case err == nil:
			renewed = time.Now()
		case code == previewd.CodeLeaseLost || code == previewd.CodeBuildFinished || time.Since(renewed) > claim.LeaseFor*5/6:
			cancel(errLost)
		}
	}
}

// awaitCancel ends the build as soon as the worker wants it gone.
func (r *Runner) awaitCancel(ctx context.Context, claim *previewd.Claim, cancel context.CancelCauseFunc) {
	for ctx.Err() == nil {
		canceling, err := r.Dispatcher.AwaitCancel(ctx, claim.Lease, claim.LeaseFor)
		switch {
		case canceling:
			cancel(errCanceled)
		case previewd.ErrorCode(err) == previewd.CodeLeaseLost:
			cancel(errLost)
		case err != nil:
			pause(ctx, time.Second) // the heartbeat will tell
		}
	}
}

// finish tells the worker how the claim ended. A worker that cannot be reached
// or cannot write is asked again while the lease lasts.
func (r *Runner) finish(claim *previewd.Claim, outcome previewd.Outcome) {
	ctx, cancel := context.WithTimeout(context.Background(), min(claim.LeaseFor/2, r.Grace))
	defer cancel()
	for {
		_, err := r.Dispatcher.FinishBuild(ctx, claim.Lease, outcome)
		switch previewd.ErrorCode(err) {
		case "":
			return
		case previewd.CodeBuildCanceling:
			outcome = previewd.Outcome{Kind: previewd.OutcomeCanceled} // a cancel beats what has not committed
		case previewd.CodeLeaseLost, previewd.CodeBuildFinished, previewd.CodeNotFound:
			return // not ours any more
		default:
			r.Log.ErrorContext(ctx, "finishing failed", telemetry.BuildID, claim.BuildID, telemetry.Error, err)
			pause(ctx, 200*time.Millisecond)
		}
		if ctx.Err() != nil {
			return // the reaper takes it from here
		}
	}
}

package runner

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/sandbox"
	"github.com/previewd/previewd/internal/toolchain"
)

// job is one attempt of one build.
type job struct {
	*Runner
	claim     *previewd.Claim
	dir       string // the attempt's own: source/ and out/
	step      string
	log       *buildLog
	result    childResult
	immutable map[string]bool
	large     string // the last large source file that the child has loaded

	sourceRoot *os.Root
	box        Box                         // that ran the tree's code
	node       *toolchain.Toolchain        // that it ran on, if that is not the server's own
	packages   map[string]previewd.Package // that it was made with, by name and version
	cache      string                      // what of its packages was kept: "hit", "miss", or ""
	kept       keptPackages                // that it reads
	site       *os.Root                    // what it made
	siteDir    string                      // where in the tree that is
	remember   func(context.Context)       // keeps what its tools remember, once the site is published; may be nil
}

// failedError is a failure that is the author's to mend.
type failedError struct{ *previewd.Failure }

func (e *failedError) Error() string { return e.Message }

func (j *job) source() string { return filepath.Join(j.dir, "source") }
func (j *job) out() string    { return filepath.Join(j.dir, "out") }

func (j *job) run(ctx context.Context) (out previewd.Outcome, err error) {
	j.log = newBuildLog(ctx, j.Dispatcher, j.claim)
	defer j.log.close()
	defer func() {
		if failure := (*failedError)(nil); errors.As(err, &failure) {
			j.log.printf("failed: %s: %s", failure.Code, failure.Message)
		}
	}()
	defer j.clean()

	if j.claim.Refused != nil {
		return out, &failedError{j.claim.Refused}
	}
	j.tellVars()
	if err := j.start(ctx, previewd.StepPrepare); err != nil {
		return out, err
	}
	if err := j.unpack(ctx); err != nil {
		return out, err
	}
	began := time.Now()
	if err := j.build(ctx); err != nil {
		return out, err
	}
	j.log.printf("built in %d ms", time.Since(began).Milliseconds())
	if err := j.start(ctx, previewd.StepPublish); err != nil {
		return out, err
	}
	manifest, err := j.publish(ctx)
	if err == nil && j.remember != nil {
		j.remember(ctx)
	}
	return previewd.Outcome{
		Kind: previewd.OutcomeCompleted, Manifest: manifest,
		Runner: j.result.Runner, Reason: j.result.Reason, Isolation: j.result.Isolation,
		Cache: j.cache, CacheSaved: j.saved(), Packages: j.packageList(),
	}, err
}

// build makes the site: a child of this program does, or finds that the tree's
// own code must.
func (j *job) build(ctx context.Context) error {
	if err := j.read(ctx, j.findKept(ctx)); err != nil {
		return err
	}
	if j.result.Plan != nil {
		return j.runPlan(ctx)
	}
	if j.result.Packages {
		j.useKept()
	}
	return nil
}

// clean leaves nothing of the build but what was published.
func (j *job) clean() {
	for _, root := range []*os.Root{j.site, j.sourceRoot} {
		if root != nil {
			root.Close()
		}
	}
	if j.box != nil {
		j.box.Close()
	}
	if j.kept.release != nil {
		j.kept.release()
	}
	j.node.Release()
	os.RemoveAll(j.dir)
}

func (j *job) start(ctx context.Context, step string) error {
	j.step = step
	return j.Dispatcher.StartStep(ctx, j.claim.Lease, step)
}

// unpack lays the tree out. The worker has checked every path; the folder's
// root refuses all the same whatever leads out of it.
func (j *job) unpack(ctx context.Context) error {
	for _, dir := range []string{j.source(), j.out()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cannot create the work folder: %w", err)
		}
	}
	root, err := os.OpenRoot(j.source())
	if err != nil {
		return fmt.Errorf("cannot open the work folder: %w", err)
	}
	j.sourceRoot = root
	pack, err := j.Artifacts.Open(ctx, j.claim.Source)
	if err != nil {
		return fmt.Errorf("cannot open the source: %w", err)
	}
	defer pack.Close()

	sum := sha256.New()
	all := io.TeeReader(bufio.NewReaderSize(pack, 64<<10), sum)
	archive := tar.NewReader(all)
	files := 0
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			files++
			err = unpackFile(root, header.Name, archive)
		}
		if err != nil {
			return fmt.Errorf("cannot unpack the source: %w", err)
		}
	}
	if _, err := io.Copy(io.Discard, all); err != nil {
		return fmt.Errorf("cannot read the source: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != string(j.claim.Source) {
		return fmt.Errorf("cannot use source %s: its bytes have digest %s", j.claim.Source, got)
	}
	j.log.printf("prepared %d files", files)
	return nil
}

func unpackFile(root *os.Root, name string, content io.Reader) error {
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// maxMessage bounds one line of the child's output: a result that names every
// file of the largest site.
const maxMessage = 16 << 20

// runChild has the child work on the tree and takes its result. packages is the
// folder that holds node_modules, or "".
func (j *job) runChild(ctx context.Context, packages string) error {
	request, err := json.Marshal(childRequest{Source: j.source(), Out: j.out(), Packages: packages, Env: j.pageEnv(), Overrides: j.claim.Overrides})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	received := make(chan error, 1)
	go func() {
		err := j.receive(ctx, reader)
		reader.CloseWithError(err)
		received <- err
	}()
	stderr := &sandbox.HeadBuffer{Limit: 8 << 10}
	exit, err := sandbox.Run(ctx, sandbox.Command{
		Path: j.Executable, Args: []string{ChildArg}, Dir: j.source(),
		Stdin: bytes.NewReader(request), Stdout: writer, Stderr: stderr, Limits: &childLimits,
	})
	writer.Close()
	if err := errors.Join(err, <-received); err != nil {
		return fmt.Errorf("cannot run the build's child: %w", err)
	}
	switch {
	case exit.Canceled:
		return context.Cause(ctx)
	case exit.OutOfMemory:
		return j.crash(exit.Code, "out of memory")
	case exit.Code != 0:
		return j.crash(exit.Code, stderr.String())
	case j.result.Failure != nil:
		return &failedError{j.result.Failure}
	case j.result.Runner == "":
		return errors.New("the build's child ended without a result")
	}
	return nil
}

// childLimits bound the child that reads a tree and bundles it. It has a full share
// of the CPU: somebody waits for it, and it takes a tenth of a second.
var childLimits = sandbox.Limits{Memory: 2 << 30, Processes: 256}

// receive reads what the child says.
func (j *job) receive(ctx context.Context, r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxMessage)
	for lines.Scan() {
		var m childMessage
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return fmt.Errorf("cannot read the child's output: %w", err)
		}
		if m.Log != "" {
			j.log.printf("%s", m.Log)
		}
		if m.Building {
			if err := j.start(ctx, previewd.StepBuild); err != nil {
				return err
			}
		}
		if m.Large != "" {
			j.large = m.Large
		}
		if m.Result != nil {
			m.Result.Failure = j.log.hideIn(m.Result.Failure)
			j.result = m.Result.checked()
		}
	}
	return lines.Err()
}

// crash tells a child that died of its input from one that we failed.
func (j *job) crash(code int, stderr string) error {
	j.result.Runner = runnerBundle
	if strings.Contains(stderr, "stack overflow") || strings.Contains(stderr, "stack exceeds") ||
		strings.Contains(stderr, "out of memory") {
		f := &previewd.Failure{
			Class: previewd.FailureUser, Code: previewd.FailBundlerCrashed, Step: previewd.StepBuild,
			Message: "The bundler died of this source: a file nests too deeply or is too large.",
		}
		if j.large != "" {
			f.Hint = "The last large file that it read is " + j.large + "."
		}
		return &failedError{f}
	}
	return fmt.Errorf("the build's child ended with code %d: %s", code, clip(stderr, 500))
}

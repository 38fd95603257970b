package runner

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/sandbox"
)

// The test binary is its own build's child.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ChildArg {
		os.Exit(Child(os.Stdin, os.Stdout))
	}
	if len(os.Args) > 1 && os.Args[1] == sandbox.InitArg {
		os.Exit(sandbox.Init())
	}
	countLookups()
	code := m.Run()
	removeShared()
	os.Exit(code)
}

// dispatcher plays the worker for one build at a time.
type dispatcher struct {
	mu       sync.Mutex
	claims   chan *previewd.Claim
	outcomes chan previewd.Outcome
	steps    []string
	log      bytes.Buffer
	canceled bool
	lost     string // the build whose lease is lost
}

func (d *dispatcher) ClaimBuild(ctx context.Context, _ string, _ time.Duration) (*previewd.Claim, error) {
	select {
	case c := <-d.claims:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *dispatcher) HeartbeatBuild(_ context.Context, lease previewd.Lease) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost == lease.BuildID {
		return false, &previewd.Error{Code: previewd.CodeLeaseLost}
	}
	return d.canceled, nil
}

func (d *dispatcher) AwaitCancel(ctx context.Context, _ previewd.Lease, _ time.Duration) (bool, error) {
	<-ctx.Done()
	return false, ctx.Err()
}

func (d *dispatcher) StartStep(_ context.Context, _ previewd.Lease, step string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steps = append(d.steps, step)
	return nil
}

func (d *dispatcher) AppendLog(_ context.Context, _ previewd.Lease, offset int64, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if offset != int64(d.log.Len()) {
		return &previewd.Error{Code: previewd.CodeOffsetMismatch}
	}
	d.log.Write(data)
	return nil
}

func (d *dispatcher) FinishBuild(_ context.Context, _ previewd.Lease, o previewd.Outcome) (previewd.BuildStatus, error) {
	d.outcomes <- o
	return previewd.BuildCompleted, nil
}

// bench is a runner that runs for one test.
type bench struct {
	*dispatcher
	t         *testing.T
	artifacts *artifact.Folder
	work      string
	stop      func()
}

func setup(t *testing.T, change ...func(*Config)) *bench {
	t.Helper()
	artifacts, err := artifact.NewFolder(t.TempDir())
	require.NoError(t, err)
	b := &bench{
		dispatcher: &dispatcher{claims: make(chan *previewd.Claim), outcomes: make(chan previewd.Outcome, 1)},
		t:          t, artifacts: artifacts, work: filepath.Join(t.TempDir(), "work"),
	}
	cfg := Config{
		Dispatcher: b.dispatcher, Artifacts: artifacts, ID: "test", WorkDir: b.work, Slots: 1,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Grace: 10 * time.Millisecond,
	}
	for _, c := range change {
		c(&cfg)
	}
	r, err := New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoDirExists(t, b.work, "a runner leaves nothing behind")
	})
	t.Cleanup(b.stop)
	return b
}

func (b *bench) claim(files map[string]string, change ...func(*previewd.Claim)) {
	b.t.Helper()
	var pack bytes.Buffer
	w := tar.NewWriter(&pack)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		require.NoError(b.t, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(files[name])), Mode: 0o644}))
		_, err := io.WriteString(w, files[name])
		require.NoError(b.t, err)
	}
	require.NoError(b.t, w.Close())
	blob, err := b.artifacts.Put(b.t.Context(), &pack)
	require.NoError(b.t, err)
	c := &previewd.Claim{
		Lease: previewd.Lease{BuildID: previewd.NewID(), Epoch: 1}, Source: blob.Digest,
		ReferenceID: "ref_test", LeaseFor: 30 * time.Second, Timeout: 10 * time.Minute,
	}
	for _, f := range change {
		f(c)
	}
	b.claims <- c
}

// build runs a tree to its end.
func (b *bench) build(files map[string]string, change ...func(*previewd.Claim)) previewd.Outcome {
	b.t.Helper()
	b.claim(files, change...)
	return <-b.outcomes
}

// site reads what a completed build has published.
func (b *bench) site(o previewd.Outcome) map[string]string {
	b.t.Helper()
	require.Equal(b.t, previewd.OutcomeCompleted, o.Kind, "%+v", o.Failure)
	m, err := artifact.ReadManifest(b.t.Context(), b.artifacts, o.Manifest)
	require.NoError(b.t, err)
	site := map[string]string{}
	for _, f := range m.Files {
		raw, err := artifact.ReadBlob(b.t.Context(), b.artifacts, f.Digest, 1<<30)
		require.NoError(b.t, err)
		site[f.Path] = string(raw)
	}
	return site
}

// one returns the only file of a site whose name matches.
func one(t *testing.T, site map[string]string, pattern string) (name, content string) {
	t.Helper()
	re := regexp.MustCompile("^" + pattern + "$")
	for path, text := range site {
		if re.MatchString(path) {
			require.Empty(t, name, "only one file matches %s", pattern)
			name, content = path, text
		}
	}
	require.NotEmpty(t, name, "no file matches %s in %v", pattern, slices.Sorted(maps.Keys(site)))
	return name, content
}

func TestStaticPublishesTheFilesAsTheyAre(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.build(map[string]string{
		"index.html": "<h1>hi</h1>", "sub/a.css": "a{}", ".env": "SECRET=1", ".well-known/x": "y", ".git/config": "z",
		"previewd.json": `{"fallback": "index.html"}`,
	})
	require.Equal(t, "static", o.Runner)
	require.Equal(t, map[string]string{"index.html": "<h1>hi</h1>", "sub/a.css": "a{}", ".well-known/x": "y"}, b.site(o))
	m, err := artifact.ReadManifest(t.Context(), b.artifacts, o.Manifest)
	require.NoError(t, err)
	require.Equal(t, "index.html", m.Fallback)
	require.Equal(t, []string{"prepare", "build", "publish"}, b.steps)
	require.Contains(t, b.log.String(), "runner: static")
}

func TestPublishPrecompresses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.build(map[string]string{
		"index.html": strings.Repeat("<p>compress me</p>", 500), "small.css": "a{}", "photo.jpg": strings.Repeat("jpg", 1000),
	})
	m, err := artifact.ReadManifest(t.Context(), b.artifacts, o.Manifest)
	require.NoError(t, err)
	for _, f := range m.Files {
		compressed := f.Path == "index.html"
		require.Equal(t, compressed, f.Gzip != nil, f.Path)
		require.Equal(t, compressed, f.Brotli != nil, f.Path)
	}
}

func TestTimeoutKillsTheBuild(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.build(hugeTree(), func(c *previewd.Claim) { c.Timeout = 30 * time.Millisecond })
	require.Equal(t, previewd.OutcomeFailed, o.Kind)
	require.Equal(t, previewd.FailTimeout, o.Failure.Code)
	require.Equal(t, previewd.FailureTimeout, o.Failure.Class)
}

// hugeTree takes a bundler seconds.
func hugeTree() map[string]string {
	var source strings.Builder
	for range 200_000 {
		source.WriteString("export const x" + previewd.NewID()[24:] + " = (a, b) => { if (a) { return b + 1 } else { return [a, b, {c: a}] } };\n")
	}
	return map[string]string{"index.html": `<script type="module" src="/main.ts"></script>`, "main.ts": source.String()}
}

func TestCancelKillsTheBuild(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.canceled = true
	o := b.build(hugeTree(), func(c *previewd.Claim) { c.LeaseFor = 30 * time.Millisecond })
	require.Equal(t, previewd.OutcomeCanceled, o.Kind)
}

func TestStopReleasesTheBuild(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.claim(hugeTree())
	go b.stop()
	require.Equal(t, previewd.OutcomeReleased, (<-b.outcomes).Kind)
	b.stop()
}

func TestLostLeaseStopsTheBuildSilently(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.claim(hugeTree(), func(c *previewd.Claim) {
		c.LeaseFor = 30 * time.Millisecond
		b.lost = c.BuildID
	})
	o := b.build(map[string]string{"index.html": "next"}) // the slot is free again, and nothing was said of the first
	require.Equal(t, previewd.OutcomeCompleted, o.Kind)
	require.Equal(t, "static", o.Runner)
}

func TestCorruptSourceIsOurFault(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.build(map[string]string{"index.html": "x"}, func(c *previewd.Claim) { c.Source = previewd.DigestOf([]byte("missing")) })
	require.Equal(t, previewd.FailureInfra, o.Failure.Class)
	require.Equal(t, previewd.FailInfra, o.Failure.Code)
	require.Contains(t, o.Failure.Hint, "ref_test")
}

func TestTooLargeASiteIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *Config) { c.MaxFiles = 2 })
	o := b.build(map[string]string{"index.html": "x", "a": "", "b": ""})
	require.Equal(t, previewd.FailOutputTooLarge, o.Failure.Code)
}

func TestSiteWithALinkIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "passwd.txt")))
	j := &job{Runner: &Runner{Config{MaxFiles: 10, MaxBytes: 1000}}}
	_, err := j.listSite(t.Context(), os.DirFS(dir), func(string) bool { return true })
	require.ErrorContains(t, err, "no regular file")
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	_, err = fs.ReadFile(root.FS(), "passwd.txt")
	require.Error(t, err, "and its root does not follow it")
}

func TestLogIsCappedAndHarmless(t *testing.T) {
	t.Parallel()
	d := &dispatcher{}
	l := newBuildLog(t.Context(), d, &previewd.Claim{})
	l.printf("red \x1b[31malert\x1b]8;;http://x\x07 \u202ebidi\r\nsecond\x00 line")
	l.printf("%s", strings.Repeat("x", maxLine+5))
	for range 80 {
		l.printf("%s", strings.Repeat("y", maxLine-1))
	}
	l.close()
	text := d.log.String()
	require.NotContains(t, text, "\x1b")
	require.NotContains(t, text, "\u202e")
	require.NotContains(t, text, "\x00")
	require.Contains(t, text, "second line\n")
	require.Contains(t, text, "(truncated 5 bytes)")
	require.Regexp(t, `truncated \d+ bytes\n$`, text)
	require.Less(t, len(text), maxLogSize+maxLine)
}

package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/npm"
	"github.com/previewd/previewd/internal/sandbox"
	"github.com/previewd/previewd/internal/toolchain"
)

var shared struct {
	sync.Once
	dir    string
	tools  *toolchain.Toolchain
	report sandbox.Report
	err    error
}

// removeShared removes what tests have shared.
func removeShared() {
	if shared.dir != "" {
		os.RemoveAll(shared.dir)
	}
}

// npmBench is a runner with a sandbox and a registry of its own.
type npmBench struct {
	*bench
	*registry
	with *Sandbox
}

func setupNPM(t *testing.T, change ...func(*Sandbox)) *npmBench {
	t.Helper()
	shared.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "toolchain-"); shared.err == nil {
			shared.tools, shared.err = toolchain.Prepare(context.Background(), shared.dir)
		}
		if shared.err == nil {
			shared.report = sandbox.Probe(context.Background(), sandbox.BoxConfig{Root: shared.tools.Root, Limits: sandbox.DefaultLimits()})
		}
	})
	if shared.err != nil {
		t.Skipf("SKIPPED: no toolchain: %v", shared.err)
	}
	if !shared.report.OK() {
		t.Skipf("SKIPPED: no sandbox: %s %s", shared.report.Reason, shared.report.Fix)
	}
	b := &npmBench{registry: startRegistry(t)}
	dir, quiet := t.TempDir(), slog.New(slog.NewTextHandler(io.Discard, nil))
	mirror, err := npm.NewMirror(npm.Config{Registry: b.url, Dir: filepath.Join(dir, "npm"), Log: quiet})
	require.NoError(t, err)
	modules, err := NewModules(filepath.Join(dir, "modules"), 1<<30, sandbox.DefaultUID)
	require.NoError(t, err)
	b.with = &Sandbox{Open: OpenSandbox, Level: sandbox.LevelNamespace, Root: shared.tools.Root, Mirror: mirror, Modules: modules, Limits: sandbox.DefaultLimits()}
	for _, c := range change {
		c(b.with)
	}
	b.bench = setup(t, func(cfg *Config) {
		cfg.Sandbox = func(context.Context) (*Sandbox, error) { return b.with, nil }
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	})
	return b
}

// build is bench's, with one log for all builds.
func (b *npmBench) build(tree map[string]string, change ...func(*previewd.Claim)) previewd.Outcome {
	b.t.Helper()
	return b.bench.build(tree, append(change, func(c *previewd.Claim) { c.LogOffset = int64(len(b.text())) })...)
}

func (b *npmBench) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// A tree's own command makes its site; the second time its packages are there.
func TestPackagesAreInstalledOnce(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	tree := b.tree("maker", "maker", "native")
	first := b.build(tree, func(c *previewd.Claim) { c.Env = map[string]string{"VITE_NAME": "Ann"} })
	require.Equal(t, map[string]string{"index.html": "<h1>tea!Ann</h1>"}, b.site(first), b.text())
	require.Equal(t, "sandbox", first.Runner)
	require.Equal(t, "namespace", first.Isolation)
	require.Equal(t, "package.json has a build script", first.Reason)
	require.Equal(t, "miss", first.Cache)
	require.Equal(t, []string{"prepare", "install", "build", "publish"}, b.steps)
	require.Contains(t, b.text(), "fetched 2 packages")
	require.Len(t, first.Packages, 2)
	for i, name := range []string{"maker", "native"} {
		require.Equal(t, name, first.Packages[i].Name)
		require.Contains(t, first.Packages[i].Integrity, "sha512-")
		require.Positive(t, first.Packages[i].Bytes)
	}

	tree["page.txt"] = "coffee"
	second := b.build(tree)
	require.Equal(t, map[string]string{"index.html": "<h1>coffee!</h1>"}, b.site(second))
	require.Equal(t, "hit", second.Cache)
	require.Len(t, second.Packages, 2, "what is kept knows what it is of")
	require.True(t, second.Packages[0].Cached)
	require.Zero(t, first.CacheSaved)
	require.Positive(t, second.CacheSaved)
	require.Contains(t, b.text(), "as they were installed before")

	// Scripts ran in both builds, and left nothing in what is kept.
	tree = b.tree("cat node_modules/native/made.txt && maker", "maker", "native")
	for _, cache := range []string{"miss", "hit"} {
		o := b.build(tree)
		require.Equal(t, previewd.OutcomeCompleted, o.Kind, b.text())
		require.Equal(t, cache, o.Cache)
	}
	made, err := filepath.Glob(filepath.Join(b.with.Modules.dir, "*", "node_modules", "native", "made.txt"))
	require.NoError(t, err)
	require.Empty(t, made)
}

// No build gets anything into the packages of another.
func TestPackagesCannotBePoisoned(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	// The same manifest and lockfile: only other files tell the two trees apart.
	evil := b.tree("sh build.sh", "maker")
	good := map[string]string{}
	for name, text := range evil {
		good[name] = text
	}
	evil["build.sh"] = `echo "module.exports = 'POISON'" > node_modules/maker/say.js; echo x > node_modules/maker/new.js; maker`
	good["build.sh"] = `ls node_modules/maker; maker`
	for range 2 {
		require.Contains(t, b.site(b.build(evil))["index.html"], "POISON")
	}
	require.Equal(t, "<h1>tea!</h1>", b.site(b.build(good))["index.html"])
	require.NotContains(t, b.text(), "new.js")
}

// Kept packages are dropped when there are too many, the least used first, and
// never those that a build uses.
func TestKeptPackagesAreBounded(t *testing.T) {
	t.Parallel()
	m, err := NewModules(t.TempDir(), 40_000, -1)
	require.NoError(t, err)
	add := func(key string, size int) {
		t.Helper()
		workspace := t.TempDir()
		require.NoError(t, os.MkdirAll(filepath.Join(workspace, "node_modules", "a"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(workspace, "node_modules", "a", "index.js"), make([]byte, size), 0o644))
		require.NoError(t, os.Symlink("a", filepath.Join(workspace, "node_modules", "b")))
		root, err := os.OpenRoot(workspace)
		require.NoError(t, err)
		defer root.Close()
		_, keep, err := m.copy(t.Context(), root, key, modulesInfo{Took: time.Second})
		require.NoError(t, err)
		require.NoError(t, keep())
	}
	add("one", 40)
	add("two", 40)
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(m.dir, "two", modulesInfoFile), old, old))
	_, _, release, ok := m.take("one")
	require.True(t, ok)
	require.NoError(t, os.Chtimes(filepath.Join(m.dir, "one", modulesInfoFile), old.Add(-time.Hour), old.Add(-time.Hour)))
	add("three", 40)
	_, _, _, ok = m.take("two")
	require.False(t, ok, "it is the least used that nobody uses")
	_, _, again, ok := m.take("one")
	require.True(t, ok)
	again()
	release()
	add("three", 40) // is there already
	require.NoError(t, os.MkdirAll(filepath.Join(m.dir, "new-1", "node_modules"), 0o755))
	m, err = NewModules(m.dir, 40_000, -1)
	require.NoError(t, err)
	require.NoDirExists(t, filepath.Join(m.dir, "new-1"))
	_, info, release, ok := m.take("three")
	require.True(t, ok)
	release()
	require.Equal(t, modulesInfo{Bytes: 4*blockSize + 40, Took: time.Second}, info)
	require.NoError(t, m.Shrink(1))
	_, _, _, ok = m.take("one")
	require.False(t, ok, "the oldest of two goes")
	_, _, release, ok = m.take("three")
	require.True(t, ok)
	require.NoError(t, m.Shrink(1<<30))
	_, _, _, ok = m.take("three")
	require.True(t, ok, "it is used")
	release()

	// What is complete but has no name yet is not swept, nor is what a build uses;
	// what was removed in part gives way.
	require.NoError(t, os.MkdirAll(filepath.Join(m.dir, "new-2"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(m.dir, "new-2", modulesInfoFile), []byte(`{"bytes": 1}`), 0o600))
	require.NoError(t, m.Shrink(1<<30))
	require.DirExists(t, filepath.Join(m.dir, "new-2"))
	m, err = NewModules(m.dir, 40_000, -1)
	require.NoError(t, err)
	require.NoDirExists(t, filepath.Join(m.dir, "new-2"))
	require.NoError(t, os.MkdirAll(filepath.Join(m.dir, "four", "node_modules", "left"), 0o755))
	add("four", 40)
	dir, _, release, ok := m.take("four")
	require.True(t, ok)
	release()
	require.NoDirExists(t, filepath.Join(dir, "left"))
}

// Packages that hold links out of themselves are not kept.
func TestPackagesWithLinksOutAreNotKept(t *testing.T) {
	t.Parallel()
	m, err := NewModules(t.TempDir(), 40_000, -1)
	require.NoError(t, err)
	for name, make := range map[string]func(dir string) error{
		"Absolute": func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "x")) },
		"Out":      func(dir string) error { return os.Symlink("../../x", filepath.Join(dir, "x")) },
	} {
		workspace := t.TempDir()
		dir := filepath.Join(workspace, "node_modules")
		require.NoError(t, os.Mkdir(dir, 0o755))
		require.NoError(t, make(dir))
		root, err := os.OpenRoot(workspace)
		require.NoError(t, err)
		_, _, err = m.copy(t.Context(), root, "odd", modulesInfo{Took: time.Second})
		root.Close()
		require.ErrorIs(t, err, errOddModules, name)
	}
}

// Each thing that goes wrong in a tree has its code.
func TestFailuresOfPackagesBuilds(t *testing.T) {
	t.Parallel()
	small := sandbox.DefaultLimits()
	small.Memory, small.Processes, small.Disk = 300<<20, 64, 64<<20
	type want struct {
		code    string
		step    string
		message string
	}
	for name, c := range map[string]struct {
		build  string
		change func(tree map[string]string)
		want   want
	}{
		"Exit":      {build: "echo no good; exit 3", want: want{previewd.FailBuild, "build", ""}},
		"NoProgram": {build: "vite build", want: want{previewd.FailBuild, "build", "vite"}},
		"NoOutput":  {build: "true", want: want{previewd.FailNoOutputDir, "build", "there is no index.html"}},
		"Memory":    {build: "node -e 'const a = []; for (;;) a.push(Buffer.alloc(8 << 20, 1))'", want: want{previewd.FailOOM, "build", "300 MB"}},
		"Processes": {build: "for i in $(seq 200); do sleep 60 & done; exit 1", want: want{previewd.FailPidsLimit, "build", "64"}},
		"Disk":      {build: "head -c 100000000 /dev/zero > big", want: want{previewd.FailDiskLimit, "build", ""}},
		"Log":       {build: `node -e "for (;;) require('fs').writeSync(1, 'x'.repeat(65536))"`, want: want{previewd.FailOutputLimit, "build", "64 MB"}},
		"Idle": {build: "sleep 60", change: func(tree map[string]string) {
			tree["previewd.json"] = `{"install": []}` // which can take as long, on a machine with much to do
		}, want: want{previewd.FailIdleTimeout, "build", "3s"}},
		"Network": {build: "node -e \"fetch('http://example.com').catch(e => { console.error(e); process.exit(1) })\"", want: want{previewd.FailNetworkBlocked, "build", "example.com"}},
		"Denied": {
			build: "node knock.js",
			change: func(tree map[string]string) {
				tree["knock.js"] = `const knock = () => { const s = require('net').connect(3128, '127.0.0.1', () => s.write('CONNECT evil.example:443 HTTP/1.1\r\n\r\n'));
					s.on('error', () => 0); s.on('close', knock) }; knock()`
			},
			want: want{previewd.FailNetworkBlocked, "build", "evil.example:443"},
		},
		"Unknown": {build: "maker", change: func(tree map[string]string) {
			delete(tree, "package-lock.json")
			tree["package.json"] = `{"scripts":{"build":"maker"},"dependencies":{"no-such-package":"1"}}`
		}, want: want{previewd.FailDependencyUnavailable, "install", "no-such-package"}},
		"Link":       {build: "mkdir dist && echo x > dist/index.html && ln -s /etc/passwd dist/passwd", want: want{previewd.FailUnsafePath, "publish", "regular file"}},
		"Deep":       {build: "d=dist; for i in $(seq 40); do d=$d/d; done; mkdir -p $d; echo x > dist/index.html", want: want{previewd.FailUnsafePath, "publish", "32 folders"}},
		"Name":       {build: `mkdir dist && echo x > dist/index.html && echo x > "dist/$(printf '\377')"`, want: want{previewd.FailUnsafePath, "publish", "UTF-8"}},
		"Tree":       {build: "maker", change: func(tree map[string]string) { tree["big.bin"] = strings.Repeat("0123456789abcdef", 4<<20) }, want: want{previewd.FailDiskLimit, "install", "64 MB"}},
		"FolderLink": {build: "mkdir real && echo x > real/index.html && ln -s /etc dist", want: want{previewd.FailNoOutputDir, "build", ""}},
		"Script": {build: "maker", change: func(tree map[string]string) {
			tree["package.json"] = strings.Replace(tree["package.json"], `"scripts":{`, `"scripts":{"postinstall":"exit 9",`, 1)
		}, want: want{previewd.FailInstall, "install", ""}},
		"Config": {build: "maker", change: func(tree map[string]string) { tree["previewd.json"] = `{"build":"npm run build"}` }, want: want{previewd.FailBadConfig, "build", "shell"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupNPM(t, func(s *Sandbox) {
				s.Limits = small
				if name == "Idle" {
					s.Idle = 3 * time.Second
				}
			})
			tree := b.tree(c.build, "maker")
			if c.change != nil {
				c.change(tree)
			}
			o := b.build(tree)
			require.Equal(t, previewd.OutcomeFailed, o.Kind, b.text())
			f := o.Failure
			require.Equal(t, want{c.want.code, c.want.step, c.want.message}, want{f.Code, f.Step, c.want.message}, "%+v\n%s", f, b.text())
			require.Contains(t, f.Message, c.want.message)
			require.Equal(t, previewd.FailureUser, f.Class)
		})
	}
}

// Packages that could not be had whole are not kept: npm does without those that
// are optional.
func TestPartOfThePackagesIsNotKept(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	tree := b.tree("maker", "maker")
	whole := tree["package-lock.json"]
	var lock map[string]any
	require.NoError(t, json.Unmarshal([]byte(whole), &lock))
	entries := lock["packages"].(map[string]any)
	entries["node_modules/gone"] = map[string]any{
		"version": "1.0.0", "resolved": "https://registry.npmjs.org/gone/-/gone-1.0.0.tgz", "integrity": integrity(nil), "optional": true,
	}
	entries[""].(map[string]any)["optionalDependencies"] = map[string]any{"gone": "1.0.0"}
	raw, err := json.Marshal(lock)
	require.NoError(t, err)
	tree["package-lock.json"] = string(raw)
	tree["package.json"] = strings.Replace(tree["package.json"], `"dependencies"`, `"optionalDependencies":{"gone":"1.0.0"},"dependencies"`, 1)
	for range 2 {
		o := b.build(tree)
		require.Equal(t, previewd.OutcomeCompleted, o.Kind, b.text())
		require.Equal(t, "miss", o.Cache)
	}
}

// What a command writes costs no more than its length, however short its lines.
func TestManyLinesAreReadInLinearTime(t *testing.T) {
	t.Parallel()
	log := &buildLog{}
	o := newCommandOutput(log, func(error) {})
	chunk := bytes.Repeat([]byte("\n"), 1<<20)
	began := time.Now()
	for range 16 {
		_, err := o.Write(chunk)
		require.NoError(t, err)
	}
	require.Less(t, time.Since(began), 5*time.Minute, "16 MiB of empty lines: quadratic, it would be hours")
	_, err := o.Write([]byte("one\ntw"))
	require.NoError(t, err)
	_, err = o.Write([]byte("o\n"))
	require.NoError(t, err)
	require.Regexp(t, `one\n.*two\n$`, log.pending.String())
}

// A lockfile that does not fit is no reason to fail, and is told.
func TestLockfileThatDoesNotFit(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	tree := b.tree("maker", "maker")
	tree["package.json"] = strings.Replace(tree["package.json"], `"maker":"1.0.0"`, `"maker":"1.0.0","native":"1.0.0"`, 1)
	require.Equal(t, "<h1>tea!</h1>", b.site(b.build(tree))["index.html"], b.text())
	require.Contains(t, b.text(), "the lockfile does not fit package.json, so versions are resolved anew")
}

// A build ends when it is canceled, when its time is over, and when its runner
// stops, whatever its code is at.
func TestPackagesBuildsEnd(t *testing.T) {
	t.Parallel()
	stubborn := "trap '' TERM INT HUP; while :; do sleep 1; echo on; done"
	// On a busy machine the time may be over before the step that it is about.
	within := func(b *npmBench, tree map[string]string, code string) (f *previewd.Failure) {
		for limit := 10 * time.Second; limit < 2*time.Minute && (f == nil || f.Code != code); limit *= 3 {
			f = b.build(tree, func(c *previewd.Claim) { c.Timeout = limit }).Failure
		}
		require.Equal(b.t, code, f.Code, b.text())
		return f
	}
	t.Run("Timeout", func(t *testing.T) {
		t.Parallel()
		b := setupNPM(t)
		require.Equal(t, previewd.FailureTimeout, within(b, b.tree(stubborn, "maker"), previewd.FailTimeout).Class)
	})
	t.Run("InstallTimeout", func(t *testing.T) {
		t.Parallel()
		b := setupNPM(t)
		tree := b.tree("maker", "maker")
		tree["package.json"] = strings.Replace(tree["package.json"], `"scripts":{`, `"scripts":{"postinstall":"`+stubborn+`",`, 1)
		within(b, tree, previewd.FailInstallTimeout)
	})
	t.Run("Stop", func(t *testing.T) {
		t.Parallel()
		b := setupNPM(t)
		b.claim(b.tree(stubborn, "maker"), func(c *previewd.Claim) { c.Timeout = 5 * time.Minute })
		for !strings.Contains(b.text(), "] on\n") {
			require.Empty(t, b.outcomes, "the build has ended before it was stopped: %s", b.text())
			time.Sleep(5 * time.Millisecond)
		}
		b.stop()
		require.Equal(t, previewd.OutcomeReleased, (<-b.outcomes).Kind)
	})
}

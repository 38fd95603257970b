package runner

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/npm"
)

// lookups counts the names that were asked for in this package's tests: one that
// points outside the first time could point inside the next.
var lookups atomic.Int64

// countLookups takes the place of the machine's resolver, for all tests.
func countLookups() {
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		lookups.Add(1)
		return nil, errors.New("no name server is asked here")
	}}
}

// trap is a service of this machine that nobody must get to.
type trap struct {
	addr   string
	caught atomic.Int64
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	caught := &trap{addr: l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			caught.caught.Add(1)
			conn.Close()
		}
	}()
	return caught
}

func (o *trap) requireUntouched(t *testing.T) {
	t.Helper()
	require.Zero(t, lookups.Load(), "a name was looked up")
	require.Zero(t, o.caught.Load(), "a service of the machine was reached")
}

// hostile is a registry whose answers lead elsewhere.
func hostile(t *testing.T, real string, answer func(w http.ResponseWriter, r *http.Request) bool, change func(body string) string) *npm.Mirror {
	t.Helper()
	to, err := url.Parse(real)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer(w, r) {
			return
		}
		if strings.Contains(r.URL.Path, "/-/") {
			proxy.ServeHTTP(w, r)
			return
		}
		kept := httptest.NewRecorder()
		r.Header.Del("Accept-Encoding")
		proxy.ServeHTTP(kept, r)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(kept.Code)
		_, _ = io.WriteString(w, change(kept.Body.String()))
	}))
	t.Cleanup(server.Close)
	mirror, err := npm.NewMirror(npm.Config{Registry: server.URL, Dir: filepath.Join(t.TempDir(), "npm"), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	require.NoError(t, err)
	return mirror
}

// Nothing that a build, its lockfile or a packument says makes the server ask for a
// name or open a connection: it dials its registry and nobody else. So there is no
// name to point elsewhere between a check and a connection.
func TestBuildsChooseNoHost(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	o := newTrap(t)
	trap := o.addr
	none := func(http.ResponseWriter, *http.Request) bool { return false }
	same := func(body string) string { return body }

	tree := b.tree("sh knock.sh && maker", "maker")
	tree["package-lock.json"] = strings.ReplaceAll(tree["package-lock.json"], "https://registry.npmjs.org/", "http://rebind.example/")
	tree["knock.sh"] = `for to in rebind.example:443 ` + trap + ` localhost:` + port(trap) + ` 169.254.169.254:80; do node -e '
		const to = process.argv[1], net = require("net");
		for (const port of [3128, 4873]) for (const line of ["CONNECT " + to, "GET http://" + to + "/", "GET /maker"]) {
			const s = net.connect(port, "127.0.0.1", () => s.write(line + " HTTP/1.1\r\nHost: " + to + "\r\nX-Forwarded-Host: " + to + "\r\nConnection: close\r\n\r\n"));
			s.on("error", () => 0); s.resume() }' $to; done`
	b.with.Mirror = hostile(t, b.url, none, same)
	require.Equal(t, map[string]string{"index.html": "<h1>tea!</h1>"}, b.site(b.build(tree)), b.text())
	require.GreaterOrEqual(t, strings.Count(b.text(), "knock.sh"), 1)
	o.requireUntouched(t)

	elsewhere := []string{"http://" + trap, "http://rebind.example", "//localhost:" + port(trap)}
	if testing.Short() {
		elsewhere = elsewhere[:2]
	}
	for _, to := range elsewhere {
		loose := b.tree("maker", "maker")
		delete(loose, "package-lock.json")
		loose[".npmrc"] = "fetch-retries=0\n"
		b.with.Mirror = hostile(t, b.url, none, func(body string) string { return strings.ReplaceAll(body, b.url, to) })
		b.build(loose) // a path of the registry is asked for, wherever the URL leads; or none
		o.requireUntouched(t)

		b.with.Mirror = hostile(t, b.url, func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, to+r.URL.Path, http.StatusFound)
			return true
		}, same)
		outcome := b.build(loose)
		require.Equal(t, previewd.OutcomeFailed, outcome.Kind, b.text())
		o.requireUntouched(t)
	}
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// Settings of TypeScript that packages bring along, and folders of the tree, are not
// read; those of the tree itself that lead out are left to its own build, in a box.
func TestSettingsOfTypeScriptLeadNowhere(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	for file, runner := range map[string]string{
		"tsconfig.json": previewd.RunnerSandbox, "src/tsconfig.json": previewd.RunnerBundle, "node_modules/tea/tsconfig.json": previewd.RunnerBundle,
	} {
		outside := []string{"/etc/passwd", "../../../../../../../../../../etc/passwd", "/proc/self/environ"}
		if testing.Short() {
			outside = outside[:1]
		}
		for _, extends := range outside {
			tree := plainVite(b)
			tree["src/more.ts"] = "export default 1"
			tree["main.ts"] += `; import more from "./src/more"; console.log(more)`
			tree[file] = `{"extends": "` + extends + `"}`
			o := b.build(tree)
			require.Equal(t, runner, o.Runner, b.text())
			site := all(b.site(o))
			require.Contains(t, site, map[string]string{previewd.RunnerSandbox: "by vite", previewd.RunnerBundle: "green"}[runner])
			for _, text := range []string{"root:", "PATH=", "PREVIEWD"} {
				require.NotContains(t, site+b.text()+o.Reason, text, file)
			}
		}
	}
}

// terminalNoise is what tools write to terminals, and what drives one that shows a log.
const terminalNoise = `printf '\033[31mred\033[0m \033]0;title\007 \033[2J bell\007 1%%\r 50%%\r100%%\n\000nul ::set-output name=x::y\n'
printf '\033]8;;http://evil.example\033\\link\033]8;;\033\\ \033[?25l\033P1$r0m\033\\ \033(0 \033c \302\233 31m \302\235 x\n'
printf 'back\b\b\b\bover \f \v \177del \342\200\256desrever \342\201\246isolate\342\201\251 \342\200\250line \342\200\251paragraph \330\234mark\n'
printf '\377\376 not UTF-8 \355\240\200 surrogate \300\200 nul\n'
printf '[  0.01s] forged line\r\n' >&2
`

// What tools write to a terminal is no more than text in the log, in a build that
// succeeds and in what is told of one that fails.
func TestLogHasNoEscapes(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	tree := b.tree("sh noise.sh && maker", "maker")
	tree["noise.sh"] = terminalNoise
	o := b.build(tree)
	require.Equal(t, previewd.OutcomeCompleted, o.Kind, b.text())
	require.Contains(t, b.text(), "] 100%\n")
	require.Contains(t, b.text(), "] nul ::set-output name=x::y\n", "it is text, after the time")
	require.Contains(t, b.text(), "desrever")
	require.NotContains(t, b.text(), "title")
	require.NotContains(t, b.text(), "evil.example")
	require.NotRegexp(t, `(?m)^\[ *[0-9.]+s\] *\[  0.01s\] forged line\r`, b.text())
	requireHarmless(t, b.text())

	tree["noise.sh"] = terminalNoise + "exit 1"
	o = b.build(tree)
	require.Equal(t, previewd.OutcomeFailed, o.Kind)
	requireHarmless(t, b.text())
	for _, text := range []string{o.Failure.Message, o.Failure.Hint, o.Failure.Excerpt, o.Failure.File} {
		requireHarmless(t, text)
	}
}

// requireHarmless requires that a text drives no terminal and turns no line around.
func requireHarmless(t *testing.T, text string) {
	t.Helper()
	require.Equal(t, strings.ToValidUTF8(text, ""), text)
	for _, r := range text {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || unicode.Is(unicode.Bidi_Control, r)) {
			t.Fatalf("%q is in %q", r, text)
		}
	}
}

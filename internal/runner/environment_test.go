package runner

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/sandbox"
)

const (
	testToken = "hünter2/plus+more?<42>&so on"
	testLines = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n"
)

// given are variables of a project.
func given(vars ...previewd.ClaimVar) func(*previewd.Claim) {
	return func(c *previewd.Claim) { c.Vars = vars }
}

func secretVar(name, value string, scopes ...previewd.EnvScope) previewd.ClaimVar {
	if len(scopes) == 0 {
		scopes = []previewd.EnvScope{previewd.EnvBuild}
	}
	return previewd.ClaimVar{Name: name, Value: previewd.Hidden(value), Secret: true, Scopes: scopes}
}

// traces are forms and parts of the token and the key by which they would be known.
func traces() []string {
	raw := []byte(testToken)
	return []string{
		testToken, "hünter2/plu", "s+more?<42>&so on", base64.StdEncoding.EncodeToString(raw)[:14], base64.StdEncoding.EncodeToString(append([]byte("user:"), raw...))[8:20],
		url.QueryEscape(testToken)[:14], url.PathEscape(testToken)[:14], hex.EncodeToString(raw)[:16], "hünter2\\u002f", "more?\\u003c",
		"MIIEvQIBADANBgkqhkiG9w0B", "AQEFAASCBKcwggSjAgEAAoIB", base64.StdEncoding.EncodeToString([]byte(testLines))[:20],
	}
}

func requireNoTraces(t *testing.T, text string) {
	t.Helper()
	for _, trace := range traces() {
		require.NotContains(t, text, trace)
	}
}

// talkative prints secrets in all ways that it knows, and dies of one.
const talkative = `
const fs = require('fs'), s = process.env.TOKEN, key = process.env.KEY, w = t => fs.writeSync(1, t);
w('raw ' + s + '.\n');
w('base64 ' + Buffer.from(s).toString('base64') + '.\n');
w('basic ' + Buffer.from('user:' + s).toString('base64') + '.\n');
w('base64url ' + Buffer.from(s).toString('base64url') + '.\n');
w('component ' + encodeURIComponent(s) + '.\n');
w('search ' + new URLSearchParams({s}) + '.\n');
w('json ' + JSON.stringify({s}) + '.\n');
w('hex ' + Buffer.from(s).toString('hex') + '.\n');
w('split ' + s.slice(0, 11)); w(s.slice(11) + '.\n');
w('wrapped ' + s.slice(0, 11) + '\n' + s.slice(11) + '.\n');
w('escapes ' + s.slice(0, 3) + '\x1b[0m' + s.slice(3, 9) + '\x1b]8;;http://x\x07' + s.slice(9) + '.\n');
w('long ' + 'x'.repeat(16 * 1024 - 12) + s + '.\n');
w('longer ' + 'x'.repeat(40000) + s + '.\n');
w('key ' + key + '.\n');
w('key64 ' + Buffer.from(key).toString('base64') + '.\n');
w('keyjson ' + JSON.stringify(key) + '.\n');
console.error('on stderr ' + s + '.');
throw new Error('cannot log in with ' + s + ' at https://x.test/?q=' + encodeURIComponent(s));
`

// recorder notes what commands are given.
type recorder struct {
	Box
	mu    *sync.Mutex
	tasks *[]sandbox.Task
}

func (r recorder) Run(ctx context.Context, task sandbox.Task) (sandbox.End, error) {
	r.mu.Lock()
	*r.tasks = append(*r.tasks, task)
	r.mu.Unlock()
	return r.Box.Run(ctx, task)
}

// Each command is given what its scope has. What installs packages for others gets
// nothing.
func TestCommandsAreGivenTheirScope(t *testing.T) {
	t.Parallel()
	var tasks []sandbox.Task
	b := setupNPM(t, func(s *Sandbox) {
		open, mu := s.Open, new(sync.Mutex)
		s.Open = func(ctx context.Context, cfg sandbox.BoxConfig) (Box, error) {
			box, err := open(ctx, cfg)
			return recorder{box, mu, &tasks}, err
		}
	})
	tree := b.tree("sh sees.sh build && maker", "maker")
	tree["package.json"] = strings.Replace(tree["package.json"], `"build":`, `"postinstall":"sh sees.sh install","build":`, 1)
	tree["sees.sh"] = `echo "$1 sees [$OF_BUILD] [$OF_INSTALL] [$OF_BOTH] [$PLAIN] [$VITE_NAME]"`
	vars := given(
		secretVar("OF_BUILD", "secret-of-build"), secretVar("OF_INSTALL", "secret-of-install", "install"),
		secretVar("OF_BOTH", "secret-of-both", "install", "build"),
		previewd.ClaimVar{Name: "PLAIN", Value: "plain", Scopes: []previewd.EnvScope{"build"}},
		previewd.ClaimVar{Name: "VITE_NAME", Value: "of the project", Scopes: []previewd.EnvScope{"build"}},
		secretVar("VITE_TOKEN", "secret-for-pages", "install", "build"),
	)
	own := func(c *previewd.Claim) { c.Env = map[string]string{"VITE_NAME": "Ann"} }
	for range 2 { // packages are installed, and then kept
		require.Equal(t, "<h1>tea!Ann</h1>", b.site(b.build(tree, vars, own))["index.html"], b.text())
	}
	require.Equal(t, 2, strings.Count(b.text(), "install sees [] [***] [***] [] [Ann]"), b.text())
	require.Equal(t, 2, strings.Count(b.text(), "build sees [***] [] [***] [plain] [Ann]"), b.text())
	require.Contains(t, b.text(), "note: VITE_TOKEN is a secret, so no page shows it and no command is given it")

	kept := 0
	for _, task := range tasks {
		env := strings.Join(task.Env, "\n")
		require.NotContains(t, env, "VITE_TOKEN")
		if slices.Contains(task.Argv, "--ignore-scripts") {
			kept++
			require.NotContains(t, env, "secret-of")
		}
		require.NotContains(t, strings.Join(task.Argv, " "), "secret-of")
	}
	require.Equal(t, 1, kept)
}

// The bundler puts variables into pages, and never a secret.
func TestPagesShowNoSecrets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tree := map[string]string{
		"index.html": `<title>%VITE_NAME% %VITE_TOKEN%</title><script type="module" src="/main.ts"></script>`,
		"main.ts":    `document.title = [import.meta.env.VITE_NAME, import.meta.env.VITE_OWN, import.meta.env.VITE_TOKEN, JSON.stringify(import.meta.env)].join()`,
	}
	site := all(b.site(b.build(tree, given(
		previewd.ClaimVar{Name: "VITE_NAME", Value: "of-the-project", Scopes: []previewd.EnvScope{"build"}},
		previewd.ClaimVar{Name: "VITE_OWN", Value: "hidden-by-own", Scopes: []previewd.EnvScope{"build"}},
		previewd.ClaimVar{Name: "VITE_INSTALL", Value: "of-install", Scopes: []previewd.EnvScope{"install"}},
		previewd.ClaimVar{Name: "OTHER", Value: "of-no-page", Scopes: []previewd.EnvScope{"build"}},
		secretVar("VITE_TOKEN", "hunter2-hunter2"),
	), func(c *previewd.Claim) { c.Env = map[string]string{"VITE_OWN": "its-own"} })))
	require.Contains(t, site, "of-the-project %VITE_TOKEN%")
	require.Contains(t, site, "its-own")
	for _, text := range []string{"hunter2", "hidden-by-own", "of-install", "of-no-page"} {
		require.NotContains(t, site, text)
	}
	require.Contains(t, b.log.String(), "note: VITE_TOKEN is a secret")
}

// A site is published as it is, and its author is told.
func TestSiteThatShowsASecretIsTold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	site := b.site(b.build(map[string]string{
		"index.html": "<h1>hunter2-hunter2</h1>", "more.html": "hunter2-hunter2", "x.png": "another-secret",
	}, given(secretVar("TOKEN", "hunter2-hunter2"), secretVar("OTHER", "another-secret"), secretVar("UNUSED", "nowhere-to-be-found"))))
	require.Equal(t, "<h1>hunter2-hunter2</h1>", site["index.html"])
	require.Regexp(t, `warning: the site shows the value of the secret TOKEN, in (index|more)\.html`, b.log.String())
	require.Equal(t, 1, strings.Count(b.log.String(), "warning: the site"))
	require.NotContains(t, b.log.String(), "hunter2")
}

func TestBuildThatIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	refused := &previewd.Failure{Class: previewd.FailureInfra, Code: previewd.FailSecrets, Step: previewd.StepPrepare, Message: "no key", Hint: "give it one"}
	o := b.build(map[string]string{"index.html": "x"}, func(c *previewd.Claim) { c.Refused = refused })
	require.Equal(t, previewd.Outcome{Kind: previewd.OutcomeFailed, Failure: refused}, o)
	require.Contains(t, b.log.String(), "failed: secrets_unreadable: no key")
	require.Empty(t, b.steps)
}

// shownLines are the lines of a log without their times.
func shownLines(l *buildLog) []string {
	var lines []string
	for line := range strings.Lines(l.pending.String()) {
		lines = append(lines, logLine.ReplaceAllString(strings.TrimSuffix(line, "\n"), ""))
	}
	return lines
}

// flat returns text without line breaks.
func flat(text string) string { return strings.NewReplacer("\n", "", "\r", "").Replace(text) }

// writeIn writes text in pieces.
func writeIn(t *testing.T, o *commandOutput, text string, r *rand.Rand) {
	t.Helper()
	for rest := text; rest != ""; {
		n := 1 + r.IntN(min(len(rest), 1+r.IntN(40)))
		_, err := o.Write([]byte(rest[:n]))
		require.NoError(t, err)
		rest = rest[n:]
	}
	o.flush()
}

// However a command writes a secret, in which pieces and with what in between, no
// part of it that says anything is stored.
func TestCommandOutputHidesSecrets(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	claim := &previewd.Claim{Vars: []previewd.ClaimVar{secretVar("TOKEN", testToken), secretVar("KEY", testLines)}}
	hidden := hiddenValues(claim)
	between := []string{"", "", "", "\n", "\r\n", "\x1b[0m", "\x1b[38;5;4m", "\x1b]8;;http://x\x07", "\x00", "\u200f"}
	for range 300 {
		var text strings.Builder
		for range 1 + r.IntN(4) {
			switch r.IntN(4) {
			case 0:
				text.WriteString(strings.Repeat("x", maxLine-r.IntN(60)))
			case 1:
				text.WriteString("building\n")
			default:
				for i, letter := range testToken {
					if i > 0 && r.IntN(8) == 0 {
						text.WriteString(between[r.IntN(len(between))])
					}
					text.WriteRune(letter)
				}
				text.WriteString(" ok\n")
			}
		}
		log := &buildLog{began: time.Now(), hidden: hidden}
		o := newCommandOutput(log, func(error) {})
		writeIn(t, o, text.String(), r)
		requireNoTraces(t, log.pending.String())
		requireNoTraces(t, o.tail.String())
		require.Equal(t, strings.Count(text.String(), " ok"), strings.Count(flat(o.tail.String()), "*** ok"))
	}
}

// Without secrets output is as it was written.
func TestCommandOutputIsWhole(t *testing.T) {
	t.Parallel()
	log := &buildLog{began: time.Now()}
	o := newCommandOutput(log, func(error) {})
	writeIn(t, o, "one\n\n\x1b[31mtwo\x1b[0m\r\nprogress 1\rprogress 2\rdone\r\nünd drei", rand.New(rand.NewPCG(5, 6)))
	require.Equal(t, []string{"one", "two", "done", "ünd drei"}, shownLines(log))
	require.Equal(t, "one\n\ntwo\r\nprogress 1\rprogress 2\rdone\r\nünd drei", o.tail.String())
}

// A line is cut between letters and escapes.
func TestWholeCutsNoLetterAndNoEscape(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"abc": "abc", "abü": "abü", "ab\xc3": "ab", "ab\xf0\x9f": "ab", "ab\xf0\x9f\xa6\x84": "ab\xf0\x9f\xa6\x84",
		"ab\x1b[3": "ab", "ab\x1b[31mc": "ab", "\x1b[31m": "\x1b[31m", "\xc3": "\xc3", "a\xff": "a\xff", "\xa9\xa9\xa9\xa9": "\xa9\xa9\xa9\xa9",
	} {
		require.Equal(t, want, text[:whole([]byte(text))], "%q", text)
	}
}

// Whatever is written around a secret, and in whatever pieces, it is not stored.
func FuzzCommandOutput(f *testing.F) {
	f.Add("before ", "\x1b[0m", " after\n", uint64(1))
	f.Add("hunter2", "\n", "hunter2-hunter2", uint64(2))
	f.Add("\x1b]8;;", "\x07\r", "\x1b", uint64(3))
	f.Add(strings.Repeat("é", maxLine/2-3), "\r\n", "\xff", uint64(4))
	const value = "hunter2-hünter2"
	f.Fuzz(func(t *testing.T, before, between, after string, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		log := &buildLog{began: time.Now(), hidden: hiddenValues(&previewd.Claim{Vars: []previewd.ClaimVar{secretVar("TOKEN", value)}})}
		o := newCommandOutput(log, func(error) {})
		writeIn(t, o, before+value+after+value[:7]+between+value[7:], r)
		for _, line := range shownLines(log) {
			require.NotContains(t, line, value)
		}
		require.NotContains(t, flat(o.tail.String()), value)
	})
}

func BenchmarkCommandOutput(b *testing.B) {
	chunk := bytes.Repeat([]byte("dist/assets/\x1b[36mindex-DiwrgTda.js\x1b[39m   143.36 kB │ gzip: 46.01 kB\n"), 500)
	for _, n := range []int{0, 1, 20} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var vars []previewd.ClaimVar
			for i := range n {
				vars = append(vars, secretVar(fmt.Sprintf("V%d", i), fmt.Sprintf("sk_live_%032d", i*7919)))
			}
			log := &buildLog{began: time.Now(), hidden: hiddenValues(&previewd.Claim{Vars: vars})}
			o := newCommandOutput(log, func(error) {})
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				o.total, log.kept = 0, 0
				log.pending.Reset()
				_, _ = o.Write(chunk)
			}
		})
	}
}

// Our own words may have been a stranger's.
func TestLogHidesSecrets(t *testing.T) {
	t.Parallel()
	l := &buildLog{began: time.Now(), hidden: hiddenValues(&previewd.Claim{Vars: []previewd.ClaimVar{secretVar("TOKEN", testToken)}})}
	l.printf("published %s\nto %s", testToken, url.PathEscape(testToken))
	l.printf("%s", strings.Repeat("x", maxLine-7)+testToken)
	require.Equal(t, []string{"published ***", "to ***"}, shownLines(l)[:2])
	requireNoTraces(t, l.pending.String())
	require.NotContains(t, l.pending.String(), testToken[:5], "half of it is left at the end of a line")
}

// A failure that the child has found is freed of secrets before it is cut to size.
func TestFailuresHideSecrets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.build(map[string]string{
		"index.html": `<script type="module" src="/main.ts"></script>`, "main.ts": `import "./hunter2-hunter2.js"`,
	}, given(secretVar("TOKEN", "hunter2-hunter2")))
	require.Equal(t, previewd.FailBundle, o.Failure.Code)
	text := fmt.Sprint(*o.Failure)
	require.Contains(t, text, "***")
	require.NotContains(t, text, "hunter2-")
	require.NotContains(t, b.log.String(), "hunter2-")

	line, err := json.Marshal(childMessage{Result: &childResult{Failure: &previewd.Failure{
		Message: strings.Repeat("x", 990) + testToken, Excerpt: strings.Repeat("x", 390) + testToken, File: strings.Repeat("x", 1014) + testToken,
	}}})
	require.NoError(t, err)
	j := &job{log: &buildLog{hidden: hiddenValues(&previewd.Claim{Vars: []previewd.ClaimVar{secretVar("TOKEN", testToken)}})}}
	require.NoError(t, j.receive(t.Context(), bytes.NewReader(line)))
	require.NotContains(t, fmt.Sprint(*j.result.Failure), "hünter")
}

package runner

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/redact"
)

var logLine = regexp.MustCompile(`^\[ *\d+\.\d\ds\] `)

// Whatever a build prints, each line of its log is one of ours and drives no
// terminal.
func FuzzLog(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "plain", "\x1b[31mred\x1b[0m", "\x1b[?25l", "\x1b]8;;http://evil\x1b\\x\x1b]8;;\x07", "\u009b31m", "over\rwrite", "a\bb", "\u202egpj.exe", "\u200f\u061c", "a\u2028b", "a\x00b", "\xff\xfe", "a\nb\r\nc\n", "a\tb", "\u0085x", "%s%n%!d(x=1)", "a\r", "\r\n\r\n",
		strings.Repeat("x", maxLine+1), strings.Repeat("\u00e9", maxLine), strings.Repeat("\xff", maxLine), strings.Repeat("y\n", 1000),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, hidden := range []*redact.Set{nil, redact.New([]string{"over and over"})} {
			checkLog(t, &buildLog{began: time.Now(), hidden: hidden}, text)
		}
	})
}

func checkLog(t *testing.T, l *buildLog, text string) {
	t.Helper()
	l.printf("%s", text)
	out := l.pending.String()
	require.True(t, utf8.ValidString(out))
	require.Len(t, strings.SplitAfter(out, "\n"), strings.Count(text, "\n")+min(1, len(text)-strings.LastIndex(text, "\n")-1)+1)
	for line := range strings.Lines(out) {
		require.Regexp(t, logLine, line)
		require.Less(t, len(line), maxLine+80)
		for _, r := range strings.TrimSuffix(line, "\n") {
			require.True(t, r == '\t' || !unicode.IsControl(r), "%U", r)
			require.False(t, unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029', "%U", r)
		}
	}
}

// A child's result is in bounds, whatever the child has read.
func FuzzChildResult(f *testing.F) {
	f.Add("bundle", "because\x1b[31m", "bundle_failed", "message\n\x00", "file", "1 | x\n2 | \u202ey\n3 |\n4 |\n5 |\n6")
	f.Add("\xff", strings.Repeat("\u00e9", 400), "x", strings.Repeat("\xff", 2000), strings.Repeat("/", 2000), strings.Repeat("\n", 50))
	f.Fuzz(func(t *testing.T, kind, reason, code, message, file, excerpt string) {
		r := childResult{Runner: kind, Isolation: kind, Reason: reason, Failure: &previewd.Failure{
			Class: previewd.FailureClass(kind), Code: code, Step: kind, Message: message, Hint: message, File: file, Excerpt: excerpt,
		}}.checked()
		require.Contains(t, []string{"", runnerStatic, runnerBundle}, r.Runner)
		require.Equal(t, previewd.FailureUser, r.Failure.Class)
		require.Contains(t, childCodes, r.Failure.Code)
		for _, text := range []string{r.Reason, r.Failure.Message, r.Failure.Hint, r.Failure.File, r.Failure.Excerpt} {
			require.True(t, utf8.ValidString(text), "%q", text)
			require.Less(t, len(text), 2000)
			require.Equal(t, text, strings.Map(previewd.Harmless, text))
		}
		require.LessOrEqual(t, strings.Count(r.Failure.Excerpt, "\n"), 3)
	})
}

// A page in which nothing is replaced keeps its bytes; what it loads is found
// without a panic.
func FuzzHTML(f *testing.F) {
	for _, seed := range []string{
		"", "<!doctype html><html><head><title>x</title></head><body><h1>hi</h1></body></html>", `<script type="module" src="/a.js"></script>`, `<script type=module>import "./x.js"</script>`, `<script type="importmap">{}</script><script type="module" src=a.js>`, "<script/>x</script>", "<style>a{background:url(x.png)}</style>", "<script>",
		"<style></style><script></script>", "<!-- <script> -->", "<![CDATA[x]]>", "<plaintext><b>", "<textarea></textarea", "<img srcset='a.png 1x, b.png 2x'>", "<a\x00b>\r\n\r<br/>", "<", "</", "<!", "<?xml?>", "&amp;&#0;&#x110000;", "<svg><style><b>", "<title><script type=module></title>", "<noscript><script type=module src=x></script>", "\xff<\xfe>", strings.Repeat("<div>", 500), "<script><!--<script></script>-->", "<script type=\"module\" src=\"%zz\">",
	} {
		f.Add([]byte(seed), "a/../../b?x#y")
	}
	f.Fuzz(func(t *testing.T, source []byte, ref string) {
		visited := 0
		out := walkHTML(source, func(token *htmlToken) {
			visited++
			for attr := range references(token) {
				_, _ = localPath("dir/page.html", token.attr(attr))
			}
		})
		require.Equal(t, string(source), string(out))
		require.LessOrEqual(t, visited, len(source))
		for _, script := range moduleScripts(source) {
			require.Positive(t, script.line)
		}
		if local, ok := localPath("dir/page.html", ref); ok {
			require.Equal(t, local, filepath.Clean(local))
		}
		_, _ = readTree(fstest.MapFS{"index.html": {Data: source}, "package.json": {Data: source}, "previewd.json": {Data: source}, "_redirects": {Data: source}})
	})
}

// A tsconfig.json of a stranger leads nowhere and ends.
func FuzzTSConfig(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", "[]", `{"extends":"./tsconfig.json"}`, `{"extends":["./base","./base","../x","/etc/passwd"]}`, `{"extends":"./base.json","compilerOptions":{"baseUrl":"..","paths":{"@/*":["./src/*"],"*":["x","*/*"],"exact":[]}}}`, `{"compilerOptions":{"paths":{"a*b*c":["*"]}}}`, `{"compilerOptions":{"paths":null,"jsx":"react"}}`,
		`{"references":[{"path":"./app"},{"path":".."},{"path":"tsconfig.json"}]}`, "// c\n{/* d */\"compilerOptions\":{\"target\":\"es5\",},}", `{"extends":{"a":1}}`, `{"compilerOptions":[]}`, "\xef\xbb\xbf{}", strings.Repeat("[", 20000), `{"extends":"\u0000"}`,
	} {
		f.Add([]byte(seed), []byte(`{"extends":"./tsconfig"}`), "@/x")
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, config, base []byte, spec string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "tsconfig.json"), config, 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "base.json"), base, 0o644))
		root, err := os.OpenRoot(dir)
		require.NoError(t, err)
		defer root.Close()
		_, aliases, failure := readTSConfig(root)
		if failure != nil {
			require.Equal(t, previewd.FailureUser, failure.Class)
			require.Contains(t, childCodes, failure.Code)
			return
		}
		for _, candidate := range expandAliases(aliases, spec) {
			require.Equal(t, candidate, filepath.Clean(candidate))
		}
	})
}

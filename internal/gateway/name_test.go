package gateway_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/gateway"
)

func TestSuggestedNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ prompt, template, want string }{
		{"", "", "Project"},
		{"", "landing", "Landing"},
		{" \t\n", "app", "App"},
		{"a page about tea", "", "A page about tea"},
		{"  «Build»   a (tide) clock!  ", "", "Build a tide clock"},
		{"--- ... !!!", "site", "Site"},
		{"one two three four five six seven eight nine ten", "", "One two three four five six seven eight"},
		{"exactly-forty-characters-long-word-is-ok another", "", "Exactly-forty-characters-long-word-is-ok"},
		{strings.Repeat("x", 100), "", "X" + strings.Repeat("x", 39)},
		{strings.Repeat("ü", 100), "", "Ü" + strings.Repeat("ü", 39)},
		{"ünïcode cafe\u0301", "", "Ünïcode café"},
		{"\u202eevil\u0000 \u001b[31mred", "", "Evil 31mred"},
		{"a\xff\xfeb c", "", "Ab c"},
		{"2048 game", "", "2048 game"},
		{"日本語 の ページ", "", "日本語 の ページ"},
		{"ßeta", "", "ßeta"},
		{"🦄 unicorn", "", "Unicorn"},
	} {
		require.Equal(t, c.want, gateway.SuggestName(c.prompt, c.template), "%q", c.prompt)
	}
}

func TestNamesAreChecked(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Tea": "Tea", "  Tea   House ": "Tea House", "a\tb\nc": "a b c", "cafe\u0301": "café", "🦄": "🦄", strings.Repeat("ü", 80): strings.Repeat("ü", 80),
		"": "", " \u00a0 ": "", strings.Repeat("x", 81): "", "a\x00b": "", "a\x1bb": "", "a\u202eb": "", "a\u2066b": "", "a\x7fb": "", "\xff": "", "a\u0085b": "a b",
	} {
		got, err := gateway.CheckName(name)
		if want == "" {
			require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err), "%q", name)
			continue
		}
		require.NoError(t, err, "%q", name)
		require.Equal(t, want, got)
	}
	for _, same := range [][2]string{{"Tea House", "TEA house"}, {"STRASSE", "straße"}, {"ﬁne", "FINE"}, {"Å", "a\u030a"}, {"①", "1"}} {
		require.Equal(t, gateway.FoldName(same[0]), gateway.FoldName(same[1]), same)
	}
	require.NotEqual(t, gateway.FoldName("tea"), gateway.FoldName("te"))
}

// Whatever the prompt, the name that is suggested is one that may be given.
func FuzzSuggestedName(f *testing.F) {
	for _, prompt := range []string{"", "a page about tea", "\u202e\x00", strings.Repeat("ü", 50), "ǆ x", "a\u0301", "\u0345 x", "ᾳ", "1\u200d2", "\u1e9e"} {
		f.Add(prompt)
	}
	f.Fuzz(func(t *testing.T, prompt string) {
		name := gateway.SuggestName(prompt, "")
		checked, err := gateway.CheckName(name)
		if err != nil {
			t.Fatalf("%q of %q: %v", name, prompt, err)
		}
		again, err := gateway.CheckName(checked)
		if err != nil || again != checked {
			t.Fatalf("%q is checked to %q and then to %q, %v", name, checked, again, err)
		}
		if utf8.RuneCountInString(name) > 41 {
			t.Fatalf("%q is long", name)
		}
	})
}

// What no template can be called is refused before it names a project.
func TestTemplateNamesAreBounded(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		for _, template := range []string{"a\x00b", strings.Repeat("a", 101), "\x1b[31m", "no-such-template"} {
			for _, ask := range []gateway.CreateProject{{Template: template}, {Metadata: map[string]any{"template": template}}} {
				_, err := f.CreateProject(t.Context(), as(ann, previewd.NewRequestID()), ask)
				require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err), "%q", template)
			}
		}
	})
}

package redact

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const secret = "hunter2/ünter+weg?<42>"

func TestFormsOfAValueAreHidden(t *testing.T) {
	t.Parallel()
	set := New([]string{secret})
	quoted, err := json.Marshal(secret)
	require.NoError(t, err)
	for name, form := range map[string]string{
		"Raw":        secret,
		"Hex":        hex.EncodeToString([]byte(secret)),
		"UpperHex":   strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"Query":      url.QueryEscape(secret),
		"Path":       url.PathEscape(secret),
		"LowerPath":  "hunter2%2f%c3%bcnter+weg%3f%3c42%3e",
		"JSON":       strings.Trim(string(quoted), `"`),
		"JavaScript": "hunter2%2F%C3%BCnter%2Bweg%3F%3C42%3E", // encodeURIComponent
		"EncodeURI":  "hunter2/%C3%BCnter+weg?%3C42%3E",
	} {
		require.Equal(t, "a *** z", set.Text("a "+form+" z"), name)
	}
	require.Equal(t, "say ***\n, or not", set.Text("say hunter2/ünt\ner+weg?<42>, or not"), "a wrapped value")
	require.Equal(t, "hunter2/ünter+weg?<42", set.Text("hunter2/ünter+weg?<42"), "nearly the value")
	require.Equal(t, "******", set.Text(secret)+set.Text(secret))
}

func TestBase64IsHiddenWhereverTheValueStands(t *testing.T) {
	t.Parallel()
	for length := MinLength; length < MinLength+6; length++ {
		value := strings.Repeat("s3crét~?", 2)[:length]
		value = strings.ToValidUTF8(value, "x")
		set := New([]string{value})
		for before := range 7 {
			for after := range 4 {
				text := strings.Repeat("\xfb", before) + value + strings.Repeat("\xfb", after)
				for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
					encoded := encoding.EncodeToString([]byte(text))
					shown := set.Text(encoded)
					require.Contains(t, shown, Mark, "%d before, %d after: %s", before, after, encoded)
					// What is left are the letters before the value and after it, and two that it shares with them.
					left := strings.TrimRight(strings.Replace(shown, Mark, "", 1), "=")
					require.LessOrEqual(t, len(left), (8*before+5)/6+(8*after+5)/6+2, "%s of %s", shown, encoded)
				}
			}
		}
	}
}

func TestLinesOfAValue(t *testing.T) {
	t.Parallel()
	set := New([]string{"-----BEGIN KEY-----\nMIIEvQIBADANBg\n  kqhkiG9w0B\nshort\n-----END KEY-----\n"})
	require.Equal(t, "***\n\n  ***\n", set.Text("-----BEGIN KEY-----\nMIIEvQIBADANBg\n  kqhkiG9w0B\n"))
	require.Equal(t, "x *** y", set.Text("x kqhkiG9w0B y"))
	require.Equal(t, "short", set.Text("short"), "occurs by chance")
}

func TestNothingToHide(t *testing.T) {
	t.Parallel()
	for _, set := range []*Set{New(nil), New([]string{"", "short"})} {
		require.Nil(t, set)
		require.Equal(t, "short", set.Text("short"))
		var got string
		stream := set.Stream(func(p []byte) { got += string(p) })
		stream.Write("short")
		require.Equal(t, "short", got, "at once")
		stream.Flush()
		require.Equal(t, "short", got)
	}
}

// What cannot be the beginning of a value is passed on at once.
func TestStreamKeepsBackWhatItMust(t *testing.T) {
	t.Parallel()
	var got string
	stream := New([]string{"password-1"}).Stream(func(p []byte) { got += string(p) })
	for _, step := range []struct{ write, passed string }{
		{"building\n", "building\n"},
		{"a pas", "building\na "},
		{"t\n", "building\na past\n"},
		{"password", "building\na past\n"},
		{"-1", "building\na past\n"}, // longer forms may follow
		{"!", "building\na past\n***!"},
		{"pass", "building\na past\n***!"},
	} {
		stream.Write(step.write)
		require.Equal(t, step.passed, got)
	}
	stream.Flush()
	require.Equal(t, "building\na past\n***!pass", got)
}

// naive hides values by looking for each form at each place.
func naive(values []string, text string) string {
	letters, places := []byte{}, []int{}
	breaks := 0
	for i, letter := range []byte(text) {
		if !isBreak(letter) {
			letters, places, breaks = append(letters, letter), append(places, i), 0
		} else if breaks++; breaks == maxBreaks {
			letters, places = append(letters, 0), append(places, i) // it is in no value
		}
	}
	hidden := make([]bool, len(text))
	for _, value := range values {
		for _, form := range forms(value) {
			form = strings.Map(significant, form)
			for i := 0; len(form) >= MinLength && i+len(form) <= len(letters); i++ {
				if string(letters[i:i+len(form)]) == form {
					for k := range len(form) {
						hidden[places[i+k]] = true
					}
				}
			}
		}
	}
	var b strings.Builder
	hiding := false
	for i, letter := range []byte(text) {
		switch {
		case isBreak(letter):
			b.WriteByte(letter)
		case !hidden[i]:
			b.WriteByte(letter)
			hiding = false
		case !hiding:
			b.WriteString(Mark)
			hiding = true
		}
	}
	return b.String()
}

// checkStream compares a stream that is fed in pieces with naive.
func checkStream(t *testing.T, values []string, text string, r *rand.Rand) {
	t.Helper()
	set := New(values)
	want := naive(values, text)
	require.Equal(t, want, set.Text(text))
	var got strings.Builder
	stream := set.Stream(func(p []byte) { got.Write(p) })
	for rest := text; rest != ""; {
		n := 1 + r.IntN(min(len(rest), 1+r.IntN(20)))
		stream.Write(rest[:n])
		rest = rest[n:]
	}
	stream.Flush()
	require.Equal(t, want, got.String(), "%q in %q", values, text)
}

// Values over few letters overlap each other and themselves all the time.
func TestStreamIsAsNaiveSearch(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	word := func(n int, letters string) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		return string(b)
	}
	for range 1000 {
		var values []string
		for range 1 + r.IntN(4) {
			values = append(values, word(8+r.IntN(6), "ab"))
		}
		var text strings.Builder
		for range r.IntN(12) {
			switch value := values[r.IntN(len(values))]; r.IntN(4) {
			case 0:
				text.WriteString(value)
			case 1:
				text.WriteString(value[:r.IntN(len(value))] + "\n")
			case 2:
				list := forms(value)
				text.WriteString(list[r.IntN(len(list))])
			default:
				text.WriteString(word(r.IntN(9), "ab\n%6"))
			}
		}
		checkStream(t, values, text.String(), r)
	}
}

func FuzzStream(f *testing.F) {
	f.Add("hunter2hunter2", "ünter\nlines of it", "the hunter2\nhunter2 hunter2hunter2hunter2", uint64(1))
	f.Add("aaaaaaaa", "aaaaaaaaab", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabaaaaaaa\naaa", uint64(2))
	f.Add("a b c d e", "%20%20%20", "a+b+c+d+e a%20b%20c%20d%20e YSBiIGMgZCBl", uint64(3))
	f.Fuzz(func(t *testing.T, one, two, text string, seed uint64) {
		if len(one)+len(two) > 200 || len(text) > 2000 {
			t.Skip("naive search is slow")
		}
		values := []string{strings.ToValidUTF8(one, ""), strings.ToValidUTF8(two, "")}
		checkStream(t, values, strings.ToValidUTF8(text, ""), rand.New(rand.NewPCG(seed, 0)))
	})
}

// What is held back is no longer than the longest form, however long the text.
func TestStreamHoldsLittle(t *testing.T) {
	t.Parallel()
	value := strings.Repeat("ab", 500)
	set := New([]string{value})
	longest := slices.MaxFunc(forms(value), func(a, b string) int { return len(a) - len(b) })
	stream := set.Stream(func([]byte) {})
	for range 1000 {
		stream.Write(value[:999])
		require.LessOrEqual(t, len(stream.held), len(longest))
		require.LessOrEqual(t, len(stream.spans), len(longest))
	}
}

// Many line breaks end what may be a value; it is still found where they are fewer.
func TestStreamGivesUpAtManyBreaks(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	stream := New([]string{"password-1"}).Stream(func(p []byte) { got.Write(p) })
	stream.Write("pass")
	for range 1000 {
		stream.Write("\n")
		require.Less(t, len(stream.held), len("pass")+maxBreaks)
	}
	require.Equal(t, "pass"+strings.Repeat("\n", 1000), got.String())
	stream.Write("word-1 password-1")
	stream.Flush()
	require.Equal(t, "word-1 ***", strings.TrimLeft(got.String(), "pas\n"))
	few := strings.Repeat("\n", maxBreaks-1)
	set := New([]string{"password-1"})
	require.Equal(t, "***"+few+few, set.Text("pass"+few+"wor"+few+"d-1"))
	checkStream(t, []string{"password-1"}, "pass"+few+"word-1 pass\n"+few+"word-1", rand.New(rand.NewPCG(3, 4)))
}

// What as many secrets as there may be take is bounded; long ones are hidden as they
// are.
func TestSetIsBounded(t *testing.T) {
	t.Parallel()
	value := func(i, length int) string {
		return strings.Repeat(fmt.Sprintf("\x7fü<%d> ", i), length)[:length]
	}
	for length, n := range map[int]int{8 << 10: 8, 2 << 10: 32, 200: 320} {
		var values []string
		for i := range n {
			values = append(values, strings.ToValidUTF8(value(i, length), "x"))
		}
		set := New(append(values, values...))
		require.Less(t, len(set.nodes), 600_000, length)
		require.Equal(t, "a ***\n", set.Text("a "+strings.Map(significant, values[n-1])+"\n"), length)
	}
	short, long := "hunter2/hunter2", strings.Repeat("a long line/", 300)
	set := New([]string{long, short})
	require.Equal(t, "*** ***", set.Text(base64.StdEncoding.EncodeToString([]byte(short))+" "+long))
	require.NotContains(t, set.Text(base64.StdEncoding.EncodeToString([]byte(long))), Mark)
}

func BenchmarkText(b *testing.B) {
	var values []string
	for i := range 20 {
		values = append(values, fmt.Sprintf("sk_live_%032d", i*7919))
	}
	set := New(values)
	text := strings.Repeat("dist/assets/index-DiwrgTda.js   143.36 kB │ gzip: 46.01 kB\n", 1000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		set.Text(text)
	}
}

func BenchmarkNew(b *testing.B) {
	value := strings.Repeat("\x7fü<", 16<<10)
	for b.Loop() {
		New([]string{value})
	}
}

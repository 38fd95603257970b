package httpx

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

// A key is taken as a structured-field string or bare, to the same effect, and
// nothing else is.
func FuzzKey(f *testing.F) {
	const good = "01930f4e-5a7b-7c3d-8e9f-0a1b2c3d4e5f"
	for _, seed := range []string{
		"", good, `"` + good + `"`, `"` + good, good + `"`, `""`, `"`, `"` + good + `";a=1`, good + ", " + good, strings.Repeat("k", 15), strings.Repeat("k", 16), strings.Repeat("k", 128), strings.Repeat("k", 129),
		`"a\"b-0123456789abcd"`, good + "\n", good + "\x00", "\u00e9" + good, ":Z29vZGtleWdvb2RrZXk=:", " " + good, `""` + good + `""`, "?1",
	} {
		f.Add(seed, "", false)
		f.Add(seed, seed, true)
	}
	f.Fuzz(func(t *testing.T, line, second string, two bool) {
		lines := []string{line}
		if two {
			lines = append(lines, second)
		}
		key, err := ParseKey(lines)
		if err != nil {
			require.Equal(t, previewd.CodeKeyInvalid, previewd.ErrorCode(err))
			return
		}
		require.False(t, two, "one line")
		require.True(t, line == key || line == `"`+key+`"`, "%q is read as %q", line, key)
		require.True(t, len(key) >= 16 && len(key) <= 128)
		require.Empty(t, strings.Trim(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"))
		for _, same := range []string{key, `"` + key + `"`} {
			again, err := ParseKey([]string{same})
			require.NoError(t, err)
			require.Equal(t, key, again)
		}
	})
}

// A cursor that is taken says the same when it is given back; a wait is bounded.
func FuzzEventCursor(f *testing.F) {
	for _, seed := range []string{"", "0", "1", "1-7", "0-1", "1-", "-", "1-2-3", "-0", "-1", "+1", "01", "1.0", "1e3", "0x1", "1_0", "9223372036854775807", "9223372036854775808", "x", "\x00", " 1", "30s", "1h", "-1s", "NaN", "1e9h", "0.5ns", "9999999999999h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if cursor, err := previewd.ParseCursor(text); err != nil {
			require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err))
			require.Zero(t, cursor)
		} else {
			require.True(t, cursor.Position >= 0 && cursor.Generation >= 0, cursor)
			again, err := previewd.ParseCursor(cursor.String())
			require.NoError(t, err)
			require.Equal(t, cursor, again)
		}
		if wait, err := ParseWait(text); err != nil {
			require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err))
		} else {
			require.True(t, wait >= 0 && wait <= 60*time.Second, wait)
		}
	})
}

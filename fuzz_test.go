package previewd_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

// What is read as files can be written, and is read again as the same.
func FuzzFiles(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `{"a":"b"}`, `{"a":{"content":"eA==","encoding":"base64"}}`, `{"a":{"content":"x","encoding":"utf-8"}}`, `{"a.json":{"x":[1,2,{"y":null}]}}`, `{"a.json":1e400}`, `{"a":null}`,
		`{"a":{"content":"x","Content":"y"}}`, `{"a":{"content":null}}`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{"a":"1","a":"2"}`, `{"":""}`, `{"a.json": "text" }`, `{"a.json":  {"content":"x","title":1} }`, "{\"\xff\":\"x\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var files previewd.Files
		if err := files.UnmarshalJSON(raw); err != nil {
			require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err))
			return
		}
		encoded, err := json.Marshal(files)
		require.NoError(t, err)
		var again previewd.Files
		require.NoError(t, again.UnmarshalJSON(encoded))
		require.Equal(t, files, again)
		require.Equal(t, files.Size(), again.Size())
	})
}

// A manifest's bytes are canonical: what they are read as has the same bytes.
func FuzzManifest(f *testing.F) {
	for _, seed := range []string{
		`{"format":1,"files":[]}`, `{"format":1,"files":null}`, `{"format":1,"fallback":"200.html","files":[{"path":"b","digest":"x","size":1},{"path":"a","digest":"y","size":-1,"gzip":{"digest":"z","size":2},"br":null,"immutable":true}]}`,
		`{"files":[{"path":"a"},{"path":"a"}]}`, `{"files":[{"path":"\ud800"}]}`, `{"format":9223372036854775808}`, `null`, `{"FILES":[{"PATH":"a"}]}`, "{\"files\":[{\"path\":\"\xff<&>\"}]}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m previewd.Manifest
		if json.Unmarshal(raw, &m) != nil {
			return
		}
		encoded, err := m.Encode()
		require.NoError(t, err)
		var again previewd.Manifest
		require.NoError(t, json.Unmarshal(encoded, &again))
		encodedAgain, err := again.Encode()
		require.NoError(t, err)
		require.True(t, bytes.Equal(encoded, encodedAgain), "%s\n%s", encoded, encodedAgain)
		require.Equal(t, m.Size(), again.Size())
		require.Len(t, again.Blobs(), len(m.Blobs()))
	})
}

// hostileText are texts that mean to drive a terminal or to lie in a log.
var hostileText = []string{
	"", "plain", "\x1b[31mred\x1b[0m", "\x1b[?25l", "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "\x1b]0;title\x07", "\x9b31m", "\u009b31m", "over\rwrite", "a\bb", "a\x7fb", "\u202egpj.exe", "\u2066x\u2069", "\u200e\u200f\u061c",
	"a\u2028b\u2029c", "a\x00b", "\xff\xfe", "\xe2\x80", "a\nb\r\nc\n", "a\tb", "\u0085", "\ufeff", "[  0.10s] published 1 files",
}

// What is left of a text drives no terminal, and is all that was harmless.
func FuzzHarmless(f *testing.F) {
	for _, seed := range hostileText {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		left := strings.Map(previewd.Harmless, text)
		require.True(t, utf8.ValidString(left))
		for _, r := range left {
			require.True(t, r == '\n' || r == '\t' || !unicode.IsControl(r), "%U", r)
			require.False(t, unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029', "%U", r)
		}
		require.Equal(t, left, strings.Map(previewd.Harmless, left))
	})
}

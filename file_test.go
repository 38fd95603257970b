package previewd_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

func TestFilesReadsEveryForm(t *testing.T) {
	t.Parallel()
	var files previewd.Files
	require.NoError(t, json.Unmarshal([]byte(`{
		"a.txt": "text",
		"b.bin": {"content": "AP8=", "encoding": "base64"},
		"c.txt": {"content": "ü", "encoding": "utf-8"},
		"d.txt": {"content": "plain"},
		"e.json": {"name": "x", "n": [1, 2]},
		"f.json": 12,
		"g.json": {"content": "of a file object"},
		"h.json": {"content": "x", "title": "more members: JSON"},
		"i.json": null
	}`), &files))
	require.Equal(t, previewd.Files{
		"a.txt": []byte("text"), "b.bin": {0, 0xff}, "c.txt": []byte("ü"), "d.txt": []byte("plain"),
		"e.json": []byte(`{"name": "x", "n": [1, 2]}`), "f.json": []byte("12"), "g.json": []byte("of a file object"),
		"h.json": []byte(`{"content": "x", "title": "more members: JSON"}`), "i.json": []byte("null"),
	}, files)
}

func TestFilesNamesThePathOfABadValue(t *testing.T) {
	t.Parallel()
	for _, value := range []string{`12`, `null`, `[]`, `{"a":1}`, `{"content":"x","encoding":"latin1"}`, `{"content":"!","encoding":"base64"}`} {
		var files previewd.Files
		err := files.UnmarshalJSON([]byte(`{"src/bad.ts": ` + value + `}`))
		require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err), value)
		require.ErrorContains(t, err, `src/bad.ts`)
	}
}

func TestFilesSurviveARoundTrip(t *testing.T) {
	t.Parallel()
	in := previewd.Files{"a.txt": []byte("text"), "b.bin": {0xff, 0}, "empty": {}, "x.json": []byte(`{"a":1}`)}
	raw, err := json.Marshal(in)
	require.NoError(t, err)
	var out previewd.Files
	require.NoError(t, json.Unmarshal(raw, &out))
	require.Equal(t, in, out)
}

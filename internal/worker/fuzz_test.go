package worker

import (
	"archive/tar"
	"bytes"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/previewd/previewd"
)

// Two names that a tree may hold are, on any file system that may meet it, two
// files in the tree's folder.
func FuzzPaths(f *testing.F) {
	for _, seed := range []string{
		"a.txt", "index.html", "src/app/[slug]/page.tsx", ".well-known/x", "../x", "a/../../x", "/etc/passwd", `a\..\b`, "a\x00b", "con", "a.", "a ", "C:/x", "e\u0301", "\u00e9", "\u00c9", "stra\u00dfe", "STRASSE", "\u212a", "k", "K", "\u0130", "i\u0307",
		"\u1fb3", "\u03b1\u03b9", "\u0391\u0345", "\u0345", "\u03b9", "\ufb01", "fi", "a/b", "A/c", "a", "\U0001d15e", "\u1e9e", "\u03a3", "\u03c2", "\u0390", "\u1fd3", "..", ".", "", "...", "~", "-rf", strings.Repeat("a/", 31) + "x", strings.Repeat("n", 255), "PaxHeader/x", "a=b\u2028", "\u202ex", "\ufeff",
		"\u1f80", "\u1f00\u03b9", "\u0149", "\u02bcn", "\u01f0", "J\u030c", "\u1e96", "\ufb13", "\u0574\u0576", "\u13a0", "\uab70",
	} {
		f.Add(seed, "A.TXT")
		f.Add(seed, strings.ToUpper(seed))
		f.Add(seed, cases.Fold().String(seed))
		f.Add(seed, seed+"/x")
	}
	outer := f.TempDir()
	f.Fuzz(func(t *testing.T, one, two string) {
		files := previewd.Files{one: []byte("1"), two: []byte("22")}
		if err := checkFiles(files, DefaultLimits); err != nil {
			require.Equal(t, previewd.CodeInvalidPath, previewd.ErrorCode(err))
			return
		}
		if one != two {
			require.NotEqual(t, caseless(one), caseless(two), "one file where case does not count: %+q %+q", one, two)
			require.False(t, strings.HasPrefix(caseless(one), caseless(two)+"/") || strings.HasPrefix(caseless(two), caseless(one)+"/"))
		}
		for name := range files {
			require.True(t, filepath.IsLocal(name) && fs.ValidPath(name), "%q", name)
			require.Equal(t, name, path.Clean(name))
		}
		require.Equal(t, files, writeAndRead(t, outer, files))
	})
}

// caseless is what names are equal by where case and normal form do not count
// (Unicode 3.13, D145).
func caseless(name string) string {
	return norm.NFD.String(cases.Fold().String(norm.NFD.String(name)))
}

// writeAndRead packs a tree, lays it out as a runner does, and reads what is
// there. Nothing may be beside it.
func writeAndRead(t *testing.T, outer string, files previewd.Files) previewd.Files {
	t.Helper()
	pack, err := packTree(files)
	require.NoError(t, err)
	dir := filepath.Join(outer, "tree")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	archive := tar.NewReader(bytes.NewReader(pack))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		content, err := io.ReadAll(archive)
		require.NoError(t, err)
		require.NoError(t, root.MkdirAll(path.Dir(header.Name), 0o755))
		require.NoError(t, root.WriteFile(header.Name, content, 0o644))
	}
	there := previewd.Files{}
	require.NoError(t, fs.WalkDir(os.DirFS(outer), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		inner, ok := strings.CutPrefix(name, "tree/")
		require.True(t, ok, "%q is beside the tree", name)
		there[inner], err = os.ReadFile(filepath.Join(outer, name))
		return err
	}))
	return there
}

// Metadata that says the same in another order and with other spaces is the
// same request.
func FuzzMetadata(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}`, `{"b":[1,2,{"c":null}],"a":{"z":true,"y":"\u20ac"}}`, `{"template":"landing","build":{"env":{"VITE_A":"x"}}}`, `{"n":1e21,"m":-0,"o":0.1,"p":1e-7,"q":9007199254740993}`, `{"\u0000":"\u0000"}`,
		`{"\ud83d\ude00":1,"\ufb33":2}`, `{"a":{"b":{"c":{"d":[]}}}}`, `{"TEMPLATE":1}`, `{"":""}`, `{"x":1e400}`, `{"<":"&\u2028"}`, `{"build":{"env":{"PATH":"x"}}}`, `null`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var sent map[string]any
		if json.Unmarshal(raw, &sent) != nil { // as the API reads bodies
			return
		}
		meta, text, err := parseMetadata(sent, DefaultLimits.MetadataBytes)
		if err != nil {
			require.Contains(t, []previewd.Code{previewd.CodeInvalid, previewd.CodeTooLarge}, previewd.ErrorCode(err))
			return
		}
		require.NotContains(t, text, "\x00")
		var other map[string]any
		shuffled := reversed(sent)
		require.NoError(t, json.Unmarshal([]byte(shuffled), &other), shuffled)
		otherMeta, otherText, err := parseMetadata(other, DefaultLimits.MetadataBytes)
		require.NoError(t, err)
		require.Equal(t, text, otherText)
		require.Equal(t, meta, otherMeta)
		require.Equal(t, fingerprint("x", nil, input{metadata: text}), fingerprint("x", nil, input{metadata: otherText}))
		stored, err := decodeMetadata(text)
		require.NoError(t, err)
		require.Equal(t, meta, stored, "what a build reads later")
	})
}

// reversed writes JSON with members from last to first, and many spaces.
func reversed(value any) string {
	switch v := value.(type) {
	case map[string]any:
		var members []string
		for _, name := range slices.Backward(slices.Sorted(maps.Keys(v))) {
			members = append(members, "\n\t"+reversed(name)+" : "+reversed(v[name])+" ")
		}
		return "{ " + strings.Join(members, ",") + " }"
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, " "+reversed(item))
		}
		return "[" + strings.Join(items, ", ") + "\r\n]"
	case float64:
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	text, err := stdjson.Marshal(value)
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(text)
}

// A cursor that is taken is one that we have given.
func FuzzPageCursors(f *testing.F) {
	for _, seed := range []string{"", "1", "0", "-1", "+1", "01", "9223372036854775807", "9223372036854775808", "x", "01930f4e-5a7b-7c3d-8e9f-0a1b2c3d4e5f", "01930F4E-5A7B-7C3D-8E9F-0A1B2C3D4E5F", "g", "\x00", "'", "1_0", "0x1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		if id, err := parseProjectCursor(cursor); err == nil && cursor != "" {
			require.Equal(t, cursor, id)
			require.Regexp(t, `^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`, id)
		}
		if number, err := parseVersionCursor(cursor); err == nil && cursor != "" {
			require.Positive(t, number)
			require.Equal(t, strings.TrimLeft(cursor, "+0"), strconv.FormatInt(number, 10))
		}
	})
}

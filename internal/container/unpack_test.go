package container

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/sandbox"
)

// A container that is not run by its first process any more gets nothing out of its
// folder, and no more in than is bounded.
func TestHostileTarsStayInBounds(t *testing.T) {
	t.Parallel()
	file := func(name, text string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o6777, Size: int64(len(text)), Uname: text}
	}
	link := func(kind byte, name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: kind, Linkname: to, Mode: 0o777}
	}
	many := make([]tar.Header, 110)
	for i := range many {
		many[i] = file(strconv.Itoa(i), "")
	}
	folders := make([]tar.Header, 90)
	for i := range folders {
		folders[i] = tar.Header{Name: strconv.Itoa(i) + "/", Typeflag: tar.TypeDir}
	}
	folders = append(folders, file("rest", strings.Repeat("x", 500<<10)))
	for name, headers := range map[string][]tar.Header{
		"Up":             {file("../up", "x")},
		"UpInside":       {{Name: "a/", Typeflag: tar.TypeDir}, file("a/../../up", "x")},
		"Absolute":       {file("/abs", "x")},
		"Empty":          {file("", "x")},
		"ThroughLink":    {link(tar.TypeSymlink, "out", ".."), file("out/up", "x")},
		"OverLink":       {link(tar.TypeSymlink, "f", "../up"), file("f", "x")},
		"HardLinkOut":    {link(tar.TypeLink, "shadow", "../secret")},
		"HardLinkAbs":    {link(tar.TypeLink, "shadow", "/etc/passwd")},
		"HardLinkLink":   {link(tar.TypeSymlink, "s", "../secret"), link(tar.TypeLink, "shadow", "s")},
		"HardLinkAlong":  {link(tar.TypeSymlink, "out", ".."), link(tar.TypeLink, "shadow", "out/secret")},
		"Device":         {{Name: "d", Typeflag: tar.TypeBlock, Devmajor: 8}},
		"Fifo":           {{Name: "f", Typeflag: tar.TypeFifo}},
		"Twice":          {file("f", "x"), file("f", "y")},
		"TooMuch":        {file("a", strings.Repeat("x", 500<<10)), file("b", strings.Repeat("x", 500<<10))},
		"TooMany":        many,
		"TooDeep":        {file(strings.Repeat("d/", 200)+"f", "x")},
		"TooLong":        {file(strings.Repeat("d", 4000), "x")},
		"LinkTooLong":    {link(tar.TypeSymlink, "l", strings.Repeat("d", 4000))},
		"TooManyFolders": folders,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outside := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("s3cret"), 0o600))
			dir := filepath.Join(outside, "in")
			require.NoError(t, os.Mkdir(dir, 0o700))
			var packed bytes.Buffer
			w := tar.NewWriter(&packed)
			for _, h := range headers {
				text := h.Uname
				h.Uname = ""
				require.NoError(t, w.WriteHeader(&h))
				_, err := w.Write([]byte(text))
				require.NoError(t, err)
			}
			require.NoError(t, w.Close())
			require.Error(t, (&unpacker{dir: dir, limits: sandbox.Limits{Disk: 800 << 10, Inodes: 100}, free: roomy}).unpack(&packed))
			left, err := os.ReadDir(outside)
			require.NoError(t, err)
			require.Len(t, left, 2, "nothing is beside the folder")
			require.NoFileExists(t, filepath.Join(dir, "shadow"))
		})
	}
}

func roomy(string) (int64, error) { return 1 << 40, nil }

// A host whose disk runs full stops, whatever the build may have, and says that it
// is its own.
func TestUnpackLeavesTheHostRoom(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 64 << 20}))
	_, err := w.Write(make([]byte, 64<<20))
	require.NoError(t, errors.Join(err, w.Close()))
	dir := t.TempDir()
	free := int64(leaveFree + 16<<20)
	u := &unpacker{dir: dir, limits: sandbox.Limits{Disk: 1 << 30, Inodes: 10}, free: func(string) (int64, error) {
		if info, err := os.Stat(filepath.Join(dir, "f")); err == nil {
			return free - info.Size(), nil
		}
		return free, nil // nothing is written yet
	}}
	err = u.unpack(&packed)
	require.ErrorIs(t, err, errHostFull)
	require.NotErrorIs(t, err, errHostile)
	info, err := os.Stat(filepath.Join(dir, "f"))
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(32<<20))
}

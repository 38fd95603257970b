package artifact_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
)

// TestStore is the conformance test: every Store passes it.
func TestStore(t *testing.T) {
	t.Parallel()
	stores := map[string]func(t *testing.T) artifact.Store{
		"folder": func(t *testing.T) artifact.Store {
			s, err := artifact.NewFolder(t.TempDir())
			require.NoError(t, err)
			return s
		},
	}
	tests := map[string]func(t *testing.T, s artifact.Store){
		"RoundTrip": testRoundTrip, "Missing": testMissing, "FailedWrite": testFailedWrite,
		"Concurrent": testConcurrent, "Manifest": testManifest, "Sweep": testSweep,
	}
	for name, open := range stores {
		for what, test := range tests {
			t.Run(name+"/"+what, func(t *testing.T) {
				t.Parallel()
				test(t, open(t))
			})
		}
	}
}

func testRoundTrip(t *testing.T, s artifact.Store) {
	for _, content := range []string{"", "x", strings.Repeat("long ", 1<<20)} {
		blob, err := s.Put(t.Context(), strings.NewReader(content))
		require.NoError(t, err)
		require.Equal(t, previewd.DigestOf([]byte(content)), blob.Digest)
		require.Equal(t, int64(len(content)), blob.Size)
		got, err := artifact.ReadBlob(t.Context(), s, blob.Digest, 1<<30)
		require.NoError(t, err)
		require.Equal(t, content, string(got))
		again, err := s.Put(t.Context(), strings.NewReader(content))
		require.NoError(t, err)
		require.Equal(t, blob, again)
		again, err = s.PutBytes(t.Context(), []byte(content))
		require.NoError(t, err)
		require.Equal(t, blob, again)
		there, err := s.Has(t.Context(), blob)
		require.NoError(t, err)
		require.True(t, there)
		there, err = s.Has(t.Context(), previewd.Blob{Digest: blob.Digest, Size: blob.Size + 1})
		require.NoError(t, err)
		require.False(t, there, "a blob of another size is not that blob")
		_, err = artifact.ReadBlob(t.Context(), s, blob.Digest, blob.Size-1)
		require.Error(t, err, "a limit holds")
	}
}

func testMissing(t *testing.T, s artifact.Store) {
	for _, digest := range []previewd.Digest{previewd.DigestOf([]byte("no")), "", "../../etc/passwd", "zz", previewd.Digest(strings.Repeat("A", 64))} {
		_, err := s.Open(t.Context(), digest)
		require.Equal(t, previewd.CodeNotFound, previewd.ErrorCode(err), digest)
		there, err := s.Has(t.Context(), previewd.Blob{Digest: digest})
		require.NoError(t, err)
		require.False(t, there)
	}
}

func testFailedWrite(t *testing.T, s artifact.Store) {
	content := bytes.Repeat([]byte("x"), 100_000)
	_, err := s.Put(t.Context(), io.MultiReader(bytes.NewReader(content), iotest.ErrReader(io.ErrUnexpectedEOF)))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	there, err := s.Has(t.Context(), previewd.Blob{Digest: previewd.DigestOf(content), Size: int64(len(content))})
	require.NoError(t, err)
	require.False(t, there, "half a write leaves nothing")
}

func testConcurrent(t *testing.T, s artifact.Store) {
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if _, err := s.Put(context.Background(), strings.NewReader("the same")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func testManifest(t *testing.T, s artifact.Store) {
	blob, err := s.Put(t.Context(), strings.NewReader("x"))
	require.NoError(t, err)
	forward := []previewd.ManifestFile{{Path: "a", Blob: blob}, {Path: "b", Blob: blob, Gzip: &blob}}
	first, err := artifact.PutManifest(t.Context(), s, previewd.Manifest{Files: forward})
	require.NoError(t, err)
	second, err := artifact.PutManifest(t.Context(), s, previewd.Manifest{Files: []previewd.ManifestFile{forward[1], forward[0]}})
	require.NoError(t, err)
	require.Equal(t, first, second, "order does not count")
	m, err := artifact.ReadManifest(t.Context(), s, first)
	require.NoError(t, err)
	require.Equal(t, forward, m.Files)
	require.Len(t, m.Blobs(), 3)
	_, err = artifact.ReadManifest(t.Context(), s, blob.Digest)
	require.Error(t, err, "not every blob is a manifest")
}

func testSweep(t *testing.T, s artifact.Store) {
	keep, err := s.Put(t.Context(), strings.NewReader("keep"))
	require.NoError(t, err)
	drop, err := s.Put(t.Context(), strings.NewReader("drop"))
	require.NoError(t, err)
	rule := artifact.SweepRule{Keep: func(d previewd.Digest) bool { return d == keep.Digest }, Before: time.Now().Add(-time.Minute)}
	result, err := s.Sweep(t.Context(), rule)
	require.NoError(t, err)
	require.Zero(t, result.Blobs, "what is young may belong to a transaction that has not committed")
	rule.Before = time.Now().Add(time.Minute)
	result, err = s.Sweep(t.Context(), rule)
	require.NoError(t, err)
	require.Equal(t, artifact.SweepResult{Blobs: 1, Bytes: drop.Size}, result)
	there, err := s.Has(t.Context(), keep)
	require.NoError(t, err)
	require.True(t, there)
}

func TestFolderNeverServesWrongBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := artifact.NewFolder(dir)
	require.NoError(t, err)
	blob, err := s.Put(t.Context(), strings.NewReader("true bytes"))
	require.NoError(t, err)
	name := filepath.Join(dir, "blobs", string(blob.Digest[:2]), string(blob.Digest))
	require.NoError(t, os.Chmod(name, 0o600))
	require.NoError(t, os.WriteFile(name, []byte("true bytez"), 0o600))
	_, err = artifact.ReadBlob(t.Context(), s, blob.Digest, 100)
	require.ErrorContains(t, err, "its bytes have digest")
}

func TestFolderRefreshesTheAgeOfWhatIsPutAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := artifact.NewFolder(dir)
	require.NoError(t, err)
	blob, err := s.Put(t.Context(), strings.NewReader("old"))
	require.NoError(t, err)
	name := filepath.Join(dir, "blobs", string(blob.Digest[:2]), string(blob.Digest))
	old := time.Now().Add(-48 * time.Hour)
	require.NoError(t, os.Chtimes(name, old, old))
	before, err := os.Stat(name)
	require.NoError(t, err)
	_, err = s.Put(t.Context(), strings.NewReader("old"))
	require.NoError(t, err)
	after, err := os.Stat(name)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "an existing file is never rewritten")
	result, err := s.Sweep(t.Context(), artifact.SweepRule{Keep: func(previewd.Digest) bool { return false }, Before: time.Now().Add(-time.Hour)})
	require.NoError(t, err)
	require.Zero(t, result.Blobs)
}

func TestNewFolderRemovesWhatACrashLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := artifact.NewFolder(dir)
	require.NoError(t, err)
	half, young := filepath.Join(dir, "tmp", "put-123"), filepath.Join(dir, "tmp", "put-456")
	for _, name := range []string{half, young} {
		require.NoError(t, os.WriteFile(name, []byte("half"), 0o600))
	}
	old := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(half, old, old))
	_, err = artifact.NewFolder(dir)
	require.NoError(t, err)
	require.NoFileExists(t, half)
	require.FileExists(t, young, "another process that shares the folder may be writing it")
}

package runner

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

// countBuilds is a tool that remembers how often it has run.
const countBuilds = `mkdir -p dist node_modules/.cache/t && echo x >> node_modules/.cache/t/n && wc -l < node_modules/.cache/t/n > dist/index.html`

func setupCaches(t *testing.T, change ...func(*Sandbox)) *npmBench {
	t.Helper()
	caches, err := NewCaches(filepath.Join(t.TempDir(), "caches"), 1<<20, 4<<20)
	require.NoError(t, err)
	return setupNPM(t, append(change, func(s *Sandbox) { s.Caches = caches })...)
}

// of has a build be of a project.
func of(project string) func(*previewd.Claim) {
	return func(c *previewd.Claim) { c.ProjectID = project }
}

func (b *npmBench) counted(tree map[string]string, project string) string {
	b.t.Helper()
	o := b.build(tree, of(project))
	require.Equal(b.t, previewd.OutcomeCompleted, o.Kind, b.text())
	return strings.TrimSpace(b.site(o)["index.html"])
}

// cacheFile is the only cache that there is.
func (b *npmBench) cacheFile() string {
	b.t.Helper()
	names, err := filepath.Glob(filepath.Join(b.with.Caches.dir, "*"))
	require.NoError(b.t, err)
	require.Len(b.t, names, 1)
	return names[0]
}

func namesIn(t *testing.T, file string) (names []string) {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	for archive := tar.NewReader(f); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		require.NoError(t, err)
		require.EqualValues(t, tar.TypeReg, header.Typeflag)
		names = append(names, header.Name)
	}
}

// A cache may hold whatever tools were given, so one of a build with secrets is not
// kept.
func TestToolsRememberNoSecrets(t *testing.T) {
	t.Parallel()
	b := setupCaches(t)
	tree := b.tree("echo $TOKEN > /dev/null; "+countBuilds, "maker")
	o := b.build(tree, of("one"), given(secretVar("TOKEN", "hunter2-hunter2")))
	require.Equal(t, previewd.OutcomeCompleted, o.Kind, b.text())
	require.Contains(t, b.text(), "cache: nothing is kept for the next build, since this one had secrets")
	kept, err := os.ReadDir(b.with.Caches.dir)
	require.NoError(t, err)
	require.Empty(t, kept)
}

// Tools remember what they did in the project's last build, and nobody else's; what
// is in a cache are files.
func TestToolsRemember(t *testing.T) {
	t.Parallel()
	b := setupCaches(t)
	tree := b.tree("sh build.sh", "maker")
	tree["build.sh"] = "ln -s /etc/passwd node_modules/.cache/t/link; mkfifo node_modules/.cache/t/pipe; " + countBuilds
	require.Equal(t, "1", b.counted(tree, "one"))
	require.Equal(t, "2", b.counted(tree, "one"), "over kept packages")
	require.Equal(t, "3", b.counted(tree, "one"))
	require.Equal(t, []string{"node_modules/.cache/t/n"}, namesIn(t, b.cacheFile()))
	require.Equal(t, "1", b.counted(tree, "two"))
	require.Contains(t, b.text(), "cache: tools have what they kept of the project's last build")

	// A folder that is a link is not followed.
	tree["build.sh"] = "rm -rf node_modules/.cache && ln -s /etc node_modules/.cache && mkdir dist && echo linked > dist/index.html"
	require.Equal(t, "linked", b.counted(tree, "one"))
	require.Contains(t, b.cacheFile(), "two@", "nothing is kept of the first project any more")
}

// A folder of the tree that is named like a tool's is source: nothing is laid over
// it, and it is not kept.
func TestSourceIsNoCache(t *testing.T) {
	t.Parallel()
	b := setupCaches(t)
	tree := b.tree("parcel build", "parcel")
	tree["build.sh"] = "mkdir -p dist .parcel-cache && cat .parcel-cache/* > dist/index.html; echo made >> .parcel-cache/data"
	require.Empty(t, b.counted(tree, "one"))
	require.Equal(t, "made", b.counted(tree, "one"))
	tree[".parcel-cache/data"] = "mine"
	require.Equal(t, "mine", b.counted(tree, "one"))
	tree[".parcel-cache/data"] = "mine too"
	require.Equal(t, "mine too", b.counted(tree, "one"))
	delete(tree, ".parcel-cache/data")
	require.Empty(t, b.counted(tree, "one"))
}

// A cache that is broken, or that breaks a build, costs time only.
func TestBrokenCachesFailNoBuild(t *testing.T) {
	t.Parallel()
	b := setupCaches(t)
	tree := b.tree("sh build.sh", "maker")
	tree["build.sh"] = countBuilds
	require.Equal(t, "1", b.counted(tree, "one"))
	file := b.cacheFile()
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("no tar ", 1000)), 0o600))
	require.Equal(t, "1", b.counted(tree, "one"))
	require.Contains(t, b.text(), "cannot be laid out and is dropped")

	tree["build.sh"] = "if [ -e node_modules/.cache/t/n ]; then exit 1; fi; " + countBuilds
	require.Equal(t, "1", b.counted(tree, "one"))
	require.Contains(t, b.text(), "so once more without that")

	tree["build.sh"] = countBuilds + "; exit 1"
	o := b.build(tree, of("one"))
	require.Equal(t, previewd.OutcomeFailed, o.Kind)
	names, err := filepath.Glob(filepath.Join(b.with.Caches.dir, "*"))
	require.NoError(t, err)
	require.Empty(t, names, "what a build that failed has left, or was given, is nobody's")
}

func TestCachesAreBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "new-1"), nil, 0o600))
	c, err := NewCaches(dir, 10_000, 15_000)
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(dir, "new-1"))
	save := func(project, tools string, size int) error {
		workspace := fstest.MapFS{".cache/a": {Data: make([]byte, size)}, "other": {Data: []byte("x")}}
		_, err := c.save(t.Context(), project, tools, workspace, map[string]string{".cache": "node_modules/.cache", "none": "none"})
		return err
	}
	has := func(project, tools string) bool {
		f, err := c.open(project, tools)
		if err == nil {
			f.Close()
		}
		return err == nil
	}
	for i, project := range []string{"one", "two"} {
		require.NoError(t, save(project, "a", 5_000))
		old := time.Now().Add(time.Duration(i-10) * time.Hour)
		require.NoError(t, os.Chtimes(c.name(project, "a"), old, old))
	}
	require.True(t, has("one", "a"), "it is used")
	require.False(t, has("one", "b"))
	require.NoError(t, save("three", "a", 5_000))
	require.False(t, has("two", "a"), "it was not used for longest")
	require.True(t, has("one", "a"))

	old := time.Now().Add(-31 * 24 * time.Hour)
	require.NoError(t, os.Chtimes(c.name("three", "a"), old, old))
	require.NoError(t, save("four", "a", 10))
	require.False(t, has("three", "a"), "it is too old")
	require.NoError(t, save("one", "b", 10))
	require.False(t, has("one", "a"), "one for each project")
	require.ErrorIs(t, save("one", "b", 20_000), errCacheTooLarge)
	require.False(t, has("one", "b"), "what is old is of no use either")
	require.Equal(t, []string{"node_modules/.cache/a"}, namesIn(t, c.name("four", "a")))

	require.NoError(t, os.Chtimes(c.name("four", "a"), old, old))
	_, err = NewCaches(dir, 10_000, 15_000)
	require.NoError(t, err)
	require.False(t, has("four", "a"), "nobody has to keep anything for it to go")

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.save(canceled, "four", "a", fstest.MapFS{".cache/a": {}}, map[string]string{".cache": ".cache"})
	require.ErrorIs(t, err, context.Canceled)
	left, err := filepath.Glob(filepath.Join(dir, "new-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestCachesFollowNoLinks(t *testing.T) {
	t.Parallel()
	c, err := NewCaches(t.TempDir(), 10_000, 10_000)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "real", "cache"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "real", "cache", "a"), []byte("x"), 0o600))
	require.NoError(t, os.Symlink("real", filepath.Join(dir, ".next")))
	workspace, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer workspace.Close()
	for folder, size := range map[string]int64{".next/cache": 0, "real/cache": 1} {
		kept, err := c.save(t.Context(), "one", "a", workspace.FS(), map[string]string{folder: folder})
		require.NoError(t, err)
		require.Equal(t, size, kept, folder)
	}
}

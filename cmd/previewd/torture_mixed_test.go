package main_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

// kind is a tree, and how its builds end.
type kind struct {
	files previewd.Files
	ends  previewd.BuildStatus
}

// mixedKinds are builds of all kinds but those that codeTree stands for: without
// code, bundled, bundled with packages, by packages' own code, and such as fail.
func mixedKinds(t *testing.T, pack string) []kind {
	t.Helper()
	plain, own := t.TempDir(), t.TempDir()
	start{lock: npmLock, files: map[string]string{
		"package.json": `{"name":"p","private":true,"type":"module","scripts":{"build":"vite build"},"dependencies":{"clsx":"2.1.1"},"devDependencies":{"vite":"5.4.21"}}`,
		"index.html":   `<div id="root"></div><script type="module" src="/main.js"></script>`,
		"main.js":      "import clsx from 'clsx'\ndocument.title = clsx('made', 'of', 'packages')\n",
	}}.lay(t, pack, plain)
	starts["eleventy"].lay(t, pack, own)
	return []kind{
		{previewd.Files{"index.html": []byte("<h1>static</h1>")}, previewd.BuildCompleted},
		{manyModules(), previewd.BuildCompleted},
		{filesOf(t, plain), previewd.BuildCompleted},
		{filesOf(t, own), previewd.BuildCompleted},
		{previewd.Files{"index.html": []byte(`<script type="module" src="/main.ts"></script>`), "main.ts": []byte("const =")}, previewd.BuildFailed},
		{previewd.Files{
			"package.json": []byte(`{"name":"x","private":true,"scripts":{"build":"sleep 1; exit 3"}}`), "index.html": []byte("x"),
		}, previewd.BuildFailed},
	}
}

// working lists the processes whose folder is in the server's, which is that of
// builds.
func (n *node) working() (pids []string) {
	n.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cwd")
	require.NoError(n, err)
	for _, path := range all {
		if dir, err := os.Readlink(path); err == nil && strings.HasPrefix(dir, n.data+"/") {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

// sweepGroups has the next server find the groups of dead ones to be old, and
// requires that it removes them.
func (n *node) sweepGroups(clients *load, dead []int) {
	n.Helper()
	old := time.Now().Add(-time.Hour)
	for _, pid := range dead {
		for _, dir := range groupsOf(n.torture, strconv.Itoa(pid)) {
			if err := os.Chtimes(dir, old, old); !errors.Is(err, fs.ErrNotExist) { // the other engine's server sweeps too
				require.NoError(n, err)
			}
		}
	}
	n.kill()
	n.start("")
	clients.createSome(max(4, len(clients.mix))) // the first box sweeps
	n.quiet()
	for _, pid := range dead {
		require.Empty(n, groupsOf(n.torture, strconv.Itoa(pid)))
	}
}

// requireOnlyCaches requires that the server's folder holds what later builds use,
// and nothing that one has left unfinished.
func (n *node) requireOnlyCaches() {
	n.Helper()
	sizes := map[string]int64{}
	require.NoError(n, filepath.WalkDir(n.data, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		require.NoError(n, err)
		name, _ := filepath.Rel(n.data, path)
		first, rest, _ := strings.Cut(name, "/")
		sizes[first] += info.Size()
		for _, part := range []string{"new-", "unfinished", "tmp"} {
			if first != "toolchains" || part == "unfinished" {
				require.False(n, strings.HasPrefix(rest, part) && first != "previewd.db", "%s is left", name)
			}
		}
		return nil
	}))
	for name := range sizes {
		require.Contains(n, []string{
			"previewd.db", "previewd.db-wal", "previewd.db-shm", "npm", "modules", "toolchains", "runner-id", "lock", "address", "service-token", "user-token", "artifacts",
		}, name, "it is no cache")
	}
	if *mixed > 0 {
		require.Positive(n, sizes["modules"], "packages of what was bundled are kept")
	}
	n.Logf("bytes in the server's folder: %v", sizes)
}

// requireSound requires that doctor finds every promise kept, in every file.
func (n *node) requireSound() {
	n.Helper()
	doctor := exec.Command(n.program, "doctor", "check", "--all", "--data", n.data, "--artifacts", n.shared)
	if n.store.URL != "" {
		doctor.Args = append(doctor.Args, "--database-url", n.store.URL)
	}
	out, err := doctor.CombinedOutput()
	require.NoError(n, err, "%s", out)
}

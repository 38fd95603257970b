package toolchain

import (
	"debug/elf"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTreeKeepsFilesAndInnerLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree := filepath.Join(dir, "npm")
	require.NoError(t, os.MkdirAll(filepath.Join(tree, "lib", "docs"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(tree, "docs"), 0o700))
	for name, mode := range map[string]os.FileMode{
		"npm/lib/run.js": 0o4711, "npm/lib/data": 0o600, "npm/lib/docs/kept": 0o600, "npm/docs/gone": 0o600, "secret": 0o600,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
		require.NoError(t, syscall.Chmod(filepath.Join(dir, name), uint32(mode)))
	}
	for name, link := range map[string]string{
		"inner": "lib/run.js", "lib/up": "../lib/data", "here": ".",
		"absolute": filepath.Join(tree, "lib"), "out": "../secret", "through": "here/../../secret", "viaOut": "out", "broken": "nowhere",
	} {
		require.NoError(t, os.Symlink(link, filepath.Join(tree, name)))
	}
	require.NoError(t, syscall.Mkfifo(filepath.Join(tree, "pipe"), 0o600))

	l := &layout{files: map[string]source{}, links: map[string]string{}, folders: map[string]bool{}}
	require.NoError(t, l.tree(tree, "m/npm", []string{tree}, "docs"))

	require.Equal(t, map[string]string{"m/npm/inner": "lib/run.js", "m/npm/lib/up": "../lib/data", "m/npm/here": "."}, l.links)
	require.ElementsMatch(t, []string{"m/npm/lib/run.js", "m/npm/lib/data", "m/npm/lib/docs/kept"}, slices.Collect(maps.Keys(l.files)))
	require.Equal(t, os.FileMode(0o755), l.files["m/npm/lib/run.js"].mode)
	require.Equal(t, os.FileMode(0o644), l.files["m/npm/lib/data"].mode)
}

func TestDigestNamesWhatIsLaidOut(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "node")
	digest := func(content string) string {
		require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
		l := newLayout()
		require.NoError(t, l.file(name, "usr/bin/node"))
		return l.digest()
	}
	first := digest("one")
	require.NotEqual(t, first, digest("three"))

	l := newLayout()
	require.NoError(t, l.file(name, "usr/bin/node"))
	require.NoError(t, os.WriteFile(name, []byte("changed"), 0o600))
	require.ErrorContains(t, l.write(t.Context(), filepath.Join(t.TempDir(), "root")), "changed while it was copied")
}

// A program that says where its libraries are from its own place finds the
// copies from the copy's place.
func TestLibrariesBesideAProgram(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("SKIPPED: there is no C compiler to make a program and a library with")
	}
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "bin"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "lib"), 0o700))
	cc := func(code string, args ...string) {
		source := filepath.Join(dir, "source.c")
		require.NoError(t, os.WriteFile(source, []byte(code), 0o600))
		cmd := exec.CommandContext(t.Context(), "cc", append([]string{source}, args...)...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	program, library := filepath.Join(dir, "bin", "program"), filepath.Join(dir, "lib", "libours.so")
	cc("int ours(void) { return 0; }", "-shared", "-fPIC", "-Wl,-soname,libours.so", "-o", library)
	cc("int ours(void); int main(void) { return ours(); }", "-o", program, library, "-Wl,-rpath,$ORIGIN/../lib")

	l := newLayout()
	require.NoError(t, newLinker(l).object(place{program, "usr/bin/program"}))
	require.Equal(t, library, filepath.Clean(l.files["usr/lib/libours.so"].path))

	require.NoError(t, os.Remove(library))
	require.ErrorContains(t, newLinker(newLayout()).object(place{program, "usr/bin/program"}), "that "+program+" needs")
	_, found := newLinker(newLayout()).search(&elf.File{}, "libc.so.6", newLinker(l).folders)
	require.False(t, found, "made for another machine")
}

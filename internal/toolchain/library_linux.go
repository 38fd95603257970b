package toolchain

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// byName are libraries that not every program here names: the C library loads
// them when they are wanted, and modules of npm packages need them.
var byName = []string{
	"libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1", "libstdc++.so.6",
	"libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1",
	"libatomic.so.1", // of the registry's Node.js from 25 on
}

// place is a file or folder of this machine and where it goes in the root.
type place struct{ from, to string }

// linker finds what the loader would load.
type linker struct {
	layout  *layout
	folders []place // where it looks for what no program says where it is
}

// newLinker looks in the standard folders, then in those that only this
// machine's loader is told of. What is found there goes beside the C library:
// the root has no cache that names more folders.
func newLinker(l *layout) *linker {
	k := &linker{layout: l}
	for _, pattern := range []string{"/lib/*-linux-gnu*", "/usr/lib/*-linux-gnu*", "/lib64", "/usr/lib64", "/lib", "/usr/lib"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			// Where /lib64 is a link to /usr/lib, loaders look in the latter.
			if real, err := filepath.EvalSymlinks(name); err == nil {
				k.folders = append(k.folders, place{real, inRoot(real)})
			}
		}
	}
	return k
}

// addConfigured needs an object to know which of several C libraries is meant.
func (k *linker) addConfigured(like *elf.File) {
	beside := "usr/lib"
	if c, ok := k.search(like, "libc.so.6", k.folders); ok {
		beside = filepath.Dir(c.to)
	}
	names, _ := filepath.Glob("/etc/ld.so.conf.d/*.conf")
	for _, name := range append([]string{"/etc/ld.so.conf"}, names...) {
		text, _ := os.ReadFile(name)
		for line := range strings.Lines(string(text)) {
			if folder := strings.TrimSpace(line); filepath.IsAbs(folder) {
				k.folders = append(k.folders, place{folder, beside})
			}
		}
	}
}

// object takes a program or library, and all that is loaded with it.
func (k *linker) object(at place) error {
	if _, there := k.layout.files[at.to]; there {
		return nil
	}
	file, err := elf.Open(at.from)
	if err != nil {
		return fmt.Errorf("cannot read the program %s: %w", at.from, err)
	}
	defer file.Close()
	if err := k.layout.file(at.from, at.to); err != nil {
		return err
	}
	if err := k.loader(file); err != nil {
		return err
	}
	names, err := file.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("cannot read what %s needs: %w", at.from, err)
	}
	for _, name := range names {
		library, ok := k.search(file, name, append(runPath(file, at), k.folders...))
		if !ok {
			return fmt.Errorf("cannot find the library %s that %s needs", name, at.from)
		}
		if err := k.object(library); err != nil {
			return err
		}
	}
	return nil
}

// loader takes the program that the kernel starts to load the object, if any.
func (k *linker) loader(file *elf.File) error {
	for _, header := range file.Progs {
		if header.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(header.Open())
		if err != nil {
			return err
		}
		path := strings.TrimRight(string(name), "\x00")
		return k.object(place{path, inRoot(path)})
	}
	return nil
}

// runPath returns where an object itself says that its libraries are. What it
// says of its own place is true of the copy's place too.
func runPath(file *elf.File, at place) []place {
	lists, _ := file.DynString(elf.DT_RUNPATH)
	if len(lists) == 0 {
		lists, _ = file.DynString(elf.DT_RPATH)
	}
	origin := func(folder, path string) string {
		return strings.NewReplacer("$ORIGIN", folder, "${ORIGIN}", folder).Replace(path)
	}
	var folders []place
	for folder := range strings.SplitSeq(strings.Join(lists, ":"), ":") {
		if from := origin(filepath.Dir(at.from), folder); filepath.IsAbs(from) {
			folders = append(folders, place{from, inRoot(origin("/"+filepath.Dir(at.to), folder))})
		}
	}
	return folders
}

// search passes by what is made for other machines, as the loader does.
func (k *linker) search(like *elf.File, name string, folders []place) (place, bool) {
	for _, folder := range folders {
		path := filepath.Join(folder.from, name)
		file, err := elf.Open(path)
		if err != nil {
			continue
		}
		fits := file.Class == like.Class && file.Machine == like.Machine
		file.Close()
		if fits {
			return place{path, filepath.Join(folder.to, name)}, true
		}
	}
	return place{}, false
}

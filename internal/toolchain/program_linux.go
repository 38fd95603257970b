package toolchain

import (
	"bufio"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// programs are those that scripts of packages use, beside Node.js and a shell.
var programs = strings.Fields(`bash env
	ls cat cp mv rm mkdir rmdir ln chmod touch sed grep egrep find xargs sort uniq head tail tr cut wc
	dirname basename readlink realpath uname sleep test [ true false echo printf pwd date tee mktemp id
	whoami nproc stat du which awk tar gzip gunzip sha256sum md5sum diff cmp expr seq nice timeout od
	comm paste`)

// plan is a toolchain that may not be written yet.
type plan struct {
	layout    *layout
	linker    *linker
	node, npm string            // versions
	names     map[string]string // of programs in the root, by their path here
}

// machine is what this machine has of Node.js.
type machine struct {
	path    string // of the program
	npm     string // folder
	version string // of npm
	engines string // what npm runs on
}

func findMachine() (machine, error) {
	link, err := exec.LookPath("node")
	if err != nil {
		return machine{}, fmt.Errorf("%w Node.js on this machine: install it, e.g. apt-get install nodejs npm", ErrMissing)
	}
	m := machine{}
	if m.path, err = filepath.EvalSymlinks(link); err != nil {
		return machine{}, fmt.Errorf("cannot find Node.js: %w", err)
	}
	m.findNPM()
	return m, nil
}

// planOf finds everything on this machine.
func planOf(ctx context.Context) (*plan, error) {
	m, err := findMachine()
	if err != nil {
		return nil, err
	}
	p := newPlan()
	if err := p.addLibraries(m.path); err != nil {
		return nil, err
	}
	if p.node, err = nodeVersion(ctx, m.path); err != nil {
		return nil, err
	}
	if err := p.addProgram("node", m.path); err != nil {
		return nil, err
	}
	if err := p.addNPM(m); err != nil {
		return nil, err
	}
	return p, p.addRest()
}

func newPlan() *plan {
	p := &plan{layout: newLayout(), names: map[string]string{}}
	p.linker = newLinker(p.layout)
	return p
}

// addRest takes what is no part of Node.js.
func (p *plan) addRest() error {
	if err := p.addPrograms(); err != nil {
		return err
	}
	const certificates = "/etc/ssl/certs/ca-certificates.crt"
	if err := p.layout.file(certificates, inRoot(certificates)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot find certificates: %w", err)
	}
	return nil
}

// addLibraries takes those that this machine's Node.js could load.
func (p *plan) addLibraries(node string) error {
	file, err := elf.Open(node)
	if err != nil {
		return fmt.Errorf("cannot copy Node.js: %s is not the program but what starts it; put the folder of the program first in PATH", node)
	}
	defer file.Close()
	p.linker.addConfigured(file)
	for _, name := range byName {
		if library, ok := p.linker.search(file, name, p.linker.folders); ok {
			if err := p.linker.object(library); err != nil {
				return err
			}
		}
	}
	return p.linker.loader(file)
}

var versionPattern = regexp.MustCompile(`^v(\d+\.\d+\.\d+\S*)\s*$`)

func nodeVersion(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("cannot ask %s for its version: %w", path, err)
	}
	version := versionPattern.FindSubmatch(out)
	if version == nil {
		return "", fmt.Errorf("cannot use %s: it says that its version is %.50q", path, out)
	}
	return string(version[1]), nil
}

// Debian's npm, the packages that it needs and parts of Node.js are in
// debianModules, with links to debianScripts.
const (
	debianModules = "/usr/share/nodejs"
	debianScripts = "/usr/share/javascript"
)

func (p *plan) addNPM(m machine) error {
	if m.npm == "" {
		return fmt.Errorf("%w npm on this machine: install it, e.g. apt-get install nodejs npm", ErrMissing)
	}
	p.npm = m.version
	l := p.layout
	_, err := os.Stat(debianModules)
	if err == nil && (m.debian() || m.path == "/usr/bin/node") {
		folders := []string{debianModules, debianScripts}
		for _, name := range folders {
			if err := l.tree(name, inRoot(name), folders); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot read modules of Node.js: %w", err)
			}
		}
	}
	if m.debian() {
		l.links[npmFolder] = "../../share/nodejs/npm"
	} else if err := l.tree(m.npm, npmFolder, []string{m.npm}, npmTexts...); err != nil {
		return fmt.Errorf("cannot read npm: %w", err)
	}
	p.linkNPM()
	return nil
}

const npmFolder = "usr/lib/node_modules/npm"

// npmTexts are folders of npm that no build reads.
var npmTexts = []string{"docs", "man", "html"}

func (p *plan) linkNPM() {
	p.layout.links["usr/bin/npm"] = "../lib/node_modules/npm/bin/npm-cli.js"
	p.layout.links["usr/bin/npx"] = "../lib/node_modules/npm/bin/npx-cli.js"
}

// debian reports whether npm is Debian's, which runs on Debian's Node.js only.
func (m *machine) debian() bool { return isBelow(debianModules, m.npm) }

// findNPM finds npm's package: the one beside Node.js, the one that PATH leads to,
// or one where systems install it.
func (m *machine) findNPM() {
	places := []string{filepath.Join(filepath.Dir(m.path), "../lib/node_modules/npm")}
	if link, err := exec.LookPath("npm"); err == nil {
		if script, err := filepath.EvalSymlinks(link); err == nil {
			places = append(places, filepath.Dir(filepath.Dir(script)))
		}
	}
	for _, name := range append(places, debianModules+"/npm", "/usr/lib/node_modules/npm") {
		folder, err := filepath.EvalSymlinks(name)
		if err != nil {
			continue
		}
		text, _ := os.ReadFile(filepath.Join(folder, "package.json"))
		var about struct {
			Name, Version string
			Engines       struct{ Node string }
		}
		if err := json.Unmarshal(text, &about); err == nil && about.Name == "npm" {
			m.npm, m.version, m.engines = folder, about.Version, about.Engines.Node
			return
		}
	}
}

// addPrograms begins with the shell: what is a script needs it.
func (p *plan) addPrograms() error {
	if err := p.addProgram("sh", "/bin/sh"); err != nil {
		return err
	}
	for _, name := range programs {
		for _, place := range []string{"/usr/bin/" + name, "/bin/" + name, name} {
			found, err := exec.LookPath(place)
			if err != nil {
				continue
			}
			if err := p.addProgram(name, found); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// addProgram takes a program. One that has several names is copied once. A
// script whose interpreter is not in the root would not run, and is left out.
func (p *plan) addProgram(name, path string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("cannot find the program %s: %w", name, err)
	}
	target := "usr/bin/" + name
	if first, there := p.names[path]; there {
		p.layout.links[target] = first
		return nil
	}
	interpreter, err := interpreterOf(path)
	switch {
	case err != nil:
		return fmt.Errorf("cannot read the program %s: %w", name, err)
	case interpreter == "":
		p.names[path] = name
		return p.linker.object(place{path, target})
	case p.layout.has(inRoot(interpreter)):
		p.names[path] = name
		return p.layout.file(path, target)
	}
	return nil
}

// interpreterOf returns what runs a script, and nothing for other programs.
func interpreterOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadSlice('\n')
	words := strings.Fields(strings.TrimPrefix(string(line), "#!"))
	if err != nil || !strings.HasPrefix(string(line), "#!") || len(words) == 0 {
		return "", nil
	}
	return words[0], nil
}

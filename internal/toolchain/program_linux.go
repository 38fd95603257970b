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

// planOf finds everything on this machine.
func planOf(ctx context.Context) (*plan, error) {
	link, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("%w Node.js on this machine: install it, e.g. apt-get install nodejs npm", ErrMissing)
	}
	node, err := filepath.EvalSymlinks(link)
	if err != nil {
		return nil, fmt.Errorf("cannot find Node.js: %w", err)
	}
	p := &plan{layout: newLayout(), names: map[string]string{}}
	p.linker = newLinker(p.layout)
	if err := p.addNode(ctx, node); err != nil {
		return nil, err
	}
	if err := p.addNPM(node); err != nil {
		return nil, err
	}
	if err := p.addPrograms(); err != nil {
		return nil, err
	}
	const certificates = "/etc/ssl/certs/ca-certificates.crt"
	if err := p.layout.file(certificates, inRoot(certificates)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot find certificates: %w", err)
	}
	return p, nil
}

func (p *plan) addNode(ctx context.Context, path string) error {
	file, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("cannot copy Node.js: %s is not the program but what starts it; put the folder of the program first in PATH", path)
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
	if p.node, err = nodeVersion(ctx, path); err != nil {
		return err
	}
	return p.addProgram("node", path)
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

func (p *plan) addNPM(node string) error {
	folder, version := findNPM(node)
	if folder == "" {
		return fmt.Errorf("%w npm on this machine: install it, e.g. apt-get install nodejs npm", ErrMissing)
	}
	p.npm = version
	l := p.layout
	_, err := os.Stat(debianModules)
	if err == nil && (isBelow(debianModules, folder) || node == "/usr/bin/node") {
		folders := []string{debianModules, debianScripts}
		for _, name := range folders {
			if err := l.tree(name, inRoot(name), folders); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot read modules of Node.js: %w", err)
			}
		}
	}
	const modules = "usr/lib/node_modules/"
	if isBelow(debianModules, folder) {
		l.links[modules+"npm"] = "../../share/nodejs/npm"
	} else if err := l.tree(folder, modules+"npm", []string{folder}, "docs", "man", "html"); err != nil {
		return fmt.Errorf("cannot read npm: %w", err)
	}
	l.links["usr/bin/npm"] = "../lib/node_modules/npm/bin/npm-cli.js"
	l.links["usr/bin/npx"] = "../lib/node_modules/npm/bin/npx-cli.js"
	return nil
}

// findNPM returns npm's package folder and version: the one beside Node.js, the
// one that PATH leads to, or one where systems install it.
func findNPM(node string) (folder, version string) {
	places := []string{filepath.Join(filepath.Dir(node), "../lib/node_modules/npm")}
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
		var about struct{ Name, Version string }
		if err := json.Unmarshal(text, &about); err == nil && about.Name == "npm" {
			return folder, about.Version
		}
	}
	return "", ""
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

package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
	"golang.org/x/text/unicode/norm"

	"github.com/previewd/previewd"
)

// gathered is a folder's files, ready to be sent, and what was left out.
type gathered struct {
	files   previewd.Files
	ignored int // by .gitignore, and what no project needs
	secrets int // .env files stay on this machine
	links   int
}

// Folders and files that belong to tools, not to a project.
var neverSent = map[string]bool{".git": true, ".hg": true, ".svn": true, "node_modules": true, ".DS_Store": true, "previewd-data": true}

// maxSend bounds what is read into memory; the server says so more exactly.
const maxSend = 64 << 20

// filesIn reads a folder that a command was given, and tells what it sends; "" is none.
func (e *env) filesIn(dir string) (previewd.Files, error) {
	if dir == "" {
		return nil, nil
	}
	g, err := gather(dir)
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(e.streams.Err, g.summary(dir))
	return g.files, nil
}

// gather reads a folder. It honours .gitignore files at every level and does
// not follow links.
func gather(dir string) (*gathered, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	g := &gathered{files: previewd.Files{}}
	var patterns []gitignore.Pattern
	var total int64
	err = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		slash := filepath.ToSlash(rel)
		if slash != "." && (neverSent[entry.Name()] || gitignore.NewMatcher(patterns).Match(strings.Split(slash, "/"), entry.IsDir())) {
			g.ignored++
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		switch {
		case entry.IsDir():
			more, err := readIgnore(name, slash)
			patterns = append(patterns, more...)
			return err
		case !entry.Type().IsRegular():
			g.links++
			return nil
		case strings.HasPrefix(path.Base(slash), ".env"):
			g.secrets++
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if total += info.Size(); total > maxSend {
			return fmt.Errorf("%s holds more than %s: name a smaller folder, or put what is not needed into .gitignore", dir, bytesText(maxSend))
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		// Some systems store names decomposed; on the wire they are composed.
		g.files[norm.NFC.String(slash)] = content
		return nil
	})
	if err == nil && len(g.files) == 0 {
		err = fmt.Errorf("%s holds no files to send", dir)
	}
	return g, err
}

// readIgnore reads a folder's .gitignore; its rules hold below the folder.
func readIgnore(dir, slash string) ([]gitignore.Pattern, error) {
	f, err := os.Open(filepath.Join(dir, ".gitignore"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var domain []string
	if slash != "." {
		domain = strings.Split(slash, "/")
	}
	var patterns []gitignore.Pattern
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if line := strings.TrimRight(lines.Text(), " \r"); line != "" && !strings.HasPrefix(line, "#") {
			patterns = append(patterns, gitignore.ParsePattern(line, domain))
		}
	}
	return patterns, lines.Err()
}

func (g *gathered) summary(dir string) string {
	text := fmt.Sprintf("sending %d files, %s, from %s", len(g.files), bytesText(g.files.Size()), displayPath(dir))
	var left []string
	for _, item := range []struct {
		n    int
		what string
	}{{g.ignored, "ignored"}, {g.secrets, ".env files"}, {g.links, "links or special files"}} {
		if item.n > 0 {
			left = append(left, fmt.Sprintf("%d %s", item.n, item.what))
		}
	}
	if len(left) > 0 {
		text += " (left out: " + strings.Join(left, ", ") + ")"
	}
	return text
}

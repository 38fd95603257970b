package runner

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/previewd/previewd"
)

// sourceTree is what the choice of a runner, and the bundler, need to know of a
// tree before they look into its source.
type sourceTree struct {
	files       []string // every regular file, in lexical order
	pages       []page   // the HTML files that are part of the site's source
	config      treeConfig
	buildScript string // scripts.build of package.json
	modules     bool   // there is a node_modules
	fallback    string // file that answers unknown paths; "" for none
}

type page struct {
	path    string
	source  []byte
	modules []moduleScript // that it loads; nil when an import map finds them
}

// treeConfig is previewd.json at the root of a tree. All members are optional.
type treeConfig struct {
	Runner   string `json:"runner"`   // overrides the choice
	Fallback string `json:"fallback"` // single-page app: the file that answers unknown paths
}

const (
	configFile   = "previewd.json"
	maxJSONFile  = 1 << 20
	maxPageBytes = 8 << 20
)

// readTree reads the outline of a tree. The failure is the author's to mend.
func readTree(fsys fs.FS) (*sourceTree, *previewd.Failure) {
	t := &sourceTree{}
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if entry.Name() == "node_modules" || entry.Name() == ".git" {
				t.modules = t.modules || entry.Name() == "node_modules"
				return fs.SkipDir
			}
			return nil
		}
		t.files = append(t.files, name)
		if !entry.Type().IsRegular() || path.Ext(name) != ".html" || strings.HasPrefix(name, "public/") {
			return nil
		}
		source, err := readLimited(fsys, name, maxPageBytes)
		t.pages = append(t.pages, page{name, source, moduleScripts(source)})
		return err
	})
	if err != nil {
		return nil, badConfig("", fmt.Sprintf("The tree cannot be read: %v.", err))
	}
	if failure := t.readConfig(fsys); failure != nil {
		return nil, failure
	}
	return t, t.readPackage(fsys)
}

func badConfig(file, message string) *previewd.Failure {
	return &previewd.Failure{
		Class: previewd.FailureUser, Code: previewd.FailBadConfig, Step: previewd.StepBuild, File: file, Message: message,
	}
}

func (t *sourceTree) readConfig(fsys fs.FS) *previewd.Failure {
	raw, err := readLimited(fsys, configFile, maxJSONFile)
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&t.config); err != nil {
			return badConfig(configFile, fmt.Sprintf("%s is not valid: %v.", configFile, err))
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return badConfig(configFile, err.Error())
	}
	switch t.config.Runner {
	case "", runnerStatic, runnerBundle:
	default:
		return badConfig(configFile, fmt.Sprintf("runner %q is not known: it is static or bundle.", t.config.Runner))
	}
	t.fallback = t.findFallback(fsys)
	return nil
}

// findFallback looks where authors say that a site is a single-page app: in
// previewd.json, in a file called 200.html, or in a catch-all rule of _redirects.
func (t *sourceTree) findFallback(fsys fs.FS) string {
	if t.config.Fallback != "" {
		return strings.TrimPrefix(t.config.Fallback, "/")
	}
	for _, dir := range []string{"", "public/"} {
		if t.has(dir + "200.html") {
			return "200.html"
		}
		rules, err := readLimited(fsys, dir+"_redirects", maxJSONFile)
		if err != nil {
			continue
		}
		for rule := range strings.Lines(string(rules)) {
			f := strings.Fields(rule)
			if len(f) >= 3 && f[0] == "/*" && strings.HasPrefix(f[2], "200") {
				return strings.TrimPrefix(f[1], "/")
			}
		}
	}
	return ""
}

func (t *sourceTree) readPackage(fsys fs.FS) *previewd.Failure {
	raw, err := readLimited(fsys, "package.json", maxJSONFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var manifest struct {
		Scripts map[string]string `json:"scripts"`
	}
	if err == nil {
		err = json.Unmarshal(raw, &manifest)
	}
	if err != nil {
		return badConfig("package.json", fmt.Sprintf("package.json is not valid: %v.", err))
	}
	t.buildScript = manifest.Scripts["build"]
	return nil
}

func (t *sourceTree) has(name string) bool {
	for _, file := range t.files {
		if file == name {
			return true
		}
	}
	return false
}

func readLimited(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return raw, err
}

package runner

import (
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
	files   []string // every regular file, in lexical order
	pages   []page   // the HTML files that are part of the site's source
	modules bool     // there is a node_modules
}

type page struct {
	path    string
	source  []byte
	modules []moduleScript // that it loads; nil when an import map finds them
}

const (
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
	return t, nil
}

func badConfig(file, message string) *previewd.Failure {
	return &previewd.Failure{
		Class: previewd.FailureUser, Code: previewd.FailBadConfig, Step: previewd.StepBuild, File: file, Message: message,
	}
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

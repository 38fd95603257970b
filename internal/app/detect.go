package app

import (
	"os"
	"path/filepath"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/detect"
	"github.com/previewd/previewd/internal/runner"
)

// Detect returns the plan of the tree in a folder of one's own. The request is
// metadata.build, as JSON, or nil.
func Detect(dir string, request []byte) (*previewd.Plan, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return detect.Detect(root.FS(), detect.Options{
		Request: request,
		Choose:  func(named, from string) (string, string, *previewd.Failure) { return runner.Choose(dir, named, from) },
	}), nil
}

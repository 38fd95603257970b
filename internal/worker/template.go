package worker

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"

	"github.com/previewd/previewd"
)

//go:embed templates
var templateFS embed.FS

type builtinTemplate struct {
	previewd.Template
	files previewd.Files
}

// loadTemplates reads the embedded templates, by name.
func loadTemplates() ([]builtinTemplate, error) {
	dirs, err := fs.ReadDir(templateFS, "templates")
	if err != nil {
		return nil, err
	}
	var templates []builtinTemplate
	for _, dir := range dirs {
		t, err := loadTemplate("templates/" + dir.Name())
		if err != nil {
			return nil, fmt.Errorf("cannot read template %s: %w", dir.Name(), err)
		}
		templates = append(templates, t)
	}
	return templates, nil
}

func loadTemplate(dir string) (t builtinTemplate, err error) {
	about, err := templateFS.ReadFile(dir + "/template.json")
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(about, &t.Template); err != nil {
		return t, err
	}
	t.files = previewd.Files{}
	root := dir + "/files/"
	err = fs.WalkDir(templateFS, dir+"/files", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := templateFS.ReadFile(name)
		t.files[strings.TrimPrefix(name, root)] = content
		return err
	})
	t.Files, t.Bytes = len(t.files), t.files.Size()
	return t, err
}

// ListTemplates implements previewd.Worker.
func (s *Service) ListTemplates(context.Context) ([]previewd.Template, error) {
	var list []previewd.Template
	for _, t := range s.templates {
		list = append(list, t.Template)
	}
	return list, nil
}

func (s *Service) findTemplate(name string) (builtinTemplate, error) {
	for _, t := range s.templates {
		if t.Name == name {
			return t, nil
		}
	}
	return builtinTemplate{}, invalid("metadata.template names no built-in template.",
		fmt.Sprintf("%q; there are: %s", name, strings.Join(s.templateNames(), ", ")))
}

func (s *Service) templateNames() []string {
	var names []string
	for _, t := range s.templates {
		names = append(names, t.Name)
	}
	return names
}

package httpx

import (
	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
)

// TemplateFiles keeps the files as they were sent until a handler reads them,
// so that a bad value gets our words and not the decoder's.
type TemplateFiles struct{ raw []byte }

// UnmarshalJSON implements json.Unmarshaler.
func (f *TemplateFiles) UnmarshalJSON(raw []byte) error {
	f.raw = append([]byte(nil), raw...)
	return nil
}

// Schema implements huma.SchemaProvider.
func (TemplateFiles) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeObject, AdditionalProperties: true,
		Description: "Content by path. A string is UTF-8 text; {content, encoding: \"utf-8\" | \"base64\"} is a file; " +
			"any other JSON under a path that ends in .json is written as JSON. May be empty when metadata.template names a template.",
		Examples: []any{map[string]any{"index.html": "<h1>Hello</h1>"}},
	}
}

// RepairBody says how the tree of a failed build is to be changed.
type RepairBody struct {
	Prompt        string        `json:"prompt,omitempty" doc:"What the repair is about; that of the build when it is left out. At most 32 KiB."`
	TemplateFiles TemplateFiles `json:"templateFiles,omitempty" doc:"Files that are laid over the build's tree."`
	Remove        []string      `json:"remove,omitempty" nullable:"false" maxItems:"10000" doc:"Paths of the build's tree that are to go."`
}

// Files returns what was sent. It returns CodeInvalid for a bad value.
func (f TemplateFiles) Files() (previewd.Files, error) {
	if f.raw == nil {
		return nil, nil
	}
	var files previewd.Files
	err := files.UnmarshalJSON(f.raw)
	return files, err
}

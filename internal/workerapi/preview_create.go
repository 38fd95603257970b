package workerapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

type createPreviewInput struct {
	KeyInput
	Body createPreviewBody
}

type createPreviewBody struct {
	UserID        string         `json:"userId" doc:"Who the project belongs to." minLength:"1" maxLength:"128"`
	ProjectID     string         `json:"projectId,omitempty" doc:"Refused, unless the token may bring ids of its own: ids are made here. For older clients only." deprecated:"true"`
	Prompt        string         `json:"prompt,omitempty" doc:"What the user asked for. Stored, shown, and given to the template as data; at most 32 KiB."`
	TemplateFiles templateFiles  `json:"templateFiles,omitempty"`
	Metadata      map[string]any `json:"metadata,omitempty" doc:"At most 16 KiB. template names a built-in template; build.env gives VITE_* values to the build; the rest is kept for you."`
}

// templateFiles keeps the files as they were sent until a handler reads them,
// so that a bad value gets our words and not the decoder's.
type templateFiles struct{ raw []byte }

// UnmarshalJSON implements json.Unmarshaler.
func (f *templateFiles) UnmarshalJSON(raw []byte) error {
	f.raw = append([]byte(nil), raw...)
	return nil
}

// Schema implements huma.SchemaProvider.
func (templateFiles) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeObject, AdditionalProperties: true,
		Description: "Content by path. A string is UTF-8 text; {content, encoding: \"utf-8\" | \"base64\"} is a file; " +
			"any other JSON under a path that ends in .json is written as JSON. May be empty when metadata.template names a template.",
		Examples: []any{map[string]any{"index.html": "<h1>Hello</h1>"}},
	}
}

func (f templateFiles) files() (previewd.Files, error) {
	if f.raw == nil {
		return nil, nil
	}
	var files previewd.Files
	err := files.UnmarshalJSON(f.raw)
	return files, err
}

type createPreviewOutput struct {
	Status   int
	Location string `header:"Location"`
	ReplayOutput
	Deprecation string `header:"Deprecation" doc:"Present when the client's own id was taken: RFC 9745."`
	Body        *previewd.Preview
}

// legacySince is when ids of clients became deprecated (RFC 9745 §2.1).
const legacySince = "@1767225600" // 2026-01-01

func (s *Server) createPreview(ctx context.Context, in *createPreviewInput) (*createPreviewOutput, error) {
	files, err := in.Body.TemplateFiles.files()
	if err != nil {
		return nil, err
	}
	preview, err := s.Worker.CreatePreview(ctx, previewd.CreatePreviewRequest{
		UserID: in.Body.UserID, ProjectID: in.Body.ProjectID, Prompt: in.Body.Prompt,
		TemplateFiles: files, Metadata: in.Body.Metadata,
		IdempotencyKey: in.key, Caller: httpx.CallerOf(ctx),
	})
	if err != nil {
		return nil, err
	}
	out := &createPreviewOutput{
		Status: http.StatusCreated, Location: "/v1/projects/" + preview.ProjectID,
		ReplayOutput: replayOf(preview.Replay), Body: preview,
	}
	if preview.Replayed == previewd.ReplayedWindow || preview.Replayed == previewd.ReplayedResource {
		out.Status = http.StatusOK
	}
	if preview.IDGenerationSource == previewd.IDSourceClient {
		out.Deprecation = legacySince
	}
	return out, nil
}

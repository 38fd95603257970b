package workerapi

import (
	"context"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

type createPreviewInput struct {
	IdempotencyKey string `header:"Idempotency-Key" doc:"Makes the request safe to repeat."`
	Body           createPreviewBody
}

type createPreviewBody struct {
	UserID        string         `json:"userId" doc:"Who the project belongs to." minLength:"1" maxLength:"128"`
	ProjectID     string         `json:"projectId,omitempty" doc:"Refused: ids are made here. Known for older clients."`
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
	Location string `header:"Location"`
	Replayed string `header:"Idempotent-Replayed" doc:"true when an earlier request with the key made the project."`
	Body     *previewd.Preview
}

func (s *Server) createPreview(ctx context.Context, in *createPreviewInput) (*createPreviewOutput, error) {
	files, err := in.Body.TemplateFiles.files()
	if err != nil {
		return nil, err
	}
	key, err := parseKey(in.IdempotencyKey)
	if err != nil {
		return nil, err
	}
	preview, err := s.Worker.CreatePreview(ctx, previewd.CreatePreviewRequest{
		UserID: in.Body.UserID, ProjectID: in.Body.ProjectID, Prompt: in.Body.Prompt,
		TemplateFiles: files, Metadata: in.Body.Metadata,
		IdempotencyKey: key, Caller: httpx.CallerOf(ctx),
	})
	if err != nil {
		return nil, err
	}
	out := &createPreviewOutput{Location: "/v1/projects/" + preview.ProjectID, Body: preview}
	if preview.Replayed {
		out.Replayed = "true"
	}
	return out, nil
}

var keyGrammar = regexp.MustCompile(`^[A-Za-z0-9._:-]{16,128}$`)

// parseKey reads an Idempotency-Key: a structured-field string (RFC 9651
// §3.3.3), or the bare token that many clients send.
func parseKey(header string) (string, error) {
	if header == "" {
		return "", nil
	}
	key := header
	if unquoted, ok := strings.CutPrefix(header, `"`); ok {
		if unquoted, ok = strings.CutSuffix(unquoted, `"`); ok {
			key = unquoted
		}
	}
	if !keyGrammar.MatchString(key) {
		return "", &previewd.Error{
			Code: previewd.CodeKeyInvalid, Message: "Idempotency-Key must be 16 to 128 of A-Z a-z 0-9 . _ : -",
		}
	}
	return key, nil
}

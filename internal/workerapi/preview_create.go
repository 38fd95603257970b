package workerapi

import (
	"context"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/telemetry"
)

type createPreviewInput struct {
	httpx.KeyInput
	Body createPreviewBody
}

type createPreviewBody struct {
	UserID        string              `json:"userId" doc:"Who the project belongs to." minLength:"1" maxLength:"128"`
	ProjectID     string              `json:"projectId,omitempty" doc:"Refused, unless the token may bring ids of its own: ids are made here. For older clients only." deprecated:"true"`
	Prompt        string              `json:"prompt,omitempty" doc:"What the user asked for. Stored, shown, and given to the template as data; at most 32 KiB."`
	TemplateFiles httpx.TemplateFiles `json:"templateFiles,omitempty"`
	Metadata      map[string]any      `json:"metadata,omitempty" doc:"At most 16 KiB. template names a built-in template; build.env gives VITE_* values to the build; the rest is kept for you."`
}

type createPreviewOutput struct {
	Status   int
	Location string `header:"Location"`
	httpx.ReplayOutput
	Deprecation string `header:"Deprecation" doc:"Present when the client's own id was taken: RFC 9745."`
	Body        *previewd.Preview
}

// legacySince is when ids of clients became deprecated (RFC 9745 §2.1).
const legacySince = "@1767225600" // 2026-01-01

func (s *Server) createPreview(ctx context.Context, in *createPreviewInput) (*createPreviewOutput, error) {
	httpx.Note(ctx, telemetry.UserID, in.Body.UserID)
	files, err := in.Body.TemplateFiles.Files()
	if err != nil {
		return nil, err
	}
	preview, err := s.Worker.CreatePreview(ctx, previewd.CreatePreviewRequest{
		UserID: in.Body.UserID, ProjectID: in.Body.ProjectID, Prompt: in.Body.Prompt,
		TemplateFiles: files, Metadata: in.Body.Metadata,
		IdempotencyKey: in.Key(), Caller: httpx.CallerOf(ctx),
	})
	if err != nil {
		return nil, err
	}
	out := &createPreviewOutput{
		Status: httpx.CreatedStatus(preview.Replay), Location: "/v1/projects/" + preview.ProjectID,
		ReplayOutput: httpx.ReplayOf(preview.Replay), Body: preview,
	}
	if preview.IDGenerationSource == previewd.IDSourceClient {
		out.Deprecation = legacySince
	}
	return out, nil
}

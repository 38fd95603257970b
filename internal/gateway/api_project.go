package gateway

import (
	"context"
	"net/http"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

func requestOf(ctx context.Context, key string) Request {
	return Request{User: httpx.UserOf(ctx), IdempotencyKey: key, RequestID: httpx.RequestID(ctx)}
}

type createProjectInput struct {
	httpx.KeyInput
	Body createProjectBody
}

type createProjectBody struct {
	Name          string              `json:"name,omitempty" doc:"Unique among your projects, whatever the case of its letters. Default: made of the prompt's first words." example:"Tide clock"`
	Prompt        string              `json:"prompt,omitempty" doc:"What the user asked for. Stored, shown, and given to the template as data; at most 32 KiB." example:"A clock that shows the tide"`
	Template      string              `json:"template,omitempty" doc:"Name of a built-in template; files are laid over it." example:"landing"`
	TemplateFiles httpx.TemplateFiles `json:"templateFiles,omitempty"`
	Metadata      map[string]any      `json:"metadata,omitempty" doc:"At most 16 KiB. build.env gives VITE_* values to the build; the rest is kept for you."`
}

type creationOutput struct {
	Status     int
	Location   string `header:"Location"`
	RetryAfter string `header:"Retry-After" doc:"With 202: seconds after which to ask what has become of the intent."`
	httpx.ReplayOutput
	Body *previewd.AppCreation
}

// creationOf answers 202 with what is still under way.
func creationOf(answer *previewd.AppCreation) *creationOutput {
	out := &creationOutput{Status: httpx.CreatedStatus(answer.Replay), ReplayOutput: httpx.ReplayOf(answer.Replay), Body: answer}
	if answer.Intent != nil {
		out.Status, out.Location, out.RetryAfter = http.StatusAccepted, "/api/intents/"+answer.Intent.ID, "1"
	}
	return out
}

func (a *API) createProject(ctx context.Context, in *createProjectInput) (*creationOutput, error) {
	files, err := in.Body.TemplateFiles.Files()
	if err != nil {
		return nil, err
	}
	answer, err := a.Service.CreateProject(ctx, requestOf(ctx, in.Key()), CreateProject{
		Name: in.Body.Name, Prompt: in.Body.Prompt, Template: in.Body.Template, TemplateFiles: files, Metadata: in.Body.Metadata,
	})
	if err != nil {
		return nil, err
	}
	out := creationOf(answer)
	if answer.Project != nil {
		out.Location = "/api/projects/" + answer.Project.ID
	}
	return out, nil
}

type output[T any] struct{ Body T }

func (a *API) listProjects(ctx context.Context, in *httpx.PageInput) (*output[*previewd.AppProjectPage], error) {
	page, err := a.Service.ListProjects(ctx, httpx.UserOf(ctx).ID, in.Page())
	return &output[*previewd.AppProjectPage]{page}, err
}

type projectInput struct {
	ProjectID string `path:"projectId"`
}

func (a *API) getProject(ctx context.Context, in *projectInput) (*output[*previewd.AppProject], error) {
	p, err := a.Service.FindProject(ctx, httpx.UserOf(ctx).ID, in.ProjectID)
	return &output[*previewd.AppProject]{p}, err
}

type updateProjectInput struct {
	ProjectID string `path:"projectId"`
	Body      struct {
		Name string `json:"name" doc:"The new name." example:"Tide clock"`
	}
}

func (a *API) updateProject(ctx context.Context, in *updateProjectInput) (*output[*previewd.AppProject], error) {
	p, err := a.Service.RenameProject(ctx, requestOf(ctx, ""), in.ProjectID, in.Body.Name)
	return &output[*previewd.AppProject]{p}, err
}

type deleteOutput struct{ Status int }

func (a *API) deleteProject(ctx context.Context, in *projectInput) (*deleteOutput, error) {
	done, err := a.Service.DeleteProject(ctx, requestOf(ctx, ""), in.ProjectID)
	if err != nil {
		return nil, err
	}
	if !done {
		return &deleteOutput{http.StatusAccepted}, nil
	}
	return &deleteOutput{http.StatusNoContent}, nil
}

type listVersionsInput struct {
	httpx.PageInput
	ProjectID string `path:"projectId"`
}

func (a *API) listVersions(ctx context.Context, in *listVersionsInput) (*output[*previewd.VersionPage], error) {
	page, err := a.Service.ListVersions(ctx, httpx.UserOf(ctx).ID, in.ProjectID, in.Page())
	return &output[*previewd.VersionPage]{page}, err
}

type activateVersionInput struct {
	httpx.KeyInput
	ProjectID string `path:"projectId"`
	Number    int64  `path:"number" minimum:"1"`
}

func (a *API) activateVersion(ctx context.Context, in *activateVersionInput) (*output[*previewd.Version], error) {
	v, err := a.Service.ActivateVersion(ctx, requestOf(ctx, ""), in.ProjectID, in.Number)
	return &output[*previewd.Version]{v}, err
}

type templateList struct {
	Templates []previewd.Template `json:"templates" nullable:"false"`
}

func (a *API) listTemplates(ctx context.Context, _ *struct{}) (*output[templateList], error) {
	list, err := a.Service.Worker.ListTemplates(ctx)
	return &output[templateList]{templateList{list}}, err
}

// Package workerapi is the worker's HTTP API, /v1.
package workerapi

import (
	_ "embed"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
)

// Config is everything a Server needs.
type Config struct {
	Worker  previewd.Worker
	Streams *httpx.Streams
	Callers httpx.Callers
	Version string
}

// Server answers /v1.
type Server struct {
	Config
	api huma.API
}

// Register puts the API's routes on the mux.
func Register(mux *http.ServeMux, cfg Config) *Server {
	api := httpx.NewAPI(mux, httpx.APIConfig{
		Title: "previewd worker", Version: cfg.Version, Description: description, Security: httpx.ServiceSecurity(),
	})
	s := &Server{Config: cfg, api: api}
	api.UseMiddleware(httpx.RequireService(api, cfg.Callers))
	s.routes(api)
	mux.Handle("GET /docs", httpx.Docs(api.OpenAPI()))
	return s
}

// OpenAPI returns the API's description, version 3.1, as YAML.
func (s *Server) OpenAPI() ([]byte, error) { return s.api.OpenAPI().YAML() }

//go:embed description.md
var description string

// routes lists all routes, each with the scope that a token needs for it.
func (s *Server) routes(api huma.API) {
	const (
		get, post = http.MethodGet, http.MethodPost
		put       = http.MethodPut
		remove    = http.MethodDelete
		any       = httpx.Anyone
		read      = httpx.ProjectsRead
		write     = httpx.ProjectsWrite
		events    = httpx.EventsRead
		operate   = httpx.Operate
	)
	httpx.Route(api, write, httpx.Creates(op(post, "/v1/create-preview-for-new-project", "create-preview", "Create a project and its first build")), s.createPreview)
	httpx.Route(api, write, httpx.Creates(op(post, "/v1/projects/{projectId}/builds", "create-build", "Create the next build of a project")), s.createBuild)
	httpx.Route(api, write, op(post, "/v1/builds/{buildId}/cancel", "cancel-build", "End a build"), s.cancelBuild)
	httpx.Route(api, read, op(get, "/v1/operations", "find-operation", "Tell what became of an idempotency key"), s.findOperation)
	httpx.Route(api, read, op(get, "/v1/projects", "list-projects", "List projects, newest first"), s.listProjects)
	httpx.Route(api, read, op(get, "/v1/projects/{projectId}", "get-project", "Read a project"), s.getProject)
	httpx.Route(api, write, op(remove, "/v1/projects/{projectId}", "delete-project", "Delete a project with all that belongs to it"), s.deleteProject)
	httpx.Route(api, read, op(get, "/v1/builds/{buildId}", "get-build", "Read a build, or wait for it to change"), s.getBuild)
	httpx.Route(api, read, op(get, "/v1/builds/{buildId}/failure", "get-failure", "Read what mending a failed build takes"), s.getFailure)
	httpx.Route(api, read, op(get, "/v1/builds/{buildId}/packages", "list-packages", "List the npm packages that a build was made with"), s.listPackages)
	httpx.Route(api, write, httpx.Creates(op(post, "/v1/builds/{buildId}/repair", "repair-build", "Create the next build of a project from a failed build's tree, with changes")), s.repairBuild)
	httpx.Route(api, events, s.buildStream(), s.streamBuildEvents)
	httpx.Route(api, read, httpx.LogText(op(get, "/v1/builds/{buildId}/log", "read-build-log", "Read a build's log from a byte offset")), s.readLog)
	httpx.Route(api, read, op(get, "/v1/projects/{projectId}/versions", "list-versions", "List a project's versions, newest first"), s.listVersions)
	httpx.Route(api, write, op(post, "/v1/projects/{projectId}/versions/{number}/activate", "activate-version", "Make a version the current one"), s.activateVersion)
	httpx.Route(api, read, op(get, "/v1/projects/{projectId}/env", "list-env", "List the variables of a project's builds, without secrets"), s.listEnv)
	httpx.Route(api, write, op(put, "/v1/projects/{projectId}/env/{name}", "set-env", "Set a variable of a project's builds"), s.setEnv)
	httpx.Route(api, write, op(remove, "/v1/projects/{projectId}/env/{name}", "delete-env", "Remove a variable of a project's builds"), s.deleteEnv)
	httpx.Route(api, operate, op(get, "/v1/integrity", "check-integrity", "Look whether every promise holds"), s.checkIntegrity)
	httpx.Route(api, events, s.feed(), s.listEvents)
	httpx.Route(api, any, op(get, "/v1/templates", "list-templates", "List the built-in templates"), s.listTemplates)
}

func op(method, path, id, summary string) huma.Operation {
	return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{"worker"}}
}

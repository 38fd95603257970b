package gateway

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/webhook"
)

// APIConfig is everything that /api needs.
type APIConfig struct {
	Service *Service
	Verify  httpx.VerifyUser
	Denials *Denials
	Streams *httpx.Streams
	Hooks   *webhook.Service

	References References
	Version    string
	Recheck    time.Duration // how often it is looked up whether what a user follows is still the user's; default 1 min
	Alone      bool          // no other API is on the mux: the description is also where that of a server is looked for
}

// References knows what reference ids name.
type References interface {
	// FindReference returns CodeNotFound for one that is not known.
	FindReference(ctx context.Context, ref string) (*previewd.ReferenceInfo, error)
}

// API answers /api.
type API struct {
	APIConfig
	api huma.API
}

//go:embed description.md
var description string

// Register puts the API's routes on the mux.
func Register(mux *http.ServeMux, cfg APIConfig) *API {
	setDefault(&cfg.Recheck, time.Minute)
	a := &API{APIConfig: cfg}
	a.api = httpx.NewAPI(mux, httpx.APIConfig{
		Title: "previewd gateway", Version: cfg.Version, Description: description + statusTable(), Path: "/api/openapi", Security: httpx.UserSecurity(),
	})
	a.api.OpenAPI().Extensions = map[string]any{"x-worker-status": statusMap()}
	a.api.UseMiddleware(httpx.RequireUser(a.api, httpx.UserAuth{Token: cfg.Verify, Ticket: a.takeTicket}))
	a.routes(a.api)
	mux.Handle("GET /api/docs", httpx.Docs(a.api.OpenAPI()))
	if cfg.Alone {
		mux.Handle("GET /docs", http.RedirectHandler("/api/docs", http.StatusFound))
		mux.Handle("GET /openapi.json", http.RedirectHandler("/api/openapi.json", http.StatusFound))
	}
	return a
}

// OpenAPI returns the API's description, version 3.1, as YAML.
func (a *API) OpenAPI() ([]byte, error) { return a.api.OpenAPI().YAML() }

func (a *API) routes(api huma.API) {
	const (
		get, post, patch, del = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
		put                   = http.MethodPut
		user                  = httpx.User
		operator              = httpx.Operator
	)
	httpx.Route(api, user, a.created("/api/projects", "create-project", "Create a project and its first build"), a.createProject)
	httpx.Route(api, user, op(get, "/api/projects", "list-projects", "List your projects, newest first"), a.listProjects)
	httpx.Route(api, user, op(get, "/api/projects/{projectId}", "get-project", "Read a project"), a.getProject)
	httpx.Route(api, user, op(patch, "/api/projects/{projectId}", "update-project", "Rename a project"), a.updateProject)
	httpx.Route(api, user, accepted(op(del, "/api/projects/{projectId}", "delete-project", "Delete a project, its builds and its preview")), a.deleteProject)
	httpx.Route(api, user, a.created("/api/projects/{projectId}/builds", "create-build", "Create the next build of a project"), a.createBuild)
	httpx.Route(api, user, op(get, "/api/projects/{projectId}/builds", "list-builds", "List a project's builds, newest first"), a.listBuilds)
	httpx.Route(api, user, op(get, "/api/projects/{projectId}/versions", "list-versions", "List a project's versions, newest first"), a.listVersions)
	httpx.Route(api, user, op(post, "/api/projects/{projectId}/versions/{number}/activate", "activate-version", "Make a version the current one"), a.activateVersion)
	httpx.Route(api, user, op(get, "/api/projects/{projectId}/env", "list-env", "List the variables of a project's builds, without secrets"), a.listEnv)
	httpx.Route(api, user, op(put, "/api/projects/{projectId}/env/{name}", "set-env", "Set a variable of a project's builds"), a.setEnv)
	httpx.Route(api, user, op(del, "/api/projects/{projectId}/env/{name}", "delete-env", "Remove a variable of a project's builds"), a.deleteEnv)
	httpx.Route(api, user, a.streamOp("/api/projects/{projectId}/events", "stream-project-events", "Follow a project", "the project as it is"), a.streamProject)
	httpx.Route(api, user, a.streamOp("/api/events", "stream-events", "Follow all your projects", "your newest projects"), a.streamUser)
	httpx.Route(api, user, a.ticketOp(), a.createTicket)
	httpx.Route(api, user, op(get, "/api/builds/{buildId}", "get-build", "Read a build, or wait for it to change"), a.getBuild)
	httpx.Route(api, user, op(post, "/api/builds/{buildId}/cancel", "cancel-build", "End a build"), a.cancelBuild)
	httpx.Route(api, user, op(get, "/api/builds/{buildId}/failure", "get-failure", "Read what mending a failed build takes"), a.getFailure)
	httpx.Route(api, user, op(get, "/api/builds/{buildId}/packages", "list-packages", "List the npm packages that a build was made with"), a.listPackages)
	httpx.Route(api, user, a.created("/api/builds/{buildId}/repair", "repair-build", "Create the next build of a project from a failed build's tree, with changes"), a.repairBuild)
	httpx.Route(api, user, httpx.LogText(op(get, "/api/builds/{buildId}/log", "read-build-log", "Read a build's log from a byte offset")), a.readLog)
	httpx.Route(api, user, op(get, "/api/intents/{intentId}", "get-intent", "Read the state of a creation, or wait for it to end"), a.getIntent)
	httpx.Route(api, user, op(post, "/api/intents/{intentId}/cancel", "cancel-intent", "Take back a creation that is pending"), a.cancelIntent)
	httpx.Route(api, user, op(get, "/api/billing/sessions", "list-billing-sessions", "List what builds have cost, newest first"), a.listBilling)
	a.webhookRoutes(api)
	httpx.Route(api, user, op(get, "/api/templates", "list-templates", "List the built-in templates"), a.listTemplates)
	httpx.Route(api, operator, op(get, "/api/admin/intents", "list-intents", "List creations of all users by state"), a.listIntents)
	httpx.Route(api, operator, op(post, "/api/admin/intents/{intentId}/retry", "retry-intent", "Ask the worker about a creation now"), a.retryIntent)
	httpx.Route(api, operator, op(get, "/api/admin/attention", "list-attention", "List projects that need an operator, and events that could not be applied"), a.listAttention)
	httpx.Route(api, operator, op(post, "/api/admin/projects/{projectId}/settled", "settle-attention", "Say that a project needs nobody any more; events of it that could not be applied are tried again unless a later one was applied"), a.settleAttention)
	httpx.Route(api, operator, op(get, "/api/admin/references/{referenceId}", "find-reference", "Tell what a reference names"), a.findReference)
	httpx.Route(api, operator, op(get, "/api/admin/denied", "list-denied", "List whose tokens are refused"), a.listDenied)
	httpx.Route(api, operator, op(post, "/api/admin/denied", "deny", "Refuse a user's or a session's tokens from now on"), a.deny)
	httpx.Route(api, operator, op(del, "/api/admin/denied/{kind}/{subject}", "allow", "Take a refusal of tokens back"), a.allow)
}

func op(method, path, id, summary string) huma.Operation {
	tag := "gateway"
	if strings.HasPrefix(path, "/api/admin/") {
		tag = "admin"
	}
	return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary, Tags: []string{tag}}
}

func (a *API) created(path, id, summary string) huma.Operation {
	o := httpx.Creates(op(http.MethodPost, path, id, summary))
	schema := a.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[previewd.AppCreation](), true, "")
	o.Responses = map[string]*huma.Response{"202": {
		Description: "Stored, and not made yet: `intent` says where to follow it.", Content: map[string]*huma.MediaType{"application/json": {Schema: schema}},
	}}
	return o
}

// accepted is an operation that is done later when the worker cannot be reached.
func accepted(o huma.Operation) huma.Operation {
	o.Responses = map[string]*huma.Response{"202": {Description: "Stored, and done as soon as the worker can be reached."}}
	return o
}

// statusMap is how the app shows each of the worker's statuses.
func statusMap() map[string]string {
	m := map[string]string{}
	for _, s := range previewd.BuildStatuses() {
		if shown, err := s.ProjectStatus(); err == nil {
			m[string(s)] = string(shown)
		}
	}
	return m
}

// statusTable is statusMap for people.
func statusTable() string {
	var b strings.Builder
	b.WriteString("\n| worker | here |\n|---|---|\n")
	for _, s := range previewd.BuildStatuses() {
		shown, err := s.ProjectStatus()
		if err != nil {
			continue
		}
		note := ""
		if s == previewd.BuildCanceling {
			note = ", with `canceling: true`"
		}
		fmt.Fprintf(&b, "| `%s` | `%s`%s |\n", s, shown, note)
	}
	return b.String()
}

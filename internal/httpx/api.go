package httpx

import (
	"context"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/go-json-experiment/json"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/fault"
)

// APIConfig describes an API.
type APIConfig struct {
	Title       string
	Version     string
	Description string // Markdown
	Path        string // of its description, without .json; default /openapi
	Security    map[string]*huma.SecurityScheme
}

// NewAPI returns an API on the mux. Names, duplicates and UTF-8 in JSON are
// taken strictly.
func NewAPI(mux *http.ServeMux, cfg APIConfig) huma.API {
	useProblems()
	config := huma.DefaultConfig(cfg.Title, cfg.Version)
	config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", nil
	config.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	config.Info.Description = cfg.Description
	if cfg.Path != "" {
		config.OpenAPIPath = cfg.Path
	}
	config.Components.SecuritySchemes = cfg.Security
	strict := huma.Format{
		Marshal:   huma.DefaultJSONFormat.Marshal,
		Unmarshal: func(data []byte, v any) error { return json.Unmarshal(data, v) },
	}
	config.Formats = map[string]huma.Format{"application/json": strict, "json": strict}
	config.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	api := humago.New(mux, config)
	api.UseMiddleware(ignoreAccept)
	return api
}

type acceptKey struct{}

// ignoreAccept keeps from huma which forms of an answer a client would like: it
// would panic over some, after the work is done. Handlers ask Accepts.
func ignoreAccept(ctx huma.Context, next func(huma.Context)) {
	r, _ := humago.Unwrap(ctx)
	accept := strings.Join(r.Header.Values("Accept"), ",")
	r.Header.Del("Accept")
	next(huma.WithValue(ctx, acceptKey{}, accept))
}

// Accepts reports whether the client named the media type in Accept.
func Accepts(ctx context.Context, media string) bool {
	accept, _ := ctx.Value(acceptKey{}).(string)
	for one := range strings.SplitSeq(accept, ",") {
		if name, _, _ := strings.Cut(one, ";"); strings.EqualFold(strings.TrimSpace(name), media) {
			return true
		}
	}
	return false
}

// schemaName names schemas by their type, without the suffixes that tell our
// types apart.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	return strings.TrimSuffix(name, "Body")
}

// Access says who may call a route.
type Access int

// The kinds of callers. A route that services may call names the one scope that
// their token must have.
const (
	Anyone       Access = iota
	ProjectsRead        // a service token with this scope, as the next three
	ProjectsWrite
	EventsRead
	Operate
	User     // a user's token
	Operator // a user's token with the role of an operator
)

// The names of security schemes.
const (
	schemeService  = "service"
	schemeUser     = "user"
	schemeOperator = "operator"
)

// security returns the scheme by which a route lets callers in, with the scope
// that a service token needs for it; "" lets anyone in.
func (a Access) security() (scheme string, scopes []string) {
	switch a {
	case ProjectsRead:
		return schemeService, []string{string(previewd.ScopeProjectsRead)}
	case ProjectsWrite:
		return schemeService, []string{string(previewd.ScopeProjectsWrite)}
	case EventsRead:
		return schemeService, []string{string(previewd.ScopeEventsRead)}
	case Operate:
		return schemeService, []string{string(previewd.ScopeOperate)}
	case User:
		return schemeUser, []string{}
	case Operator:
		return schemeOperator, []string{}
	case Anyone:
	}
	return "", nil
}

func bearer(description string) *huma.SecurityScheme {
	return &huma.SecurityScheme{Type: "http", Scheme: "bearer", Description: description}
}

// ServiceSecurity is the security of an API for services.
func ServiceSecurity() map[string]*huma.SecurityScheme {
	return map[string]*huma.SecurityScheme{schemeService: bearer("A service token.")}
}

// Route registers a handler. Every error that it returns becomes a problem.
func Route[I, O any](api huma.API, access Access, op huma.Operation, handler func(context.Context, *I) (*O, error)) {
	describe(api, access, &op)
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		if err := fault.Point("http.request"); err != nil {
			return nil, NewProblem(ctx, err)
		}
		out, err := handler(ctx, in)
		if err == nil {
			err = fault.Point("http.answer")
		}
		if err != nil {
			p := NewProblem(ctx, err)
			logProblem(ctx, p)
			if headers := p.headers(); len(headers) > 0 {
				return nil, huma.ErrorWithHeaders(p, headers)
			}
			return nil, p
		}
		return out, nil
	})
}

// describe adds to an operation what all share.
func describe(api huma.API, access Access, op *huma.Operation) {
	if scheme, scopes := access.security(); scheme != "" {
		op.Security = []map[string][]string{{scheme: scopes}}
	}
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	problem := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	op.Responses["default"] = &huma.Response{
		Description: "Anything else is a problem (RFC 9457).",
		Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: problem}},
	}
}

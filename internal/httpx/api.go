package httpx

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
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

// The kinds of callers.
const (
	Anyone   Access = iota
	Service         // a service token
	User            // a user's token
	Operator        // a user's token with the role of an operator
)

var schemes = map[Access]string{Service: "service", User: "user", Operator: "operator"}

func bearer(description string) *huma.SecurityScheme {
	return &huma.SecurityScheme{Type: "http", Scheme: "bearer", Description: description}
}

// ServiceSecurity is the security of an API for services.
func ServiceSecurity() map[string]*huma.SecurityScheme {
	return map[string]*huma.SecurityScheme{"service": bearer("A service token.")}
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
	if scheme := schemes[access]; scheme != "" {
		op.Security = []map[string][]string{{scheme: {}}}
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

// Token is a service token: who may call and what the caller is.
type Token struct {
	Secret string
	Caller previewd.Caller
}

type callerKey struct{}

// CallerOf returns who sent the request that ctx belongs to.
func CallerOf(ctx context.Context) previewd.Caller {
	caller, _ := ctx.Value(callerKey{}).(previewd.Caller)
	caller.RequestID = RequestID(ctx)
	return caller
}

// RequireService lets a request pass that bears one of the tokens.
func RequireService(api huma.API, tokens []Token) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		if len(ctx.Operation().Security) == 0 {
			next(ctx)
			return
		}
		caller, ok := findCaller(tokens, ctx.Header("Authorization"))
		if !ok {
			ctx.SetHeader("WWW-Authenticate", "Bearer")
			_ = huma.WriteErr(api, ctx, http.StatusUnauthorized, "", unauthorized(ctx.Context()))
			return
		}
		next(huma.WithValue(ctx, callerKey{}, caller))
	}
}

// WithService lets requests pass that bear one of the tokens, for what is not
// part of an API's description.
func WithService(tokens []Token, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := findCaller(tokens, r.Header.Get("Authorization")); !ok {
			w.Header().Set("WWW-Authenticate", "Bearer")
			WriteProblem(w, r, unauthorized(r.Context()))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func unauthorized(ctx context.Context) *Problem {
	p := NewProblem(ctx, &previewd.Error{
		Code: previewd.CodeUnauthorized, Message: "Send a service token as Authorization: Bearer <token>.",
	})
	p.cause = errors.New("no known token")
	return p
}

// findCaller compares digests in constant time, so that neither a token's
// length nor its beginning can be found by timing.
func findCaller(tokens []Token, header string) (previewd.Caller, bool) {
	secret, ok := strings.CutPrefix(header, "Bearer ")
	if !ok {
		return previewd.Caller{}, false
	}
	got := sha256.Sum256([]byte(secret))
	for _, t := range tokens {
		want := sha256.Sum256([]byte(t.Secret))
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			return t.Caller, true
		}
	}
	return previewd.Caller{}, false
}

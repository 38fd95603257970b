package httpx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/telemetry"
)

type requestInfo struct {
	id       string
	method   string
	path     string
	trace    string
	log      *slog.Logger
	recorder Recorder // nil: nobody keeps problems

	mu    sync.Mutex
	notes map[string]string
}

type requestInfoKey struct{}

func requestInfoOf(ctx context.Context) *requestInfo {
	info, ok := ctx.Value(requestInfoKey{}).(*requestInfo)
	if !ok {
		return &requestInfo{log: slog.Default()}
	}
	return info
}

// RequestID returns the id of the request that ctx belongs to.
func RequestID(ctx context.Context) string { return requestInfoOf(ctx).id }

// Trace returns the traceparent (W3C Trace Context) that came with the request
// that ctx belongs to, "" when there was none.
func Trace(ctx context.Context) string { return requestInfoOf(ctx).trace }

// Ids that callers may give their requests: short and harmless in a log.
var requestID = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// WithRequest gives each request an id, the caller's X-Request-Id if it is
// harmless, and returns it. A panic becomes an internal problem.
func WithRequest(log *slog.Logger, next http.Handler, options ...RequestOption) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !requestID.MatchString(id) {
			id = previewd.NewRequestID()
		}
		w.Header().Set("X-Request-Id", id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		info := &requestInfo{id: id, method: r.Method, path: r.URL.Path, log: log}
		for _, option := range options {
			option(info)
		}
		if trace := r.Header.Get("traceparent"); len(trace) == 55 {
			w.Header().Set("traceparent", trace)
			info.trace = trace
		}
		r = r.WithContext(context.WithValue(r.Context(), requestInfoKey{}, info))
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			WriteProblem(w, r, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}()
		next.ServeHTTP(w, r)
	})
}

// logProblem writes what the answer does not show, and keeps the problem under
// its reference, once. What is the server's fault is an error, the rest is there
// for whoever is asked about a reference.
func logProblem(ctx context.Context, p *Problem) {
	if p.logged {
		return
	}
	p.logged = true
	info := requestInfoOf(ctx)
	info.record(p)
	level := slog.LevelDebug
	if p.Status >= 500 && !errors.Is(p.cause, context.Canceled) { // a client that has gone away is no fault
		level = slog.LevelError
	}
	info.log.Log(ctx, level, "request failed", telemetry.ReferenceID, p.ReferenceID, telemetry.Code, p.Code,
		telemetry.Status, p.Status, telemetry.RequestID, info.id, telemetry.Path, info.path, telemetry.Error, p.cause)
}

// WithExactPath answers 404 to a path with an empty segment or one of dots, which
// a mux would answer with a redirect, and to one that is no text, which PostgreSQL
// would refuse: no link of ours has such a path.
func WithExactPath(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := r.URL.EscapedPath()
		exact := path.Clean("/" + asked)
		if strings.HasSuffix(asked, "/") && exact != "/" {
			exact += "/"
		}
		if asked != exact || !utf8.ValidString(r.URL.Path) || strings.ContainsRune(r.URL.Path, 0) {
			WriteProblem(w, r, &previewd.Error{Code: previewd.CodeNotFound, Message: "There is no such route; /docs lists them."})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Fallback answers what no route of the mux takes: 405 with Allow when another
// method would have been taken, else 404.
func Fallback(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodPatch, http.MethodPut} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "/" && pattern != "" && method != r.Method {
				w.Header().Add("Allow", method)
			}
		}
		if allow := w.Header().Values("Allow"); len(allow) > 0 {
			WriteProblem(w, r, &previewd.Error{
				Code: previewd.CodeMethodNotAllowed, Message: "This route does not take " + r.Method + "; see Allow.",
			})
			return
		}
		WriteProblem(w, r, &previewd.Error{Code: previewd.CodeNotFound, Message: "There is no such route; /docs lists them."})
	})
}

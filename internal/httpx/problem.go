// Package httpx holds what all our HTTP servers share: how an error becomes an
// answer, streams, middleware and the API's description.
package httpx

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/previewd/previewd"
)

// Problem is the body of every answer that is not a success: RFC 9457, and the
// members that clients of the seed's error shape know.
type Problem struct {
	Type         string        `json:"type" doc:"urn:previewd:problem:<code>"`
	Title        string        `json:"title"`
	Status       int           `json:"status"`
	Detail       string        `json:"detail" doc:"One sentence for a person."`
	Instance     string        `json:"instance,omitempty" doc:"The path that was asked for."`
	Err          string        `json:"error" doc:"The same as detail."`
	Details      string        `json:"details,omitempty" doc:"The offending path, field or value."`
	ReferenceID  string        `json:"referenceId" doc:"Name this to whoever runs the server: the log has it too."`
	Timestamp    time.Time     `json:"timestamp"`
	Code         previewd.Code `json:"code" doc:"For programs."`
	Retryable    bool          `json:"retryable" doc:"The same request can succeed later."`
	RetryAfterMS int64         `json:"retryAfterMs,omitempty"`

	cause  error
	logged bool
	replay previewd.Replay
}

// headers are those that the answer has beside its body.
func (p *Problem) headers() http.Header {
	h := http.Header{}
	if p.RetryAfterMS > 0 {
		h.Set("Retry-After", strconv.FormatInt((p.RetryAfterMS+999)/1000, 10))
	}
	if p.replay.Replayed != "" {
		h.Set("Idempotent-Replayed", string(p.replay.Replayed))
		h.Set("Idempotent-Original-Request-Id", p.replay.OriginalRequestID)
	}
	return h
}

// Error implements error.
func (p *Problem) Error() string { return p.Detail }

// Unwrap returns what went wrong, for the log.
func (p *Problem) Unwrap() error { return p.cause }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// statusOf is the one table from code to status; the client reads it backwards.
var statusOf = map[previewd.Code]int{
	previewd.CodeInvalid:            http.StatusBadRequest,
	previewd.CodeInvalidPath:        http.StatusBadRequest,
	previewd.CodeClientIDNotAllowed: http.StatusBadRequest,
	previewd.CodeKeyInvalid:         http.StatusBadRequest,
	previewd.CodeKeyMissing:         http.StatusBadRequest,
	previewd.CodeUnauthorized:       http.StatusUnauthorized,
	previewd.CodeForbidden:          http.StatusForbidden,
	previewd.CodeNotFound:           http.StatusNotFound,
	previewd.CodeMethodNotAllowed:   http.StatusMethodNotAllowed,
	previewd.CodeConflict:           http.StatusConflict,
	previewd.CodeIDTaken:            http.StatusConflict,
	previewd.CodeBuildActive:        http.StatusConflict,
	previewd.CodeNotFailed:          http.StatusConflict,
	previewd.CodeBuildOutdated:      http.StatusConflict,
	previewd.CodeKeyInFlight:        http.StatusConflict,
	previewd.CodeQueueFull:          http.StatusTooManyRequests,
	previewd.CodeNameTaken:          http.StatusConflict,
	previewd.CodeQuotaExceeded:      http.StatusForbidden,
	previewd.CodeSpendCapReached:    http.StatusPaymentRequired,
	previewd.CodeLeaseLost:          http.StatusConflict,
	previewd.CodeBuildCanceling:     http.StatusConflict,
	previewd.CodeBuildFinished:      http.StatusConflict,
	previewd.CodeOffsetMismatch:     http.StatusConflict,
	previewd.CodeTooLarge:           http.StatusRequestEntityTooLarge,
	previewd.CodeKeyReused:          http.StatusUnprocessableEntity,
	previewd.CodeDiskFull:           http.StatusInsufficientStorage,
	previewd.CodeUnavailable:        http.StatusServiceUnavailable,
	previewd.CodeInternal:           http.StatusInternalServerError,
}

// NewProblem turns any error into the answer to a request. What has no code is
// internal: the answer shows the reference and nothing else.
func NewProblem(ctx context.Context, err error) *Problem {
	if p := (*Problem)(nil); errors.As(err, &p) {
		return p
	}
	e := &previewd.Error{}
	switch {
	case errors.As(err, &e):
	case ctx.Err() != nil:
		e = &previewd.Error{Code: previewd.CodeUnavailable, Message: "The request ended before its answer."}
	default:
		e = &previewd.Error{Code: previewd.CodeInternal}
	}
	status, known := statusOf[e.Code]
	if !known || e.Code == previewd.CodeInternal {
		status = http.StatusInternalServerError
		e = &previewd.Error{Code: previewd.CodeInternal, Message: "Something went wrong on the server. Name the reference to whoever runs it."}
	}
	p := newProblem(ctx, status, e.Code, e.Message)
	p.Details, p.cause = e.Details, err
	p.replay = e.Replay
	if e.ReferenceID != "" {
		p.ReferenceID = e.ReferenceID // of a stored refusal, which is the same each time
	}
	if !e.At.IsZero() {
		p.Timestamp = e.At.Truncate(time.Millisecond)
	}
	p.Retryable = e.RetryAfter > 0 || status >= 500
	p.RetryAfterMS = e.RetryAfter.Milliseconds()
	return p
}

func newProblem(ctx context.Context, status int, code previewd.Code, detail string) *Problem {
	info := requestInfoOf(ctx)
	return &Problem{
		Type:  "urn:previewd:problem:" + string(code),
		Title: http.StatusText(status), Status: status, Detail: detail, Err: detail, Instance: info.path,
		ReferenceID: previewd.NewReferenceID(), Timestamp: time.Now().UTC().Truncate(time.Millisecond), Code: code,
	}
}

// WriteProblem answers a request that no API handler saw.
func WriteProblem(w http.ResponseWriter, r *http.Request, err error) {
	p := NewProblem(r.Context(), err)
	logProblem(r.Context(), p)
	w.Header().Set("Content-Type", "application/problem+json")
	maps.Copy(w.Header(), p.headers())
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

// huma makes its own errors through package variables. They are set once, to
// the same functions for all APIs of the process.
var useProblems = sync.OnceFunc(func() {
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		p := humaProblem(ctx.Context(), status, msg, errs)
		logProblem(ctx.Context(), p)
		return p
	}
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(context.Background(), status, msg, errs)
	}
})

// humaProblem turns what huma found wrong with a request into a problem. It
// never repeats the value that was sent.
func humaProblem(ctx context.Context, status int, msg string, errs []error) *Problem {
	for _, err := range errs {
		if p := (*Problem)(nil); errors.As(err, &p) {
			return p
		}
	}
	if status >= 500 && errors.Is(errors.Join(errs...), errBody) {
		status, errs = http.StatusBadRequest, []error{errBody}
	}
	var details []string
	for _, err := range errs {
		if err == nil {
			continue
		}
		if d, ok := err.(huma.ErrorDetailer); ok {
			detail := d.ErrorDetail()
			details = append(details, strings.TrimPrefix(detail.Location+": "+detail.Message, ": "))
			continue
		}
		details = append(details, err.Error())
	}
	code := previewd.CodeInvalid
	switch {
	case status == http.StatusRequestEntityTooLarge:
		code, msg = previewd.CodeTooLarge, "The request's body is too large."
	case status == http.StatusUnprocessableEntity || status == http.StatusBadRequest:
		// 422 is kept for a key that was used for another request.
		status, msg = http.StatusBadRequest, "The request does not have the form that this route takes; see details."
	case status == http.StatusUnsupportedMediaType:
		msg = "Send application/json."
	case status >= 500:
		code, msg = previewd.CodeInternal, "Something went wrong on the server. Name the reference to whoever runs it."
	}
	p := newProblem(ctx, status, code, msg)
	p.Details = strings.Join(details, "; ")
	if status >= 500 {
		p.cause, p.Details = errors.Join(errs...), ""
	}
	return p
}

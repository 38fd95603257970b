package previewd

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Code says what kind of failure an Error is. Programs compare codes; people
// read messages. httpx holds the one table from code to HTTP status.
type Code string

// The codes of an Error. Failures of builds have codes of their own, see Failure.
const (
	CodeInvalid            Code = "invalid_request"
	CodeInvalidPath        Code = "invalid_path"
	CodeTooLarge           Code = "too_large"
	CodeUnauthorized       Code = "unauthorized"
	CodeForbidden          Code = "forbidden"
	CodeNotFound           Code = "not_found"
	CodeMethodNotAllowed   Code = "method_not_allowed"
	CodeConflict           Code = "conflict"
	CodeClientIDNotAllowed Code = "client_id_not_allowed"
	CodeIDTaken            Code = "project_id_taken"
	CodeBuildActive        Code = "build_active"
	CodeNotFailed          Code = "build_not_failed"
	CodeBuildOutdated      Code = "build_outdated"
	CodeQueueFull          Code = "queue_full"
	CodeNameTaken          Code = "name_taken"
	CodeQuotaExceeded      Code = "quota_exceeded"
	CodeSpendCapReached    Code = "spend_cap_reached"
	CodeKeyInvalid         Code = "idempotency_key_invalid"
	CodeKeyMissing         Code = "idempotency_key_missing"
	CodeKeyInFlight        Code = "idempotency_in_flight"
	CodeKeyReused          Code = "idempotency_key_reused"
	CodeLeaseLost          Code = "lease_lost"
	CodeBuildCanceling     Code = "build_canceling"
	CodeBuildFinished      Code = "build_finished"
	CodeOffsetMismatch     Code = "offset_mismatch"
	CodeDiskFull           Code = "disk_full"
	CodeUnavailable        Code = "unavailable"
	CodeInternal           Code = "internal"
)

// Error is a failure with a code for the program, a sentence for the person
// and a cause for the log.
type Error struct {
	Code       Code
	Message    string        // one sentence that says what to do
	Details    string        // optional: the offending path, field or value
	RetryAfter time.Duration // > 0 when trying again later can help
	Err        error         // optional: the cause, never shown outside

	ReferenceID string    // on what a server answered: names the failure in its log
	At          time.Time // of a refusal that was stored with its key
	Replay                // a refusal can be an answer that was given before
}

// Error returns the message, the details and the cause.
func (e *Error) Error() string {
	text := e.Message
	if e.Details != "" || e.Err != nil {
		text = strings.TrimSuffix(text, ".")
	}
	if e.Details != "" {
		text += " (" + e.Details + ")"
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrorCode returns the code of the first Error in err's chain, CodeInternal
// when there is none, and "" for nil.
func ErrorCode(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// NotFound says that a thing of this kind and id does not exist.
func NotFound(kind, id string) *Error {
	return &Error{Code: CodeNotFound, Message: "There is no such " + kind + ".", Details: kind + " " + id}
}

// ParseRetryAfter reads the header Retry-After (RFC 9110 §10.2.3): seconds or a
// date. 0 is none.
func ParseRetryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Duration(min(max(seconds, 0), 1<<30)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

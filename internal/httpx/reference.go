package httpx

import (
	"context"
	"errors"
	"strings"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/telemetry"
)

// Reference is a problem that was answered.
type Reference = previewd.Reference

// Recorder keeps the problems that are answered, to be found by their reference
// ids. Record must not block.
type Recorder interface {
	Record(ref Reference)
}

// RequestOption changes what WithRequest does.
type RequestOption func(*requestInfo)

// RecordTo keeps every problem that is answered.
func RecordTo(recorder Recorder) RequestOption {
	return func(info *requestInfo) { info.recorder = recorder }
}

// Note says whom or what a request is about, for its reference should it fail:
// telemetry.UserID, ProjectID or BuildID. Those in the path are known anyway.
func Note(ctx context.Context, key, value string) {
	info := requestInfoOf(ctx)
	info.mu.Lock()
	defer info.mu.Unlock()
	if info.notes == nil {
		info.notes = map[string]string{}
	}
	info.notes[key] = value
}

func (info *requestInfo) note(key string) string {
	info.mu.Lock()
	defer info.mu.Unlock()
	return clean(info.notes[key], maxReferenceText)
}

// How many bytes of a text are kept.
const (
	maxReferenceText  = 1 << 10
	maxReferenceCause = 4 << 10
)

// record keeps a problem. Of the request it keeps the path and ids only: no
// header, no query and no body.
func (info *requestInfo) record(p *Problem) {
	if info.recorder == nil {
		return
	}
	ref := Reference{
		ID: p.ReferenceID, Code: p.Code, Status: p.Status, Message: clean(p.Detail, maxReferenceText), Cause: clean(causeOf(p.cause), maxReferenceCause),
		Method: clean(info.method, 32), Path: clean(info.path, maxReferenceText), RequestID: info.id, TraceID: traceID(info.trace),
		UserID: info.note(telemetry.UserID), ProjectID: info.note(telemetry.ProjectID), BuildID: info.note(telemetry.BuildID),
		Role: previewd.RoleWorker, At: p.Timestamp,
	}
	if strings.HasPrefix(info.path, "/api/") {
		ref.Role = previewd.RoleGateway
	}
	segments := strings.Split(info.path, "/")
	for i, segment := range segments[1:] {
		if !previewd.IsID(segment) {
			continue
		}
		switch segments[i] {
		case "projects":
			ref.ProjectID = segment
		case "builds":
			ref.BuildID = segment
		}
	}
	info.recorder.Record(ref)
}

// causeOf returns what an answer does not show of an error. What has a code shows
// itself all but its cause; its details may be what somebody has sent.
func causeOf(err error) string {
	if e := (*previewd.Error)(nil); errors.As(err, &e) && e.Code != previewd.CodeInternal {
		err = e.Err
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

// traceID returns the trace id of a traceparent, or "".
func traceID(traceparent string) string {
	if len(traceparent) != 55 {
		return ""
	}
	id := traceparent[3:35]
	if strings.Trim(id, "0123456789abcdef") != "" || strings.Trim(id, "0") == "" {
		return ""
	}
	return id
}

// clean makes a text one that every database holds, and cuts it.
func clean(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.ToValidUTF8(text[:min(len(text), limit)], "") // what is left of a rune that was cut
	return strings.Map(previewd.Harmless, text)
}

// Package telemetry holds what logs, and later spans and metrics, have in
// common: the names of attributes and the logger.
package telemetry

import (
	"io"
	"log/slog"
)

// Names of attributes: the same in logs, spans and dashboards.
const (
	ProjectID          = "project_id"
	BuildID            = "build_id"
	IntentID           = "intent_id"
	UserID             = "user_id"
	CreatedByService   = "created_by_service"
	IDGenerationSource = "id_generation_source"
	ReferenceID        = "reference_id"
	RequestID          = "request_id"
	Principal          = "principal"
	Epoch              = "epoch"
	Status             = "status"
	Runner             = "runner"
	Code               = "code"
	Method             = "method"
	Path               = "path"
	Took               = "took"
	Error              = "error"
	WebhookEndpointID  = "webhook_endpoint_id"
	WebhookDeliveryID  = "webhook_delivery_id"
)

// NewLogger returns a logger that writes text, or JSON, to w.
func NewLogger(w io.Writer, level slog.Level, json bool) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if json {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

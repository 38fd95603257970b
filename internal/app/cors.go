package app

import (
	"net/http"
	"strings"

	"github.com/rs/cors"
)

// withCORS lets pages of other origins call /api. Users' tokens come in a header
// that such a page must set itself, so no origin gets anything without one.
func withCORS(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	shared := cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete},
		AllowedHeaders: []string{"Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-Id", "traceparent"},
		ExposedHeaders: []string{
			"Location", "Retry-After", "X-Request-Id", "Idempotent-Replayed", "Idempotent-Original-Request-Id", "Log-Next-Offset", "Log-Complete",
		},
		MaxAge: 600,
	}).Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			shared.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

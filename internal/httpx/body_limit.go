package httpx

import (
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/previewd/previewd"
)

// Bodies that are large enough to matter, and how many bytes of them may be
// worked on at once. A body of JSON takes several times its size in memory.
const (
	smallBody    = 1 << 20
	largeBodies  = 192 << 20
	unknownWeigh = 96 << 20
)

// WithBodyLimit answers 503 to large requests while others fill the memory
// that is set aside for them.
func WithBodyLimit(next http.Handler) http.Handler {
	room := semaphore.NewWeighted(largeBodies)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		weight := r.ContentLength
		if weight < 0 {
			weight = unknownWeigh
		}
		if weight <= smallBody {
			next.ServeHTTP(w, r)
			return
		}
		weight = min(weight, largeBodies)
		if !room.TryAcquire(weight) {
			WriteProblem(w, r, &previewd.Error{
				Code: previewd.CodeUnavailable, Message: "Other large requests are being worked on; try again.", RetryAfter: 2 * time.Second,
			})
			return
		}
		defer room.Release(weight)
		next.ServeHTTP(w, r)
	})
}

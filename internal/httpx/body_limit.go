package httpx

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sync/semaphore"

	"github.com/previewd/previewd"
)

// Bodies that are large enough to matter, and how many bytes of them may be
// worked on at once. A body of JSON takes several times its size in memory.
const (
	smallBody     = 1 << 20
	largeBodies   = 192 << 20
	maxCreateBody = 96 << 20 // of one; what does not say its size weighs as much
)

// Creates is an operation that answers 201, and takes the largest tree as base64
// in JSON from a slow line: huma's default of 5 s would cut it off.
func Creates(o huma.Operation) huma.Operation {
	o.DefaultStatus, o.MaxBodyBytes, o.BodyReadTimeout = http.StatusCreated, maxCreateBody, 2*time.Minute
	return o
}

// requestBody marks what goes wrong in reading it as the sender's fault.
type requestBody struct{ io.ReadCloser }

// errBody says that a body did not come as its headers promised.
var errBody = errors.New("the body ends too early, or its chunks are no chunks")

func (b requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = errors.Join(errBody, err)
	}
	return n, err
}

// WithBodyLimit answers 503 to large requests while others fill the memory
// that is set aside for them.
func WithBodyLimit(next http.Handler) http.Handler {
	room := semaphore.NewWeighted(largeBodies)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = requestBody{r.Body}
		weight := r.ContentLength
		if weight < 0 {
			weight = maxCreateBody
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

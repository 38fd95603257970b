package workerapi

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A large tree over a slow line is not cut off.
func TestBodiesMayTakeTheirTime(t *testing.T) {
	t.Parallel()
	s := Register(http.NewServeMux(), Config{Version: "1"})
	bodies := 0
	for path, item := range s.api.OpenAPI().Paths {
		if item.Post != nil && item.Post.RequestBody != nil {
			bodies++
			require.Equal(t, 2*time.Minute, item.Post.BodyReadTimeout, path)
		}
	}
	require.Equal(t, 3, bodies)
}

package store_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// BenchmarkCreateAmong creates projects among ever more that are there already,
// with their builds done: what a create costs must not grow with them.
func BenchmarkCreateAmong(b *testing.B) {
	for _, e := range testkit.Engines() {
		for _, existing := range []int{1_000, 100_000, 1_000_000} {
			b.Run(fmt.Sprintf("%s/%d", e.Name, existing), func(b *testing.B) {
				if e.Name == "postgres" {
					testkit.Postgres(b).Durable(b)
				}
				cfg := e.Config(b)
				db, err := store.Open(b.Context(), cfg)
				require.NoError(b, err)
				defer db.Close()
				testkit.Fill(b, cfg, existing)
				b.ResetTimer()
				for range b.N {
					_, err := db.CreatePreview(b.Context(), newCreation("u-"+previewd.NewID(), previewd.NewID()))
					require.NoError(b, err)
				}
			})
		}
	}
}

package worker_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// BenchmarkDrain tells how many empty builds leave the queue each second when
// eight runners do nothing but claim and finish them.
func BenchmarkDrain(b *testing.B) {
	for _, e := range testkit.Engines() {
		b.Run(e.Name, func(b *testing.B) {
			if e.Name == "postgres" {
				testkit.Postgres(b).Durable(b)
			}
			db, err := store.Open(b.Context(), e.Config(b))
			require.NoError(b, err)
			defer db.Close()
			f := setup(b, db)
			manifest := f.manifest()
			var creating sync.WaitGroup
			for lane := range 16 {
				creating.Go(func() {
					for i := lane; i < b.N; i += 16 {
						req := request()
						req.UserID, req.IdempotencyKey = fmt.Sprint("user-", i), previewd.NewRequestID()
						if _, err := f.CreatePreview(context.Background(), req); err != nil {
							b.Error(err)
						}
					}
				})
			}
			creating.Wait()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var runners sync.WaitGroup
			for range 8 {
				runners.Go(func() {
					for left.Load() > 0 {
						c, err := f.ClaimBuild(context.Background(), "runner", 0)
						if err != nil {
							b.Error(err)
							return
						}
						if c == nil {
							continue
						}
						_, err = f.FinishBuild(context.Background(), c.Lease, previewd.Outcome{Kind: previewd.OutcomeCompleted, Manifest: manifest})
						if err != nil {
							b.Error(err)
						}
						left.Add(-1)
					}
				})
			}
			runners.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "builds/s")
		})
	}
}

package gateway_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/testkit"
)

// What applying the worker's events costs, and for how long one transaction
// holds the gateway's rows.
func BenchmarkFollow(b *testing.B) {
	for _, e := range testkit.Engines() {
		b.Run(e.Name, func(b *testing.B) {
			events, longest := 0, time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				f := setup(b, e, false)
				for range 40 {
					f.create(ann)
				}
				for range 40 {
					f.build(previewd.Outcome{Kind: previewd.OutcomeCompleted})
				}
				left := len(f.unapplied())
				events += left
				b.StartTimer()
				for left > 0 {
					began := time.Now()
					require.NoError(b, f.FollowOnce(b.Context(), 0))
					longest = max(longest, time.Since(began))
					left = len(f.unapplied())
				}
			}
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(longest.Microseconds())/1000, "longest-ms")
		})
	}
}

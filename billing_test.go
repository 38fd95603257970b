package previewd_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

// Nobody pays for our faults, for what never began, or for what was replaced.
func TestBilled(t *testing.T) {
	t.Parallel()
	type end = previewd.BuildEnd
	for want, ends := range map[string][]end{
		"+deployed":              {{Status: previewd.ProjectDeployed, Started: true}, {Status: previewd.ProjectDeployed}},
		"+failed_user":           {{Status: previewd.ProjectFailed, Class: previewd.FailureUser, Started: true}},
		"+failed_timeout":        {{Status: previewd.ProjectFailed, Class: previewd.FailureTimeout, Started: true}},
		"-failed_infra":          {{Status: previewd.ProjectFailed, Class: previewd.FailureInfra, Started: true}},
		"-failed_":               {{Status: previewd.ProjectFailed, Started: true}},
		"-failed_warp":           {{Status: previewd.ProjectFailed, Class: "warp", Started: true}},
		"+canceled":              {{Status: previewd.ProjectCanceled, Started: true}},
		"-canceled_before_start": {{Status: previewd.ProjectCanceled}},
		"-superseded":            {{Status: previewd.ProjectSuperseded, Started: true}, {Status: previewd.ProjectSuperseded}},
		"-queued":                {{Status: previewd.ProjectQueued}},
		"-building":              {{Status: previewd.ProjectBuilding, Started: true}},
		"-warp":                  {{Status: "warp", Started: true}},
	} {
		for _, e := range ends {
			billed, reason := e.Billed()
			sign := "-"
			if billed {
				sign = "+"
			}
			require.Equal(t, want, sign+reason, "%+v", e)
		}
	}
}

func TestPrices(t *testing.T) {
	t.Parallel()
	p := previewd.Prices{BuildSecond: 2_500, StoredGiB: 3_000_000}
	for took, want := range map[time.Duration]int64{
		-time.Second: 0, 0: 0, time.Microsecond: 0, time.Millisecond: 2, 399 * time.Millisecond: 997, 400 * time.Millisecond: 1000,
		time.Second: 2_500, time.Hour: 9_000_000,
	} {
		require.Equal(t, want, p.BuildTime(took), took)
	}
	for bytes, want := range map[int64]int64{-1: 0, 0: 0, 357: 0, 358: 1, 1 << 20: 2_929, 1 << 30: 3_000_000, 5 << 30: 15_000_000} {
		require.Equal(t, want, p.Stored(bytes), bytes)
	}
	require.Zero(t, previewd.Prices{}.BuildTime(time.Hour), "what has no price costs nothing")
	require.Zero(t, previewd.Prices{BuildSecond: -1}.BuildTime(time.Hour))
	dear := previewd.Prices{BuildSecond: math.MaxInt64, StoredGiB: math.MaxInt64}
	require.Equal(t, int64(math.MaxInt64), dear.BuildTime(time.Second))
	require.Equal(t, int64(math.MaxInt64), dear.BuildTime(math.MaxInt64), "no amount overflows")
	require.Equal(t, int64(math.MaxInt64), dear.Stored(math.MaxInt64))
	require.Equal(t, int64(math.MaxInt64/1000), dear.BuildTime(time.Millisecond), "a product of 128 bits")
}

// What many small parts cost is never more than what they cost in one.
func FuzzPrices(f *testing.F) {
	f.Add(int64(1_000), int64(999), int64(7))
	f.Fuzz(func(t *testing.T, price, a, b int64) {
		const most = 1 << 40
		if a < 0 || b < 0 || price < 0 || a > most || b > most {
			t.Skip()
		}
		p := previewd.Prices{StoredGiB: price}
		one, two, both := p.Stored(a), p.Stored(b), p.Stored(a+b)
		if one < 0 || two < 0 || both < 0 {
			t.Fatal("an amount is negative")
		}
		if both < one || both != math.MaxInt64 && both < one+two {
			t.Fatal(one, two, both)
		}
	})
}

package gateway_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// sink keeps what it is told, unless it fails.
type sink struct {
	mu   sync.Mutex
	fail error
	told []previewd.BillingSession
}

func (s *sink) TellSession(_ context.Context, session previewd.BillingSession) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.told = append(s.told, session)
	return nil
}

// A biller that cannot be told is told later, of each closed session once, with
// what was used.
func TestBillerIsToldLater(t *testing.T) {
	t.Parallel()
	for _, e := range testkit.Engines() {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			cfg := e.Config(t)
			e.Config = func(testing.TB) store.Config { return cfg }
			biller := &sink{fail: errors.New("the biller is away")}
			f := setup(t, e, false, priced, func(c *gateway.Config) { c.Sink = biller })
			f.ended()
			f.create(bob)
			require.Equal(t, previewd.BillingOpen, f.sessions(bob)[0].State, "it is not over: there is nothing to tell")
			closed := len(f.sessions(ann))
			tell := func(want int) {
				n, err := f.TellBiller(t.Context())
				require.NoError(t, err)
				require.Equal(t, want, n)
			}
			tell(closed)
			tell(0) // each has its time
			biller.fail = nil
			tell(0)
			require.Empty(t, biller.told)
			attempts := testkit.OpenShell(t, cfg)
			require.Equal(t, []string{"1"}, attempts.Texts(`SELECT DISTINCT CAST(tell_attempts AS TEXT) FROM gateway_billing_sessions WHERE state <> 'open'`))
			attempts.Do("UPDATE gateway_billing_sessions SET tell_at = 0")
			tell(closed)
			attempts.Do("UPDATE gateway_billing_sessions SET tell_at = 0")
			tell(0)
			require.Len(t, biller.told, closed)
			byID := map[string]previewd.BillingSession{}
			for _, s := range biller.told {
				byID[s.ID] = s
			}
			for _, s := range f.sessions(ann) {
				require.Equal(t, text(t, s), text(t, byID[s.ID]))
				require.NotEqual(t, previewd.BillingOpen, s.State)
			}
		})
	}
}

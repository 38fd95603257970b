package gateway_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

// A ticket is good once, however many try at once, and speaks for who got it.
func TestTicketIsGoodOnce(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		until := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
		ticket, err := f.NewTicket(t.Context(), previewd.User{ID: ann, SessionID: "s", Operator: true, Expires: until})
		require.NoError(t, err)
		var taken atomic.Int64
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				user, err := f.TakeTicket(t.Context(), ticket.Ticket)
				switch previewd.ErrorCode(err) {
				case "":
					taken.Add(1)
					if *user != (previewd.User{ID: ann, SessionID: "s", Expires: until}) {
						t.Error(user)
					}
				case previewd.CodeUnauthorized:
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, int64(1), taken.Load())
		old, err := f.NewTicket(t.Context(), previewd.User{ID: ann, Expires: time.Now().Add(-time.Second)})
		require.NoError(t, err)
		_, err = f.TakeTicket(t.Context(), old.Ticket)
		require.Equal(t, previewd.CodeUnauthorized, previewd.ErrorCode(err), "its token is over")
	})
}

package worker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

func TestEqualRequestWaitsTwoSecondsAtMost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f flights
		left, done, err := f.take(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, 2*time.Second, left)
		_, otherDone, err := f.take(t.Context(), "b")
		require.NoError(t, err, "another request does not wait")
		otherDone()

		began := time.Now()
		_, _, err = f.take(t.Context(), "a")
		require.Equal(t, previewd.CodeKeyInFlight, previewd.ErrorCode(err))
		require.Equal(t, 2*time.Second, time.Since(began))

		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err = f.take(canceled, "a")
		require.ErrorIs(t, err, context.Canceled)

		go func() {
			time.Sleep(time.Second)
			done()
		}()
		left, done, err = f.take(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, time.Second, left, "what it has waited counts")
		done()
		require.Empty(t, f.busy, "nothing is left behind")
	})
}

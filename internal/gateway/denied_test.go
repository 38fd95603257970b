package gateway_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/store"
)

// A user is denied whatever the case in which the id was typed.
func TestDenyWhateverTheCase(t *testing.T) {
	each(t, func(t *testing.T, f *fixture) {
		require.NoError(t, f.Deny(t.Context(), as(bob), store.DeniedSubject{Kind: "user", Subject: strings.ToUpper(ann)}, "left"))
		denied, err := gateway.NewDenials(f.Store).Denied(t.Context(), ann, "")
		require.NoError(t, err)
		require.True(t, denied, "identity lowers Supabase's subjects; Deny keeps what was typed, and answers 204")
	})
}

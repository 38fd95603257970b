package previewd_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

func TestNewIDIsUUIDv7AndSorts(t *testing.T) {
	t.Parallel()
	var ids []string
	for range 10_000 {
		id := previewd.NewID()
		require.True(t, previewd.IsID(id), id)
		require.Equal(t, byte('7'), id[14], "version")
		require.Contains(t, "89ab", string(id[19]), "variant")
		ids = append(ids, id)
	}
	require.True(t, slices.IsSorted(ids))
}

func TestNewIDIsUniqueAcrossGoroutines(t *testing.T) {
	t.Parallel()
	var seen sync.Map
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 5_000 {
				_, again := seen.LoadOrStore(previewd.NewID(), true)
				if again {
					t.Error("an id came twice")
				}
			}
		})
	}
	wg.Wait()
}

func TestIsIDRefusesOtherForms(t *testing.T) {
	t.Parallel()
	id := previewd.NewID()
	for _, s := range []string{"", "x", id[1:], id + "0", strings.ToUpper(id), strings.ReplaceAll(id, "-", "_"), "{" + id[2:] + "}", strings.Repeat("g", 36)} {
		require.False(t, previewd.IsID(s), s)
	}
}

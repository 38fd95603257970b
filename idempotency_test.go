package previewd_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

func TestDecideKey(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stored *previewd.StoredKey
		want   previewd.KeyDecision
	}{
		"Free":                 {nil, previewd.KeyExecute},
		"Same":                 {&previewd.StoredKey{Operation: "POST /a", Fingerprint: "f", Answered: true}, previewd.KeyReplay},
		"SamePruned":           {&previewd.StoredKey{Operation: "POST /a", Fingerprint: "f"}, previewd.KeyResource},
		"OtherContent":         {&previewd.StoredKey{Operation: "POST /a", Fingerprint: "g", Answered: true}, previewd.KeyReused},
		"OtherContentPruned":   {&previewd.StoredKey{Operation: "POST /a", Fingerprint: "g"}, previewd.KeyReused},
		"OtherOperation":       {&previewd.StoredKey{Operation: "POST /b", Fingerprint: "f", Answered: true}, previewd.KeyReused},
		"OtherOperationPruned": {&previewd.StoredKey{Operation: "POST /b", Fingerprint: "f"}, previewd.KeyReused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, previewd.DecideKey(test.stored, "POST /a", "f"))
		})
	}
}

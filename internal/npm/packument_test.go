package npm

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVersionsAreComparedByNumber(t *testing.T) {
	t.Parallel()
	order := []string{"0.0.1", "0.9.0", "0.10.0-rc.1", "1.0.0+build.7", "1.0.9", "1.0.10", "10.0.0"}
	for i, version := range order[1:] {
		require.Negative(t, compareVersions(order[i], version), version)
	}
	require.True(t, isPrerelease("1.0.0-rc.1+b"))
	require.False(t, isPrerelease("1.0.0+b-1"))
}

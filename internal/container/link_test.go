//go:build linux

package container

import (
	"bufio"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// An answer is to what was asked last, or to nothing.
func TestAnswerToAnotherRequestIsRefused(t *testing.T) {
	t.Parallel()
	for line, ok := range map[string]bool{`{"ID":2,"Code":3}`: true, `{"ID":1}`: false, `{"ID":3}`: false, `{}`: false, `x`: false} {
		l := &link{last: 2, lines: bufio.NewScanner(strings.NewReader(line + "\n"))}
		got, err := l.answer()
		if !ok {
			require.ErrorIs(t, err, errHostile, line)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, 3, got.Code)
	}
}

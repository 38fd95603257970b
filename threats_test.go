package previewd_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every threat that docs/threats.md names has tests, and they exist.
func TestThreatsAreTested(t *testing.T) {
	t.Parallel()
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(\w+ \*testing\.`)
	exist := map[string]bool{}
	require.NoError(t, filepath.WalkDir(".", func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, found := range function.FindAllStringSubmatch(string(text), -1) {
			exist[found[1]] = true
		}
		return err
	}))
	raw, err := os.ReadFile("docs/threats.md")
	require.NoError(t, err)
	names, rows := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`"), 0
	for line := range strings.Lines(string(raw)) {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| threat |") {
			continue
		}
		require.Len(t, cells, 4, line)
		rows++
		tests := names.FindAllStringSubmatch(cells[2], -1)
		if cells[2] != "none" {
			require.NotEmpty(t, tests, line)
		}
		for _, name := range tests {
			require.True(t, exist[name[1]], "%s does not exist", name[1])
		}
	}
	require.Greater(t, rows, 30)
}

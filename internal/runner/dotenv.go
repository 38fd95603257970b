package runner

import (
	"regexp"
	"strings"

	"github.com/previewd/previewd"
)

// dotenvFiles are what Vite reads for a production build; later ones win.
var dotenvFiles = []string{".env", ".env.local", ".env.production", ".env.production.local"}

// dotenvLine is a line that every reader of such files understands alike: no
// expansions, no escapes, no values over several lines.
var dotenvLine = regexp.MustCompile(`^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?:"([^"$\\]*)"|'([^'$\\]*)'|([^"'$\\#\x60]*?))\s*$`)

// readDotenv adds what the tree's .env files say of VITE_* to import.meta.env. What
// the build was given wins. The failure says that a file says more than plain words.
func (b *bundle) readDotenv() *previewd.Failure {
	found := map[string]string{}
	for _, name := range dotenvFiles {
		if !b.tree.has(name) {
			continue
		}
		raw, err := readLimited(b.root.FS(), name, maxJSONFile)
		if err != nil {
			return badConfig(name, err.Error())
		}
		for line := range strings.Lines(string(raw)) {
			if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			m := dotenvLine.FindStringSubmatch(line)
			if m == nil {
				return badConfig(name, name+" holds more than plain names and values.")
			}
			if strings.HasPrefix(m[1], "VITE_") {
				found[m[1]] = m[2] + m[3] + m[4]
			}
		}
	}
	for name, value := range found {
		if _, given := b.env[name]; !given {
			b.env[name] = value
		}
	}
	return nil
}

package detect

import (
	"fmt"
	"regexp"
	"strings"
)

// A range as npm reads it, a bare major version, or a release line as nvm names it.
var nodeRange = regexp.MustCompile(`^(?:v?[0-9xX*.]+|[0-9xX*.^~<>=| v-]+|lts/(?:\*|[a-z]{1,20})|node|latest|current|lts)$`)

func isNodeRange(text string) bool {
	return len(text) <= 100 && nodeRange.MatchString(text) && strings.Trim(text, " .-|<>=^~v") != ""
}

// node decides which Node.js is wanted. What pins a version comes before what
// allows a range: it is the one that its author has run.
func (d *detector) node() {
	p := &d.plan.Node
	p.Reason = "Nothing says which Node.js, so it is the server's."
	if d.config.Node != "" {
		p.Range, p.From = d.config.Node, d.from["node"]
		p.Reason = p.From + " says so."
		return
	}
	type source struct{ text, file, where string }
	var sources []source
	for _, file := range []string{".nvmrc", ".node-version"} {
		if raw, err := d.tree.read(file, 1024); err == nil {
			sources = append(sources, source{firstWord(string(raw)), file, file})
		}
	}
	if d.pkg != nil {
		sources = append(sources,
			source{textAt(d.pkg.value, "volta", "node"), manifestFile, "volta.node of package.json"},
			source{textAt(d.pkg.value, "engines", "node"), manifestFile, "engines.node of package.json"})
		if textAt(d.pkg.value, "devEngines", "runtime", "name") == "node" {
			sources = append(sources, source{textAt(d.pkg.value, "devEngines", "runtime", "version"), manifestFile, "devEngines.runtime of package.json"})
		}
	}
	for _, s := range sources {
		text := strings.TrimSpace(s.text)
		switch {
		case text == "":
		case !isNodeRange(text):
			d.note("%s says %q, which is no version of Node.js, and is left out.", s.where, clean(text, 60))
		case p.Range == "":
			p.Range, p.From, p.Reason = text, s.file, fmt.Sprintf("%s says so.", s.where)
		case p.Range != text:
			p.Reason += fmt.Sprintf(" %s says %s; a pinned version counts more than a range.", s.where, text)
		}
	}
}

// firstWord returns the first word that is not in a comment.
func firstWord(text string) string {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if words := strings.Fields(line); len(words) > 0 {
			return words[0]
		}
	}
	return ""
}

package detect

import (
	"regexp"
	"slices"
	"strings"
)

// command is one command of a script in package.json, in words. Scripts are
// read to see what they run; none is run, and none becomes a command here.
type command struct {
	env     []string // NAME=value before it
	words   []string
	unclear bool // only a shell could tell what it means
}

const (
	maxScript   = 8 << 10
	maxCommands = 64
)

var assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

// splitScript cuts a script at what separates commands in a shell.
func splitScript(script string) []command {
	if len(script) > maxScript {
		return []command{{words: []string{clean(script, 40)}, unclear: true}}
	}
	var (
		list  []command
		now   command
		word  strings.Builder
		open  bool // a word has begun
		quote rune
	)
	endWord := func() {
		switch {
		case open && len(now.words) == 0 && assignment.MatchString(word.String()):
			now.env = append(now.env, word.String())
		case open:
			now.words = append(now.words, word.String())
		}
		word.Reset()
		open = false
	}
	endCommand := func() {
		endWord()
		if len(now.words)+len(now.env) > 0 && len(list) < maxCommands {
			list = append(list, now)
		}
		now = command{}
	}
	for _, c := range script {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, open = c, true
		case quote == 0 && (c == ' ' || c == '\t' || c == '\r'):
			endWord()
		case quote == 0 && strings.ContainsRune("&|;\n", c):
			endCommand()
		default:
			if c == '`' || c == '$' || c == '\\' || quote == 0 && strings.ContainsRune("()<>*?{}~", c) {
				now.unclear = true
			}
			word.WriteRune(c)
			open = true
		}
	}
	now.unclear = now.unclear || quote != 0
	endCommand()
	return list
}

// runs reports whether the command runs a tool with these first words, and what
// follows them.
func (c command) runs(tool []string) (rest []string, ok bool) {
	for i := range c.words {
		if i+len(tool) <= len(c.words) && c.words[i][strings.LastIndexByte(c.words[i], '/')+1:] == tool[0] && slices.Equal(c.words[i+1:i+len(tool)], tool[1:]) {
			return c.words[i+len(tool):], true
		}
	}
	return nil, false
}

// commands returns what a script of package.json runs, following the scripts
// that it runs in turn.
func (m *manifest) commands(script string) []command {
	var list []command
	seen := map[string]bool{}
	var follow func(name string)
	follow = func(name string) {
		if seen[name] || len(seen) > 20 {
			return
		}
		seen[name] = true
		for _, c := range splitScript(m.scripts[name]) {
			if next := c.script(); next != "" && m.scripts[next] != "" {
				follow(next)
			} else if len(list) < maxCommands {
				list = append(list, c)
			}
		}
	}
	follow(script)
	return list
}

// script returns the script of package.json that a command runs, or "".
func (c command) script() string {
	w := c.words
	if len(w) < 2 || !slices.Contains([]string{"npm", "pnpm", "yarn", "bun"}, w[0]) {
		return ""
	}
	if w[1] == "run" || w[1] == "run-script" {
		w = w[1:]
	} else if w[0] == "npm" {
		return ""
	}
	if len(w) < 2 {
		return ""
	}
	return w[1]
}

// flag returns the value of the first of these flags among a command's words.
func flag(words []string, names ...string) (value string, found bool) {
	for i, word := range words {
		for _, name := range names {
			if word == name && i+1 < len(words) {
				return words[i+1], true
			}
			if rest, ok := strings.CutPrefix(word, name+"="); ok {
				return rest, true
			}
		}
	}
	return "", false
}

package detect

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tokenize cuts JavaScript or TypeScript into tokens, without comments. What is
// no program gives tokens all the same.
func tokenize(source string) []token {
	l := &lexer{source: source}
	for l.at < len(l.source) {
		l.next()
	}
	return l.tokens
}

type lexer struct {
	source string
	at     int
	tokens []token
	holes  []int // of the templates that are open: how many braces are open in their hole
}

func (l *lexer) emit(kind tokenKind, text string) {
	if len(l.holes) == 0 { // what a template computes is not looked at
		l.tokens = append(l.tokens, token{kind, text})
	}
}

func (l *lexer) has(prefix string) bool { return strings.HasPrefix(l.source[l.at:], prefix) }

func (l *lexer) next() {
	c, size := utf8.DecodeRuneInString(l.source[l.at:])
	switch {
	case l.has("//"):
		l.skipPast("\n")
	case l.has("/*"):
		l.at += 2
		l.skipPast("*/")
	case unicode.IsSpace(c):
		l.at += size
	case c == '"' || c == '\'':
		l.text(byte(c))
	case c == '`':
		l.at++
		l.template(l.at)
	case c == '}' && len(l.holes) > 0 && l.holes[len(l.holes)-1] == 0:
		l.holes = l.holes[:len(l.holes)-1]
		l.at++
		l.template(-1)
	case isNamePart(c):
		from := l.at
		for l.at < len(l.source) {
			c, size := utf8.DecodeRuneInString(l.source[l.at:])
			if !isNamePart(c) {
				break
			}
			l.at += size
		}
		l.emit(tokenWord, l.source[from:l.at])
	case c == '/' && l.regexpHere():
	case l.has("...") || l.has("=>"):
		end := l.source[l.at:min(l.at+3, len(l.source))]
		n := len(end) - len(strings.TrimLeft(end, ".=>"))
		l.emit(tokenPunct, l.source[l.at:l.at+n])
		l.at += n
	default:
		l.brace(c)
		l.emit(tokenPunct, l.source[l.at:l.at+size])
		l.at += size
	}
}

// brace counts braces in a template's hole.
func (l *lexer) brace(c rune) {
	if len(l.holes) == 0 {
		return
	}
	switch c {
	case '{':
		l.holes[len(l.holes)-1]++
	case '}':
		l.holes[len(l.holes)-1]--
	}
}

func isNamePart(c rune) bool {
	return c == '_' || c == '$' || unicode.IsLetter(c) || unicode.IsDigit(c)
}

func (l *lexer) skipPast(end string) {
	if i := strings.Index(l.source[l.at:], end); i >= 0 {
		l.at += i + len(end)
	} else {
		l.at = len(l.source)
	}
}

// text reads a string. One with escapes says something else than it shows.
func (l *lexer) text(quote byte) {
	l.at++
	from, kind := l.at, tokenString
	for l.at < len(l.source) {
		switch l.source[l.at] {
		case quote:
			l.emit(kind, l.source[from:l.at])
			l.at++
			return
		case '\\':
			kind = tokenOther
			l.at++
		case '\n':
			l.emit(tokenOther, "")
			return
		}
		l.at++
	}
	l.at = len(l.source)
}

// template reads on in a template, which began at from, or before a hole.
func (l *lexer) template(from int) {
	for start := l.at; l.at < len(l.source); l.at++ {
		switch {
		case l.source[l.at] == '\\':
			l.at++
			from = -1
		case l.source[l.at] == '`':
			if from >= 0 {
				l.emit(tokenString, l.source[start:l.at])
			} else {
				l.emit(tokenOther, "")
			}
			l.at++
			return
		case l.has("${"):
			l.at += 2
			if len(l.holes) < maxFrames {
				l.holes = append(l.holes, 0)
			}
			return
		}
	}
	l.at = len(l.source)
}

// regexpHere skips a regular expression, if the / here can begin one.
func (l *lexer) regexpHere() bool {
	if n := len(l.tokens); n > 0 {
		before := l.tokens[n-1]
		operand := before.kind != tokenPunct && !slices.Contains([]string{"return", "typeof", "case", "in", "of"}, before.text)
		if operand || before.is(")") || before.is("]") || before.is("}") {
			return false
		}
	}
	class := false
	for i := l.at + 1; i < len(l.source); i++ {
		switch l.source[i] {
		case '\n':
			return false
		case '\\':
			i++
		case '[':
			class = true
		case ']':
			class = false
		case '/':
			if !class {
				l.at = i + 1
				l.emit(tokenOther, "")
				return true
			}
		}
	}
	return false
}

package detect

import (
	"slices"
	"strings"
)

// sourceText is a configuration file in JavaScript or TypeScript, read as text.
// Nothing is run, and no grammar is followed: it is cut into tokens, and
// properties that are written down plainly are found by the brackets they are in.
type sourceText struct {
	tokens  []token
	imports []string // what it imports
	props   []property
	spreads []string // keys of the objects that hold a spread: "build"
}

type tokenKind byte

const (
	tokenWord   tokenKind = 'w' // a name or a number
	tokenString tokenKind = 's'
	tokenOther  tokenKind = 'o' // a template with holes, a regular expression
	tokenPunct  tokenKind = 'p'
)

type token struct {
	kind tokenKind
	text string
}

func (t token) is(punct string) bool { return t.kind == tokenPunct && t.text == punct }

// property is one property of an object that was found.
type property struct {
	keys    string // "build.outDir"
	value   string // when literal
	literal bool
	exposed bool // in an object that is what the file exports, as far as text can tell
}

// setting is what a file says of one property.
type setting struct {
	value string
	found bool
	clear bool // it is said once, as a plain literal, in what the file exports
}

// get returns what the file says of a property. When it says different things,
// or only perhaps something, the setting is not clear.
func (s *sourceText) get(keys string) setting {
	var all []property
	for _, p := range s.props {
		if p.keys == keys {
			all = append(all, p)
		}
	}
	parent := ""
	if i := strings.LastIndexByte(keys, '.'); i >= 0 {
		parent = keys[:i]
	}
	if len(all) == 0 {
		return setting{clear: !slices.Contains(s.spreads, parent)}
	}
	result := setting{value: all[0].value, found: true, clear: !slices.Contains(s.spreads, parent)}
	for _, p := range all {
		result.clear = result.clear && p.literal && p.exposed && p.value == result.value
	}
	if !result.clear && (len(all) > 1 || !all[0].literal) {
		result.value = ""
	}
	return result
}

// mentions reports whether a property of this name is anywhere in the file.
func (s *sourceText) mentions(name string) bool {
	return slices.ContainsFunc(s.props, func(p property) bool {
		return p.keys == name || strings.HasSuffix(p.keys, "."+name)
	})
}

// importing returns the first import that begins so, or "".
func (s *sourceText) importing(prefix string) string {
	for _, name := range s.imports {
		if strings.HasPrefix(name, prefix) {
			return name
		}
	}
	return ""
}

func readSource(raw []byte) *sourceText {
	s := &sourceText{tokens: tokenize(string(raw))}
	s.findImports()
	s.findProperties()
	return s
}

func (s *sourceText) at(i int) token {
	if i < 0 || i >= len(s.tokens) {
		return token{}
	}
	return s.tokens[i]
}

func (s *sourceText) findImports() {
	for i, t := range s.tokens {
		if t.kind != tokenString {
			continue
		}
		before := s.at(i - 1)
		call := before.is("(") && (s.at(i-2).text == "require" || s.at(i-2).text == "import")
		if call || before.kind == tokenWord && (before.text == "from" || before.text == "import") {
			s.imports = append(s.imports, t.text)
		}
	}
}

// frame is a bracket that is open.
type frame struct {
	open    string
	key     string // of the property whose value it is
	exposed bool
	object  bool // an object, as opposed to a block
}

const maxFrames = 64

// findProperties walks the tokens with a stack of open brackets. Brackets that
// are nested deeper than anybody writes a setting are counted, not entered.
func (s *sourceText) findProperties() {
	var stack []frame
	deeper := 0
	for i, t := range s.tokens {
		switch {
		case t.is("{") || t.is("(") || t.is("["):
			if len(stack) == maxFrames {
				deeper++
				continue
			}
			stack = append(stack, s.frameAt(i, stack))
		case t.is("}") || t.is(")") || t.is("]"):
			if deeper > 0 {
				deeper--
			} else if len(stack) > 0 {
				stack = stack[:len(stack)-1]
			}
		case deeper > 0 || len(stack) == 0:
			s.assignment(i)
		default:
			top := stack[len(stack)-1]
			if t.is("...") && top.object {
				s.spreads = append(s.spreads, keysOf(stack))
			}
			if top.object && (s.at(i-1).is("{") || s.at(i-1).is(",")) && (t.kind == tokenWord || t.kind == tokenString) {
				s.property(i, stack)
			} else {
				s.assignment(i)
			}
		}
	}
}

func keysOf(stack []frame) string {
	var keys []string
	for _, f := range stack {
		if f.key != "" {
			keys = append(keys, f.key)
		}
	}
	return strings.Join(keys, ".")
}

// frameAt describes the bracket that token i opens.
func (s *sourceText) frameAt(i int, stack []frame) frame {
	f := frame{open: s.tokens[i].text, exposed: true}
	if len(stack) > 0 {
		f.exposed = stack[len(stack)-1].exposed
	}
	before, name := s.at(i-1), s.at(i-2)
	start := i - 1 // the token before the whole value: adapter({ … }) begins at adapter
	if f.open == "(" && before.kind == tokenWord {
		start = i - 2
	}
	if s.at(start).is(":") && start > 0 && (s.at(start-2).is("{") || s.at(start-2).is(",")) && len(stack) > 0 && stack[len(stack)-1].object {
		f.key = s.at(start - 1).text
	}
	if f.open != "{" {
		return f
	}
	switch {
	case before.is(":") || before.is("(") || before.is(",") || before.is("["):
		f.object = true
	case before.kind == tokenWord && before.text == "default":
		f.object = true
	case before.is("="):
		f.object = true
		f.exposed = f.exposed && (name.text == "exports" || s.exported(i-1))
	case before.kind == tokenWord && before.text == "return":
		f.object, f.exposed = true, false // perhaps under a condition
	default:
		f.exposed = false // the block of a function, a class, an interface
	}
	return f
}

// exported reports whether what is declared before the = at i, with or without a
// type, looks like what the file exports.
func (s *sourceText) exported(i int) bool {
	name := ""
	for back := i - 1; back >= 0 && back > i-12; back-- {
		if t := s.at(back); t.text == "const" || t.text == "let" || t.text == "var" {
			if s.at(back-1).text == "export" {
				return true
			}
			name = s.at(back + 1).text
			break
		}
	}
	for i, t := range s.tokens {
		if name == "" || t.kind != tokenWord || t.text != name {
			continue
		}
		before := s.at(i - 1)
		if before.text == "default" || before.is("=") && s.at(i-2).text == "exports" || before.is("(") && s.at(i-2).kind == tokenWord {
			return true
		}
	}
	return false
}

// property notes the property whose name is token i.
func (s *sourceText) property(i int, stack []frame) {
	name := s.tokens[i].text
	p := property{keys: name, exposed: stack[len(stack)-1].exposed}
	if above := keysOf(stack); above != "" {
		p.keys = above + "." + name
	}
	next, value, after := s.at(i+1), s.at(i+2), s.at(i+3)
	switch {
	case next.is(":"):
		ends := after.is(",") || after.is("}") || after.text == "as" || after.text == "satisfies"
		p.literal = ends && (value.kind == tokenString || value.kind == tokenWord && slices.Contains([]string{"true", "false", "null", "undefined"}, value.text))
		if p.literal {
			p.value = value.text
		}
	case next.is(",") || next.is("}") || next.is("("): // shorthand, or a method
	default:
		return
	}
	s.props = append(s.props, p)
}

// assignment notes config.output = …, whatever config is: it is never clear.
func (s *sourceText) assignment(i int) {
	if t := s.tokens[i]; t.kind == tokenWord && s.at(i-1).is(".") && s.at(i+1).is("=") && !s.at(i+2).is("=") && t.text != "exports" {
		s.props = append(s.props, property{keys: t.text})
	}
}

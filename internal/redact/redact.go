// Package redact takes values that must not be seen out of text: as they are, and
// in the forms that programs give them. It is made for accidents. Whoever can run
// code beside a secret can always find a form that nobody looks for.
package redact

import (
	"cmp"
	"slices"
	"strings"

	"github.com/previewd/previewd"
)

// Mark stands where something was hidden.
const Mark = "***"

// MinLength is how short a value or a line of one may be, in bytes: shorter ones
// occur by chance.
const MinLength = 8

// Set is a set of values to hide. A nil Set hides nothing.
//
// It is the automaton of Aho and Corasick: one step for each byte of text, however
// many values there are. Line breaks take no step, so that a value is also found
// where a tool has wrapped it.
type Set struct {
	nodes []node
	root  [256]int32 // children of node 0, which is where most steps begin
}

// node is a beginning of values.
type node struct {
	child, sibling int32 // 0 is none
	fail           int32 // the longest end of this one that is itself a beginning
	depth          int32 // its length
	hidden         int32 // length of the longest value that ends here; 0 is none
	letter         byte
}

// New returns a Set; nil when there is nothing to hide. Long values are hidden as they
// are, and their lines, but in no other form; so are the longest of very many.
func New(values []string) *Set {
	s := &Set{nodes: make([]node, 1)}
	values = slices.SortedFunc(slices.Values(values), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	all := 0
	for _, value := range slices.Compact(values) {
		list := forms(value)
		if all += len(value); all > maxDerivedAll {
			list = ownForms(value)
		}
		for _, form := range list {
			s.add(form)
		}
	}
	if len(s.nodes) == 1 {
		return nil
	}
	s.link()
	return s
}

func (s *Set) add(form string) {
	form = strings.Map(significant, form)
	if len(form) < MinLength {
		return
	}
	at := int32(0)
	for _, letter := range []byte(form) {
		next := s.find(at, letter)
		if next == 0 {
			next = int32(len(s.nodes))
			s.nodes = append(s.nodes, node{letter: letter, depth: s.nodes[at].depth + 1, sibling: s.nodes[at].child})
			s.nodes[at].child = next
			if at == 0 {
				s.root[letter] = next
			}
		}
		at = next
	}
	s.nodes[at].hidden = s.nodes[at].depth
}

// find returns the child of a node for a letter, or 0.
func (s *Set) find(at int32, letter byte) int32 {
	if at == 0 {
		return s.root[letter]
	}
	next := s.nodes[at].child
	for next != 0 && s.nodes[next].letter != letter {
		next = s.nodes[next].sibling
	}
	return next
}

func (s *Set) step(at int32, letter byte) int32 {
	for {
		next := s.find(at, letter)
		if next != 0 || at == 0 {
			return next
		}
		at = s.nodes[at].fail
	}
}

// link sets fail and hidden of each node from those of shorter ones.
func (s *Set) link() {
	queue := make([]int32, 1, len(s.nodes))
	for i := 0; i < len(queue); i++ {
		at := queue[i]
		for next := s.nodes[at].child; next != 0; next = s.nodes[next].sibling {
			n := &s.nodes[next]
			if at != 0 {
				n.fail = s.step(s.nodes[at].fail, n.letter)
			}
			n.hidden = max(n.hidden, s.nodes[n.fail].hidden)
			queue = append(queue, next)
		}
	}
}

// significant drops what a Set does not look at.
func significant(r rune) rune {
	if r == '\n' {
		return -1
	}
	return previewd.Harmless(r)
}

// Text returns text with all values hidden. Line breaks in them stay.
func (s *Set) Text(text string) string {
	if s == nil {
		return text
	}
	var b strings.Builder
	stream := s.Stream(func(part []byte) { b.Write(part) })
	stream.Write(text)
	stream.Flush()
	return b.String()
}

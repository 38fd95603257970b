package redact

// Stream hides values in text that comes in pieces. It keeps back the end of what
// it got for as long as that may be the beginning of a value.
type Stream struct {
	set  *Set
	pass func([]byte) // is given what may be seen, and must not keep it

	state  int32
	held   []byte // of the text, what has not been passed on
	begin  int    // how many bytes came before held, line breaks not counted
	end    int    // how many came in all
	spans  []span // what is to be hidden, in order
	breaks int    // how many line breaks came last
	hiding bool   // the byte before held was hidden
	out    []byte
}

// maxBreaks is how many line breaks in a row end what may be a value: no tool wraps
// a line like that, and nobody is kept waiting.
const maxBreaks = 64

// span is a run of bytes.
type span struct{ begin, end int }

// Stream returns a stream that gives pass what may be seen.
func (s *Set) Stream(pass func([]byte)) *Stream { return &Stream{set: s, pass: pass} }

// Write takes the next piece. Control characters other than line breaks, and
// escapes, must have been taken out of it.
func (s *Stream) Write(text string) {
	if s.set == nil {
		s.pass([]byte(text))
		return
	}
	s.held = append(s.held, text...)
	for _, letter := range []byte(text) {
		if isBreak(letter) {
			if s.breaks++; s.breaks == maxBreaks {
				s.state = 0
			}
			continue
		}
		s.breaks = 0
		s.end++
		s.state = s.set.step(s.state, letter)
		if n := int(s.set.nodes[s.state].hidden); n > 0 {
			s.hide(s.end-n, s.end)
		}
	}
	s.release(s.end - int(s.set.nodes[s.state].depth))
}

// Flush passes on what is left: nothing follows that it could belong to.
func (s *Stream) Flush() {
	if s.set == nil {
		return
	}
	s.release(s.end)
	s.state, s.breaks, s.hiding = 0, 0, false
}

func isBreak(letter byte) bool { return letter == '\n' || letter == '\r' }

// hide adds a span. Spans come in the order of their ends, so one that overlaps
// earlier ones takes their place.
func (s *Stream) hide(begin, end int) {
	for n := len(s.spans); n > 0 && s.spans[n-1].end >= begin; n-- {
		begin = min(begin, s.spans[n-1].begin)
		s.spans = s.spans[:n-1]
	}
	s.spans = append(s.spans, span{begin, end})
}

// release passes on what comes before a place.
func (s *Stream) release(until int) {
	s.out = s.out[:0]
	used, gone := 0, 0
	for _, letter := range s.held {
		if isBreak(letter) {
			s.out = append(s.out, letter)
			used++
			continue
		}
		if s.begin == until {
			break
		}
		for gone < len(s.spans) && s.spans[gone].end <= s.begin {
			gone++
		}
		switch hidden := gone < len(s.spans) && s.spans[gone].begin <= s.begin; {
		case !hidden:
			s.out = append(s.out, letter)
			s.hiding = false
		case !s.hiding:
			s.out = append(s.out, Mark...)
			s.hiding = true
		}
		s.begin++
		used++
	}
	s.spans, s.held = drop(s.spans, gone), drop(s.held, used)
	if len(s.out) > 0 {
		s.pass(s.out)
	}
}

// drop returns a list without its first n. It moves no more than it drops.
func drop[T any](list []T, n int) []T {
	if rest := list[n:]; len(rest) > n {
		return rest
	}
	return append(list[:0], list[n:]...)
}

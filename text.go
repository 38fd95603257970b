package previewd

// Harmless is for strings.Map over text of strangers. It drops what could drive
// a terminal or turn a line around: control characters but for line breaks and
// tabs, line and paragraph separators, and marks that set the direction of text.
func Harmless(r rune) rune {
	switch {
	case r < ' ' && r != '\n' && r != '\t', r >= 0x7f && r < 0xa0,
		r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
		return -1
	}
	return r
}

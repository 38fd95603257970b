package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
)

// Bounds on values that are looked for in other forms than their own, in bytes: what
// a Set takes in memory is more than a thousand times as much.
const (
	maxDerived    = 2 << 10  // one value
	maxDerivedAll = 16 << 10 // all of a Set
)

// forms returns what a value may look like in the output of a program.
func forms(value string) []string {
	list := ownForms(value)
	if len(list) > 0 && len(value) <= maxDerived {
		list = append(list, derivedForms(value)...)
	}
	return list
}

// ownForms returns a value and its lines.
func ownForms(value string) []string {
	if len(strings.TrimSpace(value)) < MinLength {
		return nil
	}
	list := []string{value, strings.TrimSpace(value)}
	for line := range strings.Lines(value) {
		list = append(list, strings.TrimSpace(line))
	}
	return list
}

// derivedForms returns what encodings make of a value.
func derivedForms(value string) []string {
	var list []string
	for _, v := range slices.Compact([]string{value, strings.TrimSpace(value)}) {
		list = append(list, hex.EncodeToString([]byte(v)), strings.ToUpper(hex.EncodeToString([]byte(v))))
		list = append(list, jsonForms(v)...)
		list = append(list, urlForms(v)...)
		list = append(list, base64Forms(v)...)
	}
	return list
}

// jsonForms returns a value as a JSON string has it, without the quotes. What is
// safe in HTML is escaped further.
func jsonForms(value string) []string {
	var list []string
	for _, html := range []bool{false, true} {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(html)
		if enc.Encode(value) == nil {
			list = append(list, strings.Trim(strings.TrimSuffix(b.String(), "\n"), `"`))
		}
	}
	return list
}

// What functions that escape for URLs leave as it is, beside letters and digits.
var unescaped = []string{
	"-_.~",                   // url.QueryEscape, RFC 3986
	"-_.~$&+=:@",             // url.PathEscape
	"-_.!~*'()",              // encodeURIComponent
	"-_.!~*'();/?:@&=+$,#[]", // encodeURI
	"-_.*",                   // URLSearchParams
}

func urlForms(value string) []string {
	var list []string
	for _, keep := range unescaped {
		for _, digits := range []string{"0123456789ABCDEF", "0123456789abcdef"} {
			for _, space := range []string{"%20", "+"} {
				list = append(list, escape(value, keep, digits, space))
			}
		}
	}
	return list
}

func escape(value, keep, digits, space string) string {
	var b strings.Builder
	for _, c := range []byte(value) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(keep, c) >= 0:
			b.WriteByte(c)
		case c == ' ':
			b.WriteString(space)
		default:
			b.WriteString("%" + string(digits[c>>4]) + string(digits[c&15]))
		}
	}
	return b.String()
}

// base64Forms returns what of a value's base64 does not depend on what it stands
// in: for each of the three places that it can have in a group of three bytes, all
// whole letters; and for one at the end of a text, the last letter and the padding.
func base64Forms(value string) []string {
	var list []string
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		for before := range 3 {
			text := encoding.EncodeToString(append(make([]byte, before), value...))
			skip := (8*before + 5) / 6
			whole := 8 * (before + len(value)) / 6
			list = append(list, text[skip:whole], strings.TrimRight(text[skip:], "="), text[skip:])
		}
	}
	return list
}

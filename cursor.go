package previewd

import (
	"fmt"
	"strconv"
	"strings"
)

// Cursor is a place in a log of events: in the feed, or in one project's. The
// generation rises when a backup is restored, for the log may go on in another
// way then. Clients take a cursor's text as it is and never make one.
type Cursor struct {
	Generation int64 // 0: not said
	Position   int64 // the last event that the client has; 0 is the beginning
}

// String returns the form that ParseCursor reads.
func (c Cursor) String() string {
	if c.Generation == 0 {
		return strconv.FormatInt(c.Position, 10)
	}
	return fmt.Sprintf("%d-%d", c.Generation, c.Position)
}

// ParseCursor reads a cursor; "" and "0" are the beginning. A number alone is of
// any generation. It returns CodeInvalid for anything else.
func ParseCursor(text string) (Cursor, error) {
	var c Cursor
	if text == "" {
		return c, nil
	}
	position := text
	if generation, rest, ok := strings.Cut(text, "-"); ok {
		position = rest
		if c.Generation = parseCount(generation); c.Generation < 1 {
			return Cursor{}, badCursor(text)
		}
	}
	if c.Position = parseCount(position); c.Position < 0 {
		return Cursor{}, badCursor(text)
	}
	return c, nil
}

// parseCount reads decimal digits only; -1 for anything else.
func parseCount(text string) int64 {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return -1
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

func badCursor(text string) error {
	return &Error{Code: CodeInvalid, Message: "The cursor is none: take it from an event's id or from next.", Details: strconv.Quote(text)}
}

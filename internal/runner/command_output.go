package runner

import (
	"bytes"
	"context"
	"strings"
	"unicode/utf8"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/redact"
)

// commandOutput takes what a command writes: into the build's log, line by line,
// and its end for whoever looks for what went wrong. Neither gets secrets: they
// are hidden before anything is cut to size, and after escapes are gone, which
// could stand in the middle of one.
type commandOutput struct {
	log   *buildLog
	stop  context.CancelCauseFunc
	heard func()
	raw   []byte // of the last line, as it was written
	safe  *redact.Stream
	line  []byte // of the last line, without secrets
	tail  tailBuffer
	total int
}

func newCommandOutput(log *buildLog, stop context.CancelCauseFunc) *commandOutput {
	o := &commandOutput{log: log, stop: stop, heard: func() {}}
	o.safe = log.hidden.Stream(o.take)
	return o
}

func (o *commandOutput) Write(p []byte) (int, error) {
	o.heard()
	if o.total += len(p); o.total > maxRawLog {
		o.stop(errOutput)
		return len(p), nil
	}
	for rest := p; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			o.raw = append(o.raw, rest...)
			if len(o.raw) > maxLine {
				o.clean(whole(o.raw))
			}
			break
		}
		o.raw = append(o.raw, rest[:end+1]...)
		o.clean(len(o.raw))
		rest = rest[end+1:]
	}
	return len(p), nil
}

// maxEscape is how long an escape may be to be recognized where a line is cut.
const maxEscape = 4 << 10

// whole returns how much of a line can be cut off without cutting an escape or a
// letter.
func whole(line []byte) int {
	end := len(line)
	if at := bytes.LastIndexByte(line, '\x1b'); at > 0 && at > end-maxEscape {
		end = at
	}
	for n := 1; n < utf8.UTFMax && n < end; n++ {
		if c := line[end-n]; utf8.RuneStart(c) {
			if !utf8.FullRune(line[end-n : end]) {
				end -= n
			}
			break
		}
	}
	return end
}

// clean passes on the first n bytes of the line, without escapes.
func (o *commandOutput) clean(n int) {
	text := string(o.raw[:n])
	o.raw = append(o.raw[:0], o.raw[n:]...)
	if strings.IndexByte(text, '\x1b') >= 0 {
		text = escapes.ReplaceAllString(text, "")
	}
	o.safe.Write(strings.Map(harmlessOutput, text))
}

// harmlessOutput keeps, besides what may be shown, returns to the start of a line.
func harmlessOutput(r rune) rune {
	if r == '\r' {
		return r
	}
	return previewd.Harmless(r)
}

// take gets text without secrets.
func (o *commandOutput) take(text []byte) {
	o.tail.write(text)
	for len(text) > 0 {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			if o.line = append(o.line, text...); len(o.line) > maxLine {
				o.print()
			}
			return
		}
		o.line = append(o.line, text[:end]...)
		o.print()
		text = text[end+1:]
	}
}

// print logs the line. One that a tool has written over counts as it was last.
func (o *commandOutput) print() {
	line := strings.TrimRight(string(o.line), "\r")
	o.line = o.line[:0]
	line = line[strings.LastIndexByte(line, '\r')+1:]
	if strings.TrimSpace(line) != "" {
		o.log.printf("%s", line)
	}
}

// flush passes on what is left: the command is over.
func (o *commandOutput) flush() {
	o.clean(len(o.raw))
	o.safe.Flush()
	o.print()
}

// tailBuffer keeps the end of what is written to it.
type tailBuffer struct{ kept []byte }

func (b *tailBuffer) write(p []byte) {
	b.kept = append(b.kept, p...)
	if len(b.kept) > 2*outputTail {
		b.kept = append(b.kept[:0], b.kept[len(b.kept)-outputTail:]...)
	}
}

func (b *tailBuffer) String() string {
	return string(b.kept[max(0, len(b.kept)-outputTail):])
}

package runner

import (
	"bytes"
	"context"
	"strings"
)

// commandOutput takes what a command writes: into the build's log, line by line,
// and its end for whoever looks for what went wrong.
type commandOutput struct {
	log   *buildLog
	stop  context.CancelCauseFunc
	heard func()
	line  []byte
	tail  tailBuffer
	total int
}

func (o *commandOutput) Write(p []byte) (int, error) {
	o.heard()
	if o.total += len(p); o.total > maxRawLog {
		o.stop(errOutput)
		return len(p), nil
	}
	o.tail.write(p)
	for rest := p; len(rest) > 0; {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			o.line = append(o.line, rest...)
			if len(o.line) > maxLine {
				o.flush()
			}
			break
		}
		o.line = append(o.line, rest[:end]...)
		o.flush()
		rest = rest[end+1:]
	}
	return len(p), nil
}

// flush logs what is left of the last line. A line that a tool has written over
// counts as it was last.
func (o *commandOutput) flush() {
	line := strings.TrimRight(string(o.line), "\r")
	o.line = o.line[:0]
	line = escapes.ReplaceAllString(line[strings.LastIndexByte(line, '\r')+1:], "")
	if strings.TrimSpace(line) != "" {
		o.log.printf("%s", line)
	}
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

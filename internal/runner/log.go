package runner

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/redact"
)

const (
	logEvery   = 100 * time.Millisecond
	maxLine    = 16 << 10
	maxLogSize = 1 << 20 // of one attempt; what comes after is counted, not kept
)

// buildLog gathers a build's log and appends it to the worker's, at most ten
// times a second.
type buildLog struct {
	dispatcher previewd.Dispatcher
	lease      previewd.Lease
	began      time.Time
	hidden     *redact.Set // nothing that is stored or shown holds these

	mu      sync.Mutex
	pending strings.Builder
	kept    int
	dropped int

	offset int64 // of the flushing goroutine
	stop   context.CancelFunc
	done   chan struct{}
}

func newBuildLog(ctx context.Context, d previewd.Dispatcher, claim *previewd.Claim) *buildLog {
	// The log's end matters most when the build was just killed.
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &buildLog{
		dispatcher: d, lease: claim.Lease, offset: claim.LogOffset, began: time.Now(),
		hidden: hiddenValues(claim), stop: stop, done: make(chan struct{}),
	}
	go l.run(ctx)
	return l
}

// printf adds a line, without secrets. Lines of the author's tools may hold
// anything: control characters go, so that a log cannot drive the terminal that
// shows it.
func (l *buildLog) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if l.hidden != nil && text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n" // what holds nothing to show is a line all the same
	}
	for line := range strings.Lines(l.hide(text)) {
		line = strings.Map(printable, strings.TrimRight(line, "\r\n"))
		if len(line) > maxLine {
			line = fmt.Sprintf("%s… (truncated %d bytes)", strings.ToValidUTF8(line[:maxLine], ""), len(line)-maxLine)
		}
		if l.kept+len(line) > maxLogSize {
			l.dropped += len(line) + 1
			continue
		}
		l.kept += len(line) + 1
		fmt.Fprintf(&l.pending, "[%6.2fs] %s\n", time.Since(l.began).Seconds(), line)
	}
}

// printable keeps what one line may hold.
func printable(r rune) rune {
	if r == '\n' {
		return -1
	}
	return previewd.Harmless(r)
}

func (l *buildLog) run(ctx context.Context) {
	defer close(l.done)
	every := time.NewTicker(logEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			l.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			l.flush(last)
			return
		}
	}
}

// flush appends what has gathered. What cannot be appended stays for the next
// time; a lost lease makes every next time fail too, and then it is nobody's log.
func (l *buildLog) flush(ctx context.Context) {
	l.mu.Lock()
	text := l.pending.String()
	l.mu.Unlock()
	if text == "" || l.dispatcher.AppendLog(ctx, l.lease, l.offset, []byte(text)) != nil {
		return
	}
	l.offset += int64(len(text))
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.pending.String()[len(text):]
	l.pending.Reset()
	l.pending.WriteString(rest)
}

// close flushes the rest and says what was dropped.
func (l *buildLog) close() {
	l.mu.Lock()
	if l.dropped > 0 {
		fmt.Fprintf(&l.pending, "truncated %d bytes\n", l.dropped)
	}
	l.mu.Unlock()
	l.stop()
	<-l.done
}

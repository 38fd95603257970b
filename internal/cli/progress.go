package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/client"
)

// progress shows how a build goes.
type progress interface {
	event(previewd.Event)
	done(*previewd.Build)
}

// newProgress draws a bar on a terminal and prints lines elsewhere.
func newProgress(ctx context.Context, s Streams) progress {
	if s.terminal() {
		return newBar(ctx, s)
	}
	return &lines{out: s.Err, began: time.Now()}
}

// watchBuild follows a build to its end. A build that made no version is an
// error, and printed.
func watchBuild(ctx context.Context, server *client.Client, id string, p progress) (*previewd.Build, error) {
	err := server.WatchBuild(ctx, id, client.Watch{Event: func(e previewd.Event) error {
		p.event(e)
		return nil
	}})
	if err != nil {
		return nil, err
	}
	build, err := server.FindBuild(ctx, id, 0)
	if err != nil {
		return nil, err
	}
	p.done(build)
	if build.Status != previewd.BuildCompleted {
		return build, &buildEndedError{build}
	}
	return build, nil
}

// describeEvent returns a word or two for an event, "" when there is nothing to say.
func describeEvent(e previewd.Event) string {
	switch e.Type {
	case previewd.EventBuildQueued:
		return "queued"
	case previewd.EventBuildBuilding:
		return fmt.Sprintf("building, attempt %v", e.Data["attempt"])
	case previewd.EventBuildStep:
		return fmt.Sprintf("step %v", e.Data["step"])
	case previewd.EventBuildRetrying:
		return "back in the queue, will be tried again"
	case previewd.EventBuildCanceling:
		return "canceling"
	case previewd.EventVersionActivated:
		return fmt.Sprintf("version %v is shown", e.Data["version"])
	}
	return ""
}

// lines is the progress of a pipe or a log.
type lines struct {
	out   io.Writer
	began time.Time
}

func (l *lines) event(e previewd.Event) {
	if text := describeEvent(e); text != "" {
		fmt.Fprintf(l.out, "%6.2fs  %s\n", time.Since(l.began).Seconds(), text)
	}
}

func (l *lines) done(b *previewd.Build) {
	fmt.Fprintf(l.out, "%6.2fs  %s\n", time.Since(l.began).Seconds(), summary(b))
	fmt.Fprint(l.out, failureText(b))
}

func summary(b *previewd.Build) string {
	text := string(b.Status)
	if b.StartedAt != nil && b.FinishedAt != nil {
		text += fmt.Sprintf(" in %d ms", b.FinishedAt.Sub(*b.StartedAt).Milliseconds())
	}
	return text
}

// failureText says what went wrong, where, and what to do.
func failureText(b *previewd.Build) string {
	f := b.Failure
	if f == nil {
		if b.SupersededBy != "" {
			return "Replaced by build " + b.SupersededBy + ".\n"
		}
		return ""
	}
	var text strings.Builder
	fmt.Fprintf(&text, "\nThe build failed in step %s: %s\n", f.Step, f.Code)
	where := f.File
	if f.Line > 0 {
		where = fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
	}
	if where != "" {
		fmt.Fprintf(&text, "%s\n", where)
	}
	fmt.Fprintf(&text, "%s\n", f.Message)
	if f.Excerpt != "" {
		fmt.Fprintf(&text, "\n%s\n\n", f.Excerpt)
	}
	if f.Hint != "" {
		fmt.Fprintf(&text, "%s\n", f.Hint)
	}
	fmt.Fprintf(&text, "reference: %s\n", b.ReferenceID)
	return strings.Map(previewd.Harmless, text.String())
}

// bar is the progress of a terminal: one line that fills with the steps.
type bar struct {
	out  io.Writer
	box  *mpb.Progress
	line *mpb.Bar
	text atomic.Pointer[string] // drawn by another goroutine
}

// Positions of the bar.
var barSteps = map[string]int64{
	string(previewd.EventBuildQueued): 0, string(previewd.EventBuildBuilding): 1,
	previewd.StepPrepare: 2, previewd.StepInstall: 3, previewd.StepBuild: 4, previewd.StepPublish: 5,
}

const barLength = 6

func newBar(ctx context.Context, s Streams) *bar {
	b := &bar{out: s.Err}
	b.say("queued")
	b.box = mpb.NewWithContext(ctx, mpb.WithOutput(s.Err), mpb.WithWidth(40), mpb.WithRefreshRate(50*time.Millisecond))
	b.line = b.box.AddBar(barLength,
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return *b.text.Load() }, decor.WC{W: 24, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.Elapsed(decor.ET_STYLE_GO)))
	return b
}

func (b *bar) say(text string) { b.text.Store(&text) }

func (b *bar) event(e previewd.Event) {
	if text := describeEvent(e); text != "" {
		b.say(text)
	}
	at, ok := barSteps[string(e.Type)]
	if step, isStep := e.Data["step"].(string); isStep {
		at, ok = barSteps[step], true
	}
	if ok {
		b.line.SetCurrent(at)
	}
}

func (b *bar) done(build *previewd.Build) {
	b.say(summary(build))
	if build.Status == previewd.BuildCompleted {
		b.line.SetCurrent(barLength)
	} else {
		b.line.Abort(false)
	}
	b.box.Wait()
	fmt.Fprint(b.out, failureText(build))
}

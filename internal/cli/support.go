package cli

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/app"
)

type supportCmd struct {
	both
	Reference string `arg:"" help:"What an answer named as referenceId." placeholder:"REF"`
}

// Run implements the command.
func (c *supportCmd) Run(e *env) error {
	return operate(e, c.config(), func(operator *app.Operator) error {
		info, err := operator.FindReference(e.ctx, c.Reference)
		if err != nil {
			return err
		}
		if c.JSON {
			return e.streams.printJSON(info)
		}
		return printReference(e.streams.Out, info)
	})
}

// printReference prints all that is known, and what to look for in the log.
func printReference(out io.Writer, info *previewd.ReferenceInfo) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, clip(value, 2000))
		}
	}
	line("reference", info.ID)
	if p := info.Problem; p != nil {
		line("problem", fmt.Sprintf("%d %s, answered by the %s", p.Status, p.Code, p.Role))
		line("message", p.Message)
		line("cause", p.Cause)
		line("request", p.Method+" "+p.Path)
		line("request id", p.RequestID)
		line("trace id", p.TraceID)
		line("user", p.UserID)
		line("project", p.ProjectID)
		line("build", p.BuildID)
		line("at", p.At.Format(time.RFC3339Nano))
	}
	if b := info.Build; b != nil {
		deleted := ""
		if info.ProjectDeleted {
			deleted = " (deleted)"
		}
		line("build", fmt.Sprintf("#%d %s, %s", b.Seq, b.ID, summary(b)))
		line("of project", b.ProjectID+deleted)
		line("of user", info.UserID)
		line("attempts", fmt.Sprintf("%d, epoch %d", b.Attempt, b.Epoch))
		line("queued", b.QueuedAt.Format(time.RFC3339Nano))
		line("started", moment(b.StartedAt))
		line("finished", moment(b.FinishedAt))
		line("canceled", string(b.CancelReason))
	}
	if b := info.AppBuild; b != nil && info.Build == nil {
		line("build", fmt.Sprintf("#%d %s, %s as its owner sees it", b.Seq, b.ID, b.Status))
		line("of project", b.ProjectID)
		line("of user", info.UserID)
		line("finished", moment(b.FinishedAt))
	}
	if in := info.Intent; in != nil {
		line("intent", fmt.Sprintf("%s of %s, %s", in.ID, in.Operation, in.State))
		line("of user", info.UserID)
		line("asked", fmt.Sprintf("%d times, last error %s", in.Attempts, cmp.Or(string(in.LastError), "none")))
		line("made project", in.ProjectID)
		line("made build", in.BuildID)
	}
	line("in the log", "reference_id="+info.ID+`, or "reference_id":"`+info.ID+`" where it is JSON`)
	if p := info.Problem; p != nil && p.Status < 500 {
		line("", "refusals are logged at the level debug")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if info.Build == nil {
		return nil
	}
	_, err := fmt.Fprint(out, failureText(info.Build))
	return err
}

func moment(at *time.Time) string {
	if at == nil {
		return ""
	}
	return at.Format(time.RFC3339Nano)
}

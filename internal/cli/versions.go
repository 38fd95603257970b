package cli

import (
	"fmt"
	"time"

	"github.com/previewd/previewd"
)

type versionsCmd struct {
	List     versionsListCmd     `cmd:"" help:"List a project's versions, newest first."`
	Activate versionsActivateCmd `cmd:"" help:"Show a version; going back to an older one pins it."`
}

type versionsListCmd struct {
	remote
	Project string `arg:"" help:"Project id."`
	Limit   int    `help:"Most versions to list." default:"50"`
	Cursor  string `help:"Where the list before ended."`
}

// Run implements the command.
func (c *versionsListCmd) Run(e *env) error {
	server, err := c.connect()
	if err != nil {
		return err
	}
	page, err := server.ListVersions(e.ctx, c.Project, previewd.Page{Cursor: c.Cursor, Limit: c.Limit})
	if err != nil {
		return err
	}
	if c.JSON {
		return e.streams.printJSON(page)
	}
	rows := [][]any{{"VERSION", "SHOWN", "BUILD", "FILES", "SIZE", "CREATED", "PREVIEW"}}
	for _, v := range page.Versions {
		shown := ""
		if v.Current {
			shown = "yes"
		}
		rows = append(rows, []any{v.Number, shown, fmt.Sprintf("#%d", v.BuildSeq), v.Files, bytesText(v.Bytes), v.CreatedAt.Local().Format(time.DateTime), v.PreviewURL})
	}
	return printTable(e.streams.Out, rows, page.Next)
}

type versionsActivateCmd struct {
	remote
	Project string `arg:"" help:"Project id."`
	Number  int64  `arg:"" help:"Version number."`
}

// Run implements the command.
func (c *versionsActivateCmd) Run(e *env) error {
	server, err := c.connect()
	if err != nil {
		return err
	}
	v, err := server.ActivateVersion(e.ctx, previewd.ActivateVersionRequest{ProjectID: c.Project, Number: c.Number})
	if err != nil {
		return err
	}
	if c.JSON {
		return e.streams.printJSON(v)
	}
	_, err = fmt.Fprintf(e.streams.Out, "version %d of project %s is shown\n", v.Number, v.ProjectID)
	return err
}

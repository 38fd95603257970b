package cli

import "github.com/previewd/previewd"

type templatesCmd struct {
	List templatesListCmd `cmd:"" help:"List the built-in templates."`
}

type templatesListCmd struct{ remote }

// Run implements the command.
func (c *templatesListCmd) Run(e *env) error {
	server, err := c.connect()
	if err != nil {
		return err
	}
	templates, err := server.ListTemplates(e.ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return e.streams.printJSON(map[string][]previewd.Template{"templates": templates})
	}
	rows := [][]any{{"NAME", "TITLE", "FILES", "SIZE", "DESCRIPTION"}}
	for _, t := range templates {
		rows = append(rows, []any{t.Name, t.Title, t.Files, bytesText(t.Bytes), t.Description})
	}
	return printTable(e.streams.Out, rows, "")
}

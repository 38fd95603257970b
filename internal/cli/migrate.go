package cli

import (
	"fmt"

	"github.com/previewd/previewd/internal/app"
)

type migrateCmd struct {
	Up     migrateUpCmd     `cmd:"" help:"Bring the database's schema to this program's version; make the database if there is none."`
	Status migrateStatusCmd `cmd:"" help:"Show the database's schema version and this program's. Changes nothing."`
}

type migrateStatusCmd struct{ local }

// Run implements the command.
func (c *migrateStatusCmd) Run(e *env) error {
	schema, err := app.FindSchema(e.ctx, c.config())
	if err != nil {
		return err
	}
	if c.JSON {
		if err := e.streams.printJSON(schema); err != nil {
			return err
		}
		return schema.Check(false)
	}
	text := "this program can run on it"
	switch {
	case schema.Current == 0:
		text = "no schema yet; previewd migrate up, or serve, makes it"
	case schema.Current < schema.Target:
		text = "previewd migrate up, or serve, brings it up to date"
	case schema.Current > schema.Target:
		text = "this program cannot run on it"
	}
	fmt.Fprintf(e.streams.Out, "database %d, program %d: %s\n", schema.Current, schema.Target, text)
	return schema.Check(false)
}

type migrateUpCmd struct{ local }

// Run implements the command.
func (c *migrateUpCmd) Run(e *env) error {
	before, err := app.Migrate(e.ctx, c.config())
	if err != nil {
		return err
	}
	if c.JSON {
		return e.streams.printJSON(map[string]int64{"from": before.Current, "to": before.Target})
	}
	text := fmt.Sprintf("migrated from version %d to %d", before.Current, before.Target)
	if before.Current == before.Target {
		text = fmt.Sprintf("nothing to do: the database has version %d", before.Target)
	}
	_, err = fmt.Fprintln(e.streams.Out, text)
	return err
}

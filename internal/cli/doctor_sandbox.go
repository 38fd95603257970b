package cli

import (
	"fmt"
	"strings"

	"github.com/previewd/previewd/internal/app"
	"github.com/previewd/previewd/internal/config"
)

type doctorSandboxCmd struct {
	Data     string `help:"Data folder of a server: the toolchain is laid out there." default:"./previewd-data" env:"PREVIEWD_DATA" type:"path"`
	BuildUID int    `help:"The server's number of the user that builds have." env:"PREVIEWD_BUILD_UID" default:"200001" placeholder:"N"`
	JSON     bool   `help:"Print JSON for programs."`

	config.Boxes `embed:""`
}

// Run implements the command.
func (c *doctorSandboxCmd) Run(e *env) error {
	tools, report, err := app.ProbeSandbox(e.ctx, config.Config{Data: c.Data, BuildUID: c.BuildUID, Boxes: c.Boxes}, "")
	if err != nil {
		report.Reason = err.Error()
	}
	if c.JSON {
		err = e.streams.printJSON(report)
	} else {
		rows := [][]any{}
		for _, check := range report.Checks {
			state := "OK"
			if !check.OK {
				state = "BROKEN"
			}
			rows = append(rows, []any{state, check.Name, check.Got})
		}
		err = printTable(e.streams.Out, rows, "")
	}
	if err != nil {
		return err
	}
	if !report.OK() {
		return brokenError(strings.TrimSpace("builds that run code are refused here: " + report.Reason + ". " + report.Fix))
	}
	if !c.JSON {
		fmt.Fprintf(e.streams.Out, "\nBuilds that run code are confined: level %s, Node.js %s, npm %s.\n", report.Level, tools.Node, tools.NPM)
	}
	return nil
}

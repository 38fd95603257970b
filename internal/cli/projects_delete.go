package cli

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/previewd/previewd"
)

type projectsDeleteCmd struct {
	remote
	Project string `arg:"" help:"Project id."`
	Yes     bool   `help:"Do not ask."`
}

// Run implements the command.
func (c *projectsDeleteCmd) Run(e *env) error {
	if !c.Yes {
		if c.JSON {
			return usageError("--json asks nobody: add --yes")
		}
		fmt.Fprintf(e.streams.Err, "Delete project %s with its builds, versions and previews? Nothing brings it back. [y/N] ", clip(c.Project, 64))
		answer, _ := bufio.NewReader(e.streams.In).ReadString('\n')
		if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
			fmt.Fprintln(e.streams.Err)
			return usageError("nothing was deleted: answer y, or give --yes")
		}
	}
	server, err := c.connect()
	if err != nil {
		return err
	}
	if err := server.DeleteProject(e.ctx, previewd.DeleteProjectRequest{ProjectID: c.Project}); err != nil {
		return err
	}
	if c.JSON {
		return e.streams.printJSON(map[string]string{"deleted": c.Project})
	}
	_, err = fmt.Fprintf(e.streams.Out, "deleted  %s\n", c.Project)
	return err
}

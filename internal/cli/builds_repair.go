package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/previewd/previewd"
)

type buildsFailureCmd struct {
	remote
	Build string `arg:"" help:"Build id."`
}

// Run implements the command.
func (c *buildsFailureCmd) Run(e *env) error {
	server, err := c.connect()
	if err != nil {
		return err
	}
	p, err := server.FindFailure(e.ctx, c.Build)
	if err != nil {
		return err
	}
	if c.JSON {
		return e.streams.printJSON(p)
	}
	fmt.Fprint(e.streams.Out, failureText(&previewd.Build{Failure: &p.Failure, ReferenceID: p.ReferenceID}))
	for _, file := range p.Files {
		fmt.Fprintf(e.streams.Out, "\n--- %s\n", clip(file.Path, 200))
		line := file.FirstLine
		for text := range strings.Lines(file.Content) {
			mark := " "
			if file.Path == p.Failure.File && line == p.Failure.Line {
				mark = ">"
			}
			fmt.Fprintf(e.streams.Out, "%s %5d  %s\n", mark, line, clip(strings.ReplaceAll(strings.TrimRight(text, "\r\n"), "\t", "    "), 400))
			line++
		}
	}
	for _, earlier := range p.Tried.Earlier {
		fmt.Fprintf(e.streams.Out, "\nbefore it, build #%d failed as %s: %s\n  the repair changed %s\n",
			earlier.Seq, earlier.Code, clip(earlier.Message, 400), clip(strings.Join(earlier.Changed, ", "), 400))
	}
	if p.Repairable {
		fmt.Fprintf(e.streams.Out, "\nTo repair it: previewd builds repair %s --dir FOLDER, which holds the changed files.\n", p.BuildID)
	}
	return nil
}

type buildsRepairCmd struct {
	remote
	awaits
	Build  string   `arg:"" help:"Id of the build that failed."`
	Dir    string   `help:"Folder of changed files, laid over the build's; honours .gitignore." type:"existingdir"`
	Remove []string `help:"Path of the build's files that is to go; may be repeated." placeholder:"PATH" sep:"none"`
	Prompt string   `help:"What the repair is about; the build's prompt when left out."`
	Key    string   `help:"Idempotency key: repeating the command with it creates nothing new." placeholder:"KEY"`
}

// Run implements the command.
func (c *buildsRepairCmd) Run(e *env) error {
	if c.Dir == "" && len(c.Remove) == 0 {
		return usageError("there is nothing to repair with: name a --dir of changed files, or paths to --remove")
	}
	server, err := c.connect()
	if err != nil {
		return err
	}
	req := previewd.RepairBuildRequest{BuildID: c.Build, Prompt: c.Prompt, Remove: c.Remove, IdempotencyKey: c.Key}
	if req.TemplateFiles, err = e.filesIn(c.Dir); err != nil {
		return err
	}
	build, err := server.RepairBuild(e.ctx, req)
	if err != nil {
		return err
	}
	if !c.JSON {
		fmt.Fprintf(e.streams.Out, "project  %s\nbuild    %s\n", build.ProjectID, build.ID)
	}
	if c.Wait {
		var ended *previewd.Build
		if ended, err = c.wait(e, server, build.ID); ended != nil {
			build = ended
		}
	}
	if c.JSON { // also when waiting failed: the build is there
		err = errors.Join(err, e.streams.printJSON(build))
	}
	return err
}

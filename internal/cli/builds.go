package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/client"
)

type buildsCmd struct {
	Watch    buildsWatchCmd    `cmd:"" help:"Follow a build to its end."`
	Cancel   buildsCancelCmd   `cmd:"" help:"End a build."`
	Log      buildsLogCmd      `cmd:"" help:"Print a build's log."`
	Packages buildsPackagesCmd `cmd:"" help:"List the npm packages that a build was made with."`
	Failure  buildsFailureCmd  `cmd:"" help:"Print what mending a failed build takes."`
	Repair   buildsRepairCmd   `cmd:"" help:"Build a failed build's files again, with changes."`
}

type buildsWatchCmd struct {
	remote
	Build string `arg:"" help:"Build id."`
	After int64  `help:"Begin after this event."`
	Log   bool   `help:"Print the log too."`
}

// Run implements the command.
func (c *buildsWatchCmd) Run(e *env) error {
	server, err := c.connect()
	if err != nil {
		return err
	}
	var p progress = &lines{out: e.streams.Err, began: time.Now()}
	watch := client.Watch{After: c.After}
	switch {
	case c.JSON:
		enc := json.NewEncoder(e.streams.Out)
		watch.Event = func(event previewd.Event) error { return enc.Encode(event) }
	case c.Log:
		watch.Log = func(_ int64, text string) error {
			_, err := io.WriteString(e.streams.Out, text)
			return err
		}
	default:
		p = newProgress(e.ctx, e.streams)
	}
	if watch.Event == nil {
		watch.Event = func(event previewd.Event) error {
			p.event(event)
			return nil
		}
	}
	if err := server.WatchBuild(e.ctx, c.Build, watch); err != nil {
		return err
	}
	build, err := server.FindBuild(e.ctx, c.Build, 0)
	if err != nil {
		return err
	}
	if !c.JSON {
		p.done(build)
	}
	if build.Status != previewd.BuildCompleted {
		return &buildEndedError{build}
	}
	return nil
}

type buildsCancelCmd struct {
	remote
	Build string        `arg:"" help:"Build id."`
	Wait  time.Duration `help:"Wait up to this long until the build is over." default:"30s"`
}

// Run implements the command.
func (c *buildsCancelCmd) Run(e *env) error {
	server, err := c.connect()
	if err != nil {
		return err
	}
	build, err := server.CancelBuild(e.ctx, previewd.CancelBuildRequest{BuildID: c.Build})
	if err != nil {
		return err
	}
	for until := time.Now().Add(c.Wait); !build.Status.Terminal(); {
		left := time.Until(until)
		if left <= 0 {
			return fmt.Errorf("%w: the build is still %s", errTimedOut, build.Status)
		}
		if build, err = server.FindBuild(e.ctx, c.Build, left); err != nil {
			return err
		}
	}
	if c.JSON {
		return e.streams.printJSON(build)
	}
	_, err = fmt.Fprintf(e.streams.Out, "build %s is %s\n", build.ID, build.Status)
	return err
}

type buildsLogCmd struct {
	remote
	Build  string `arg:"" help:"Build id."`
	Offset int64  `help:"Byte to begin at."`
	Follow bool   `short:"f" help:"Go on until the build is over."`
}

// Run implements the command.
func (c *buildsLogCmd) Run(e *env) error {
	server, err := c.connect()
	if err != nil {
		return err
	}
	offset := c.Offset
	for {
		chunk, err := server.ReadLog(e.ctx, c.Build, offset, 0)
		if err != nil {
			return err
		}
		if c.JSON {
			err = e.streams.printJSON(map[string]any{
				"offset": chunk.Offset, "nextOffset": chunk.Next, "complete": chunk.Complete, "text": string(chunk.Data),
			})
		} else {
			_, err = fmt.Fprintf(e.streams.Out, "%s", chunk.Data)
		}
		if err != nil || chunk.Complete || !c.Follow && len(chunk.Data) == 0 {
			return err
		}
		if offset = chunk.Next; len(chunk.Data) == 0 {
			// A build writes its log while its status stays; ask again soon.
			if _, err := server.FindBuild(e.ctx, c.Build, 500*time.Millisecond); err != nil {
				return err
			}
		}
	}
}

type buildsPackagesCmd struct {
	remote
	Build string `arg:"" help:"Build id."`
}

// Run implements the command.
func (c *buildsPackagesCmd) Run(e *env) error {
	server, err := c.connect()
	if err != nil {
		return err
	}
	list, err := server.ListPackages(e.ctx, c.Build)
	if err != nil {
		return err
	}
	if c.JSON {
		return e.streams.printJSON(list)
	}
	rows := [][]any{{"PACKAGE", "VERSION", "SIZE", "INTEGRITY"}}
	for _, p := range list.Packages {
		rows = append(rows, []any{clip(p.Name, 214), clip(p.Version, 100), bytesText(p.Bytes), clip(p.Integrity, 100)})
	}
	return printTable(e.streams.Out, rows, "")
}

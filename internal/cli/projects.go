package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/client"
)

type projectsCmd struct {
	Create projectsCreateCmd `cmd:"" help:"Create a project and its first build."`
	List   projectsListCmd   `cmd:"" help:"List projects, newest first."`
	Show   projectsShowCmd   `cmd:"" help:"Show a project and its newest build."`
	Delete projectsDeleteCmd `cmd:"" help:"Delete a project with its builds, versions and previews."`
}

type projectsCreateCmd struct {
	remote
	Prompt   string `help:"What the project is to be; given to the template as data."`
	Template string `help:"Built-in template to start from; see previewd templates list." xor:"source"`
	Dir      string `help:"Folder whose files are the project; honours .gitignore." type:"existingdir" xor:"source"`
	User     string `help:"Who the project belongs to." default:"${user}" env:"PREVIEWD_USER"`
	Key      string `help:"Idempotency key: repeating the command with it creates nothing new." placeholder:"KEY"`
	awaits
	Open bool `help:"Open the preview in a browser; waits for the build."`
}

// awaits is how long a command waits for the build that it has made.
type awaits struct {
	Wait    bool          `help:"Wait for the build and say how it ended."`
	Timeout time.Duration `help:"With --wait: how long at most." default:"10m"`
}

// created is the JSON of projects create.
type created struct {
	*previewd.Preview
	Build *previewd.Build `json:"build,omitempty"`
}

// Run implements the command.
func (c *projectsCreateCmd) Run(e *env) error {
	if c.Template == "" && c.Dir == "" {
		return usageError("there is nothing to build: name a --template or a --dir")
	}
	server, err := c.connect()
	if err != nil {
		return err
	}
	req := previewd.CreatePreviewRequest{UserID: c.User, Prompt: c.Prompt, IdempotencyKey: c.Key}
	if c.Template != "" {
		req.Metadata = map[string]any{"template": c.Template}
	}
	if req.TemplateFiles, err = e.filesIn(c.Dir); err != nil {
		return err
	}
	preview, err := server.CreatePreview(e.ctx, req)
	if err != nil {
		return err
	}
	result := created{Preview: preview}
	if !c.JSON {
		fmt.Fprintf(e.streams.Out, "project  %s\nbuild    %s\npreview  %s\n", preview.ProjectID, preview.BuildID, preview.PreviewURL)
	}
	if c.Wait || c.Open {
		result.Build, err = c.wait(e, server, preview.BuildID)
		if result.Build != nil {
			preview.Status, preview.QueuePosition = result.Build.Status, 0
		}
	}
	if c.JSON { // also when waiting failed: the project is there
		err = errors.Join(err, e.streams.printJSON(result))
	}
	if err == nil && c.Open {
		openBrowser(preview.PreviewURL)
	}
	return err
}

func (c *awaits) wait(e *env, server *client.Client, buildID string) (*previewd.Build, error) {
	ctx, cancel := context.WithTimeoutCause(e.ctx, c.Timeout, errTimedOut)
	defer cancel()
	build, err := watchBuild(ctx, server, buildID, newProgress(ctx, e.streams))
	if err != nil && errors.Is(context.Cause(ctx), errTimedOut) {
		return nil, fmt.Errorf("%w: the build still runs; see previewd builds watch %s", errTimedOut, buildID)
	}
	return build, err
}

type projectsListCmd struct {
	remote
	User   string `help:"Only this user's."`
	Limit  int    `help:"Most projects to list." default:"50"`
	Cursor string `help:"Where the list before ended."`
}

// Run implements the command.
func (c *projectsListCmd) Run(e *env) error {
	server, err := c.connect()
	if err != nil {
		return err
	}
	page, err := server.ListProjects(e.ctx, previewd.ProjectFilter{UserID: c.User, Page: previewd.Page{Cursor: c.Cursor, Limit: c.Limit}})
	if err != nil {
		return err
	}
	if c.JSON {
		return e.streams.printJSON(page)
	}
	rows := [][]any{{"PROJECT", "STATUS", "VERSION", "USER", "CREATED", "PROMPT"}}
	for _, p := range page.Projects {
		rows = append(rows, []any{
			p.ID, p.Status, dash(p.CurrentVersion), p.UserID, p.CreatedAt.Local().Format(time.DateTime), clip(p.LatestBuild.Prompt, 40),
		})
	}
	return printTable(e.streams.Out, rows, page.Next)
}

type projectsShowCmd struct {
	remote
	Project string `arg:"" help:"Project id."`
}

// Run implements the command.
func (c *projectsShowCmd) Run(e *env) error {
	server, err := c.connect()
	if err != nil {
		return err
	}
	p, err := server.FindProject(e.ctx, c.Project)
	if err != nil {
		return err
	}
	if c.JSON {
		return e.streams.printJSON(p)
	}
	b := p.LatestBuild
	pinned := ""
	if p.Pinned {
		pinned = " (pinned)"
	}
	w := tabwriter.NewWriter(e.streams.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "project\t%s\nstatus\t%s\npreview\t%s\nversion\t%s%s\nuser\t%s\nid made by\t%s, asked for by %s\ncreated\t%s\n",
		p.ID, p.Status, p.PreviewURL, dash(p.CurrentVersion), pinned, p.UserID, p.IDGenerationSource, p.CreatedByService, p.CreatedAt.Local().Format(time.DateTime))
	fmt.Fprintf(w, "build\t#%d %s (%s)\nsource\t%d files, %s\n", b.Seq, b.ID, summary(&b), b.Source.Files, bytesText(b.Source.Bytes))
	if b.Runner != "" {
		fmt.Fprintf(w, "runner\t%s, because %s\n", b.Runner, b.Reason)
	}
	fmt.Fprintf(w, "prompt\t%s\n", clip(b.Prompt, 200))
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprint(e.streams.Out, failureText(&b))
	return err
}

// printTable prints rows under a header and says how to go on.
func printTable(out io.Writer, rows [][]any, next string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cell)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if next != "" {
		fmt.Fprintf(out, "There is more: --cursor %s\n", next)
	}
	return nil
}

func dash(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

// clip shortens text of strangers to one line that cannot drive a terminal.
func clip(s string, n int) string {
	var out []rune
	for _, r := range s {
		if len(out) == n {
			return string(out) + "…"
		}
		if r == '\n' || r == '\t' || previewd.Harmless(r) < 0 {
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}

func bytesText(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d bytes", n)
	case n < 1_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// defaultUser is who projects belong to when nobody is named.
func defaultUser() string {
	if user := os.Getenv("USER"); user != "" {
		return user
	}
	return "local"
}

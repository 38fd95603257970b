package cli

import (
	"fmt"
	"strings"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/app"
)

type detectCmd struct {
	Dir   string `arg:"" help:"Folder to look at." type:"existingdir"`
	Build string `help:"metadata.build of a create request, as JSON; wins over previewd.json." placeholder:"JSON"`
	JSON  bool   `help:"Print JSON for programs."`
}

// refusedError says that a tree cannot be built. Why has been printed.
type refusedError struct{ failure *previewd.Failure }

func (e *refusedError) Error() string { return e.failure.Message }

// Run implements the command.
func (c *detectCmd) Run(e *env) error {
	var request []byte
	if c.Build != "" {
		request = []byte(c.Build)
	}
	plan, err := app.Detect(c.Dir, request)
	if err != nil {
		return err
	}
	if c.JSON {
		err = e.streams.printJSON(plan)
	} else {
		_, err = fmt.Fprint(e.streams.Out, planText(plan))
	}
	if err == nil && plan.Failure != nil {
		return &refusedError{plan.Failure}
	}
	return err
}

// planText says what was decided, each with its reason below it.
func planText(p *previewd.Plan) string {
	var text strings.Builder
	line := func(name, value string, why previewd.Why) {
		if value == "" {
			value = "-"
		}
		if why.Unsure {
			value += " (not sure)"
		}
		fmt.Fprintf(&text, "%-16s %s\n%-16s   %s\n", name, value, "", why.Reason)
	}
	manager := strings.TrimSuffix(p.PackageManager.Name+" "+p.PackageManager.Version, " ")
	if p.PackageManager.Variant != "" {
		manager += " (" + p.PackageManager.Variant + ")"
	}
	if p.Bundle.OK {
		line("runner", "bundle, or sandbox if the bundler steps aside", p.Bundle.Why)
	} else {
		line("runner", p.Runner.Name, p.Runner.Why)
		line("bundled", "", p.Bundle.Why)
	}
	line("framework", strings.TrimSpace(p.Framework.Title+" "+p.Framework.Version), p.Framework.Why)
	line("package manager", manager, p.PackageManager.Why)
	line("install", argvText(p.Install.Argv), p.Install.Why)
	line("build", argvText(p.Build.Argv), p.Build.Why)
	line("output", p.Output.Path, p.Output.Why)
	line("node", p.Node.Range, p.Node.Why)
	line("fallback", p.Fallback.File, p.Fallback.Why)
	line("workspace", strings.Join(p.Workspace.Apps, ", "), p.Workspace.Why)
	for _, note := range p.Notes {
		fmt.Fprintf(&text, "note: %s\n", note)
	}
	if f := p.Failure; f != nil {
		fmt.Fprintf(&text, "\nA build is refused: %s\n", f.Code)
		for _, part := range []string{f.File, f.Message, f.Hint} {
			if part != "" {
				fmt.Fprintln(&text, part)
			}
		}
	}
	return strings.Map(previewd.Harmless, text.String())
}

// argvText shows a command's words so that each can be told from the next.
func argvText(argv []string) string {
	words := make([]string, 0, len(argv))
	for _, word := range argv {
		if word == "" || strings.ContainsAny(word, " \t\"'\\$`&|;<>()*?~#") {
			word = fmt.Sprintf("%q", word)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

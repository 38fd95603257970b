package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/previewd/previewd"
)

type envCmd struct {
	Set  envSetCmd  `cmd:"" help:"Set a variable; its value is read from the terminal, unseen, or from standard input."`
	List envListCmd `cmd:"" help:"List variables by name; values of secrets are never shown."`
	Rm   envRmCmd   `cmd:"" help:"Remove a variable."`
}

type envSetCmd struct {
	remote
	Project string   `arg:"" help:"Project id."`
	Name    string   `arg:"" help:"Name, such as API_URL."`
	Secret  bool     `help:"Store it encrypted, show it to nobody and hide it in logs. What is a secret is set again with this only, or removed first."`
	Scope   []string `help:"Which commands are given it: install, build, or both. Default: build." placeholder:"SCOPE,..."`
}

// Run implements the command. There is no flag for the value: arguments are seen
// by everybody on the machine, and stay in the shell's history.
func (c *envSetCmd) Run(e *env) error {
	req := previewd.SetEnvRequest{ProjectID: c.Project, Name: c.Name, Secret: c.Secret}
	for _, scope := range c.Scope {
		req.Scopes = append(req.Scopes, previewd.EnvScope(scope))
	}
	server, err := c.connect()
	if err != nil {
		return err
	}
	if req.Value, err = readValue(e.streams, c.Name); err != nil {
		return err
	}
	v, err := server.SetEnv(e.ctx, req)
	if err != nil {
		return err
	}
	if c.JSON {
		return e.streams.printJSON(v)
	}
	_, err = fmt.Fprintf(e.streams.Out, "set  %s%s for %s, from the next build on\n", v.Name, secretNote(v), scopesText(v))
	return err
}

func secretNote(v *previewd.EnvVar) string {
	if v.Secret {
		return " (secret)"
	}
	return ""
}

func scopesText(v *previewd.EnvVar) string {
	var words []string
	for _, scope := range v.Scopes {
		words = append(words, string(scope))
	}
	return strings.Join(words, ",")
}

// readValue reads a value without showing it. The line break that ends what a
// shell pipes is no part of it.
func readValue(s Streams, name string) (previewd.Hidden, error) {
	if f, ok := s.In.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(s.Err, "Value of %s (not shown): ", clip(name, 128))
		raw, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(s.Err)
		return previewd.Hidden(raw), err
	}
	raw, err := io.ReadAll(io.LimitReader(s.In, previewd.MaxEnvValueBytes+3))
	if err != nil {
		return "", fmt.Errorf("cannot read the value: %w", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	if text == "" && len(raw) == 0 {
		return "", errors.New("there is no value: pipe it in, as in `printf %s \"$VALUE\" | previewd env set ...`")
	}
	return previewd.Hidden(text), nil
}

type envListCmd struct {
	remote
	Project string `arg:"" help:"Project id."`
}

// Run implements the command.
func (c *envListCmd) Run(e *env) error {
	server, err := c.connect()
	if err != nil {
		return err
	}
	list, err := server.ListEnv(e.ctx, c.Project)
	if err != nil {
		return err
	}
	if c.JSON {
		return e.streams.printJSON(map[string]any{"variables": list})
	}
	rows := [][]any{{"NAME", "VALUE", "SCOPES", "UPDATED"}}
	for _, v := range list {
		value := "(secret)"
		if v.Value != nil {
			value = clip(*v.Value, 80)
		}
		rows = append(rows, []any{v.Name, value, scopesText(&v), minute(&v.UpdatedAt)})
	}
	return printTable(e.streams.Out, rows, "")
}

type envRmCmd struct {
	remote
	Project string `arg:"" help:"Project id."`
	Name    string `arg:"" help:"Name."`
}

// Run implements the command.
func (c *envRmCmd) Run(e *env) error {
	server, err := c.connect()
	if err != nil {
		return err
	}
	if err := server.DeleteEnv(e.ctx, previewd.DeleteEnvRequest{ProjectID: c.Project, Name: c.Name}); err != nil {
		return err
	}
	if c.JSON {
		return e.streams.printJSON(map[string]string{"removed": c.Name})
	}
	_, err = fmt.Fprintf(e.streams.Out, "removed  %s\n", c.Name)
	return err
}

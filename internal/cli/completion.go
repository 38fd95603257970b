package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// completeArg asks the program itself what could come next; the scripts call it.
const completeArg = "__complete"

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

var completionScripts = map[string]string{
	"bash": `# Use: source <(previewd completion bash)
_previewd() { mapfile -t COMPREPLY < <(previewd __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); }
complete -o default -F _previewd previewd
`,
	"zsh": `#compdef previewd
# Use: previewd completion zsh > "${fpath[1]}/_previewd"
_previewd() { local -a found; found=("${(@f)$(previewd __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"); compadd -a found || _files }
compdef _previewd previewd
`,
	"fish": `# Use: previewd completion fish > ~/.config/fish/completions/previewd.fish
complete -c previewd -a '(previewd __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
`,
}

// Run implements the command.
func (c *completionCmd) Run(e *env) error {
	_, err := io.WriteString(e.streams.Out, completionScripts[c.Shell])
	return err
}

// complete prints what could stand in place of the last word.
func complete(words []string, streams Streams) int {
	parser, err := newParser(streams, func(int) {})
	if err != nil {
		return exitError
	}
	if len(words) == 0 {
		words = []string{""}
	}
	node, last := parser.Model.Node, words[len(words)-1]
	for _, word := range words[:len(words)-1] {
		for _, child := range node.Children {
			if child.Name == word {
				node = child
			}
		}
	}
	for _, candidate := range candidates(node, last) {
		fmt.Fprintln(streams.Out, candidate)
	}
	return exitOK
}

func candidates(node *kong.Node, prefix string) []string {
	var found []string
	add := func(word string) {
		if strings.HasPrefix(word, prefix) {
			found = append(found, word)
		}
	}
	for _, child := range node.Children {
		if !child.Hidden {
			add(child.Name)
		}
	}
	for _, arg := range node.Positional {
		for _, value := range arg.EnumSlice() {
			add(value)
		}
	}
	if strings.HasPrefix(prefix, "-") {
		for _, flag := range node.Flags {
			add("--" + flag.Name)
		}
	}
	return found
}

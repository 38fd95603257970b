package cli

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A config file is read whole or refused: no setting of it goes unused.
func FuzzConfigFile(f *testing.F) {
	for _, seed := range []string{
		"", "addr: 127.0.0.1:0\n", "addr: a\naddr: b\n", "adr: x\n", "serve:\n  addr: x\n", "- addr\n", "null\n", "addr: [1, 2]\n", "&a addr: *a\n", "a: &a [x]\nb: [*a,*a]\n", "<<: {addr: x}\n", "? {a: 1}\n: b\n", "1: 2\n", "---\naddr: x\n---\nbuilds: 2\n", "%YAML 1.2\n---\n{}\n", "!!binary x: y\n", "addr: !!int x\n", "\t", "\xff", "\x00", "addr: \"\\ud800\"\n", "config: x\n", "? ? ? ?", "lease: 30s # x\n",
	} {
		f.Add([]byte(seed))
	}
	parser, err := newParser(Streams{Out: io.Discard, Err: io.Discard}, func(int) {})
	require.NoError(f, err)
	known := map[string]bool{}
	for _, command := range parser.Model.Children {
		if command.Name == "serve" {
			for _, flag := range command.Flags {
				known[flag.Name] = flag.Name != "config"
			}
		}
	}
	_, err = strictYAML(strings.NewReader("addr: a\n---\nbuilds: 2\n"))
	require.ErrorContains(f, err, "second document")
	f.Fuzz(func(t *testing.T, raw []byte) {
		resolver, err := strictYAML(bytes.NewReader(raw))
		if err != nil || resolver.Validate(parser.Model) != nil {
			return
		}
		for name := range resolver.(*yamlResolver).settings {
			require.True(t, known[name], "%q is taken and is no setting", name)
		}
	})
}

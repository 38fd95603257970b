package main_test

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/previewd/previewd/internal/cli"
	"github.com/previewd/previewd/internal/testkit"
)

func TestMain(m *testing.M) {
	// Builds' children are this test binary, started under the program's name.
	testscript.Main(cleaningUp{m}, map[string]func(){
		"previewd": func() { os.Exit(cli.Main(os.Args[1:], cli.Standard())) },
	})
}

type cleaningUp struct{ *testing.M }

func (m cleaningUp) Run() int {
	defer testkit.CleanUp()
	return m.M.Run()
}

// Whole command lines, with what they print and how they exit.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"waitfor": waitFor, "sql": runSQL, "code": exitCode, "keep": keep, "until": until},
	})
}

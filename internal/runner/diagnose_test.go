package runner

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

func readOutput(t testing.TB, name string) string {
	t.Helper()
	raw, err := os.ReadFile("testdata/diagnose/" + name + ".txt")
	require.NoError(t, err)
	return string(raw)
}

func TestDiagnoseCapturedOutputs(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/diagnose/*.txt")
	require.NoError(t, err)
	require.Len(t, files, len(failedInstalls)+len(failedBuilds), "each file is in one table")
	for _, install := range []bool{true, false} {
		cases, argv, step := failedBuilds, []string{"npm", "run", "build"}, previewd.StepBuild
		if install {
			cases, argv, step = failedInstalls, []string{"npm", "install"}, previewd.StepInstall
		}
		for name, want := range cases {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f := diagnose(commandEnd{
					install: install, argv: argv, code: 1, output: readOutput(t, name),
					unreachable: want.code == previewd.FailRegistryUnreachable,
				})
				require.Equal(t, want, wantedFailure{f.Code, f.File, f.Line, want.message})
				require.Contains(t, f.Message, want.message)
				require.Equal(t, want.code == previewd.FailRegistryUnreachable, f.Class == previewd.FailureInfra)
				require.Equal(t, step, f.Step)
				require.NotEmpty(t, f.Hint)
				require.NotEmpty(t, f.Excerpt)
				require.NotContains(t, f.Message+f.Excerpt, "/workspace")
				require.NotContains(t, f.Excerpt, "A complete log of this run")
				inBounds(t, f)
			})
		}
	}
}

func inBounds(t testing.TB, f *previewd.Failure) {
	t.Helper()
	const mark = len("…")
	require.LessOrEqual(t, len(f.Message), 1000+mark)
	require.LessOrEqual(t, len(f.Hint), 500+mark)
	require.LessOrEqual(t, len(f.File), 1024)
	lines := strings.Split(f.Excerpt, "\n")
	require.LessOrEqual(t, len(lines), excerptLines)
	for _, line := range lines {
		require.LessOrEqual(t, len(line), 400+mark)
	}
	for _, text := range append(slices.Clone(lines), f.Message, f.Hint, f.File) {
		require.True(t, utf8.ValidString(text), "%q", text)
		require.Equal(t, text, strings.Map(printable, text))
	}
	require.GreaterOrEqual(t, f.Line, 0)
	require.GreaterOrEqual(t, f.Column, 0)
}

// treeOf is the source of a commandEnd with these files.
func treeOf(files map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		text, ok := files[name]
		return text, ok
	}
}

func TestDiagnoseShowsTheLineOfTheSource(t *testing.T) {
	t.Parallel()
	app := "import { useState } from 'react'\nimport confetti from 'canvas-confetti'\n\nexport default () => <h1>{confetti.name}</h1>\n"
	f := diagnose(commandEnd{output: readOutput(t, "vite5-import-unresolved"), source: treeOf(map[string]string{
		"package.json": `{"dependencies": {"react": "^19.0.0"}}`, "src/App.tsx": app,
	})})
	require.Equal(t, previewd.FailDependencyUnavailable, f.Code)
	require.Equal(t, 2, f.Line)
	require.Equal(t, 22, f.Column)
	require.Equal(t, "2 | import confetti from 'canvas-confetti'\n  |                      ^", f.Excerpt)
	require.Contains(t, f.Message, "package.json does not list it")
	require.Contains(t, f.Hint, "npm install canvas-confetti")
}

func TestDiagnoseNamesWhatPackageJSONLists(t *testing.T) {
	t.Parallel()
	manifest := treeOf(map[string]string{"package.json": `{"scripts": {"build": "vite build"}, "devDependencies": {"vite": "^8.0.0", "canvas-confetti": "1"}}`})
	pnpm := &previewd.Plan{PackageManager: previewd.PlanPackageManager{Name: "pnpm", Lockfile: "pnpm-lock.yaml"}}
	for name, c := range map[string]struct {
		end           commandEnd
		code          string
		message, hint string
	}{
		"ProgramOfDevDependencies": {commandEnd{output: "sh: 1: vite: not found\n", code: 127}, previewd.FailBuild, "lists it under devDependencies", "NODE_ENV"},
		"ProgramOfAnotherPackage":  {commandEnd{output: "sh: tsc: command not found\n", plan: pnpm}, previewd.FailBuild, "the package typescript", "pnpm add typescript"},
		"ProgramOfNoPackage":       {commandEnd{output: "sh: 1: python3: not found\n"}, previewd.FailBuild, "Node.js and its package managers only", "Change the build command"},
		"ScriptOrProgram":          {commandEnd{output: "error Command \"prebuilt\" not found.\n"}, previewd.FailBuild, `no script "prebuilt"`, "Add the script"},
		"TypesOfAListedPackage":    {commandEnd{output: "a.ts(1,2): error TS2307: Cannot find module 'vite' or its corresponding type declarations.\n"}, previewd.FailType, "TS2307", ""},
		"ModuleOfDevDependencies":  {commandEnd{output: "Error: Cannot find module 'canvas-confetti/dist'\n"}, previewd.FailDependencyUnavailable, `"canvas-confetti" is not installed. package.json lists it`, "NODE_ENV"},
		"GoneOfAnotherPackage":     {commandEnd{install: true, output: "npm error 404  The requested resource '@a/b@^1' could not be found\n"}, previewd.FailDependencyUnavailable, `"@a/b". package.json does not list it: another package wants it.`, "Remove the package"},
		"GoneByTheRegistry":        {commandEnd{install: true, missing: []string{"vite@^99"}}, previewd.FailDependencyUnavailable, `no package "vite"`, "package.json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.end.source = manifest
			f := diagnose(c.end)
			require.Equal(t, c.code, f.Code)
			require.Contains(t, f.Message, c.message)
			require.Contains(t, f.Hint, c.hint)
		})
	}
}

func TestDiagnoseTellsWhatIsSureBeforeWhatIsLikely(t *testing.T) {
	t.Parallel()
	denied := []string{"telemetry.nextjs.org:443"}
	typed := "src/a.ts(1,2): error TS2322: Type 'string' is not assignable to type 'number'.\n"
	for name, c := range map[string]struct {
		end  commandEnd
		code string
	}{
		"TypeErrorBesideADenial":       {commandEnd{output: typed, denied: denied}, previewd.FailType},
		"DenialAlone":                  {commandEnd{output: "it failed\n", denied: denied}, previewd.FailNetworkBlocked},
		"WarningOfAnEngine":            {commandEnd{install: true, output: "npm warn EBADENGINE Unsupported engine {\nnpm error code 1\n"}, previewd.FailInstall},
		"UnreachableButConflicting":    {commandEnd{install: true, unreachable: true, output: readOutput(t, "npm-eresolve-peer")}, previewd.FailEresolve},
		"UnreachableInABuild":          {commandEnd{unreachable: true, output: "it failed\n"}, previewd.FailBuild},
		"ErrorInAPackage":              {commandEnd{output: "/workspace/node_modules/x/index.js:1:2: ERROR: Unexpected \"}\"\n"}, previewd.FailBuild},
		"OldNpm":                       {commandEnd{install: true, output: "npm ERR! code ETARGET\nnpm ERR! notarget No matching version found for a@9.\n"}, previewd.FailDependencyUnavailable},
		"WatchersAreNoDisk":            {commandEnd{output: "Error: ENOSPC: System limit for number of file watchers reached\n"}, previewd.FailBuild},
		"WithoutOutput":                {commandEnd{argv: []string{"npm", "run", "build"}, code: 137}, previewd.FailBuild},
		"ViteSaysWhichNodeItWants":     {commandEnd{output: "You are using Node.js 18.20.8. Vite requires Node.js version 20.19+ or 22.12+. Please upgrade your Node.js version.\nTypeError: crypto.hash is not a function\n"}, previewd.FailEngine},
		"AddressWithoutARoute":         {commandEnd{output: "Error: connect ENETUNREACH 93.184.216.34:443 - Local (0.0.0.0:0)\n"}, previewd.FailNetworkBlocked},
		"QuotaOfTheDisk":               {commandEnd{output: "Error: EDQUOT: disk quota exceeded, write\n"}, previewd.FailDiskLimit},
		"PathThatLeadsOutOfTheTree":    {commandEnd{output: "../../etc/passwd(1,2): error TS2322: No.\n"}, previewd.FailBuild},
		"WordsOfAScriptAreNoLockfile":  {commandEnd{output: "Your lockfile needs to be updated\n"}, previewd.FailBuild},
		"EngineOfAnInstallIsNotABuild": {commandEnd{install: true, output: typed}, previewd.FailInstall},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.code, diagnose(c.end).Code)
		})
	}
	require.Contains(t, diagnose(commandEnd{argv: []string{"npm", "run", "build"}, code: 137}).Message, "npm run build was killed by signal 9")
}

// A stranger's output cannot make the diagnosis slow.
func TestDiagnoseIsLinear(t *testing.T) {
	t.Parallel()
	for _, piece := range []string{"a", "a:1:1", "(1,2): error TS1: ", "./a:1:1\n", "Error: x\n at ", "\x1b[", "\x1b]", "/workspace/", "node_modules/", "npm error ", " ", "[", "error: a failed to resolve\n"} {
		end := commandEnd{output: strings.Repeat(piece, 4*maxOutput/len(piece))}
		began := time.Now()
		for range 2 {
			diagnose(end)
			end.install = true
		}
		require.Less(t, time.Since(began), 5*time.Minute, "%q: quadratic, it would be hours", piece)
	}
}

// Whatever a command wrote, its failure is in bounds.
func FuzzDiagnose(f *testing.F) {
	files, err := filepath.Glob("testdata/diagnose/*.txt")
	require.NoError(f, err)
	for i, file := range files {
		f.Add(readOutput(f, strings.TrimSuffix(filepath.Base(file), ".txt")), `{"dependencies":{"react":"^19.0.0"}}`, i%2 == 0, i)
	}
	f.Add("\xff\x1b[31m\u202e(1,1): error TS1: \x00\n", "\xff\n\t\n", true, 137)
	f.Add("a\u00e9(1,99999): error TS1: "+strings.Repeat("\u00e9", 3000), "[", false, -1)
	f.Fuzz(func(t *testing.T, output, source string, install bool, code int) {
		failure := diagnose(commandEnd{
			install: install, argv: []string{source, output}, code: code, output: output,
			source:  func(string) (string, bool) { return source, code%2 == 0 },
			missing: strings.Fields(source), unreachable: code%3 == 0, denied: strings.Fields(source),
		})
		require.Equal(t, failure.Code == previewd.FailRegistryUnreachable, failure.Class == previewd.FailureInfra)
		require.NotEmpty(t, failure.Code)
		require.NotEmpty(t, failure.Message)
		inBounds(t, failure)
	})
}

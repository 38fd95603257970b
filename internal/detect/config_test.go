package detect_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/detect"
)

func TestConfigIsTakenOrExplained(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ config, message, hint string }{
		"Unknown":      {`{"outputs":"dist"}`, `holds "outputs"`, "Known are runner, framework, packageManager, install, build, output, node and fallback."},
		"Env":          {`{"env":{}}`, `holds "env"`, "Known are"},
		"Case":         {`{"Output":"dist"}`, `holds "Output"`, "Known are"},
		"Twice":        {`{"output":"a","output":"b"}`, `says "output" twice`, "Keep one"},
		"Broken":       {`{"output":`, "not valid: it ends too early", ""},
		"More":         {`{} {}`, "something follows", ""},
		"Deep":         {strings.Repeat(`{"a":`, 100), "nested deeper than 32", ""},
		"List":         {`[]`, "must be an object", "Known are"},
		"ShellString":  {`{"build":"npm run build"}`, "build is a string; no shell", `{"build": ["npm", "run", "build"]}`},
		"ShellQuotes":  {`{"install":"npm i 'a b'"}`, "install is a string", `["npm", "i", "a b"]`},
		"ShellAnd":     {`{"build":"a && b"}`, "build is a string", "script of package.json"},
		"ShellVar":     {`{"build":"echo $HOME"}`, "build is a string", "script of package.json"},
		"ShellArgv":    {`{"build":["sh","-c","npm run build"]}`, "hands a string to a shell", `["npm", "run", "build"]`},
		"ShellArgvLC":  {`{"build":["/bin/bash","-lc","x"]}`, "no program's name", ""},
		"BashLC":       {`{"build":["bash","-lc","x y"]}`, "hands a string to a shell", `["x", "y"]`},
		"EmptyBuild":   {`{"build":[]}`, "nothing would be built", `{"runner": "static"}`},
		"Words":        {`{"build":["a",1]}`, "Each word of build", ""},
		"Control":      {`{"build":["a\u001b[2J"]}`, "Each word of build", ""},
		"ManyWords":    {`{"build":[` + strings.Repeat(`"a",`, 70) + `"a"]}`, "up to 64 words", "Say it like"},
		"Program":      {`{"build":["../x"]}`, "no program's name", ""},
		"Runner":       {`{"runner":"npm"}`, "static, bundle or sandbox", ""},
		"RunnerBuild":  {`{"runner":"static","build":["a"]}`, "runs no command", "Remove either"},
		"Framework":    {`{"framework":"viite"}`, `"viite" is not known`, "vite and none"},
		"Manager":      {`{"packageManager":"npm@latest"}`, "is not known", "npm, pnpm, yarn and bun"},
		"OutputUp":     {`{"output":"../x"}`, "no folder of its own", "as seen from the root"},
		"OutputRoot":   {`{"output":"."}`, "no folder of its own", "root"},
		"OutputRooted": {`{"output":"/etc"}`, "no folder of its own", "root"},
		"OutputEmpty":  {`{"output":""}`, "no folder of its own", "root"},
		"Node":         {`{"node":"$(x)"}`, "is no version", "lts/*"},
		"Fallback":     {`{"fallback":"../x"}`, "no file of the output", "index.html"},
		"Type":         {`{"output":1}`, "output must be a string", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan := planOf(t, files{"previewd.json": c.config, "index.html": ""})
			require.NotNil(t, plan.Failure)
			require.Equal(t, previewd.FailBadConfig, plan.Failure.Code)
			require.Equal(t, detect.ConfigFile, plan.Failure.File)
			require.Contains(t, plan.Failure.Message, c.message)
			require.Contains(t, plan.Failure.Hint, c.hint)
			if c.hint == "" {
				require.Empty(t, plan.Failure.Hint)
			}
		})
	}
}

// The request wins over the tree's file, which wins over what is found.
func TestRequestWins(t *testing.T) {
	t.Parallel()
	tree := files{
		"package.json":  `{"scripts":{"build":"vite build","x":"astro build"},"devDependencies":{"vite":"7"}}`,
		"previewd.json": `{"output":"a","node":"20","fallback":"/app.html","framework":"astro"}`,
	}
	plan := detect.Detect(tree.fs(), detect.Options{Request: []byte(`{"output":"b","build":["npm","run","x"],"env":{"VITE_A":"1"},"fallback":false}`)})
	requireReasons(t, plan)
	require.Nil(t, plan.Failure)
	require.Equal(t, "b", plan.Output.Path)
	require.Equal(t, "metadata.build", plan.Output.From)
	require.Equal(t, "20", plan.Node.Range)
	require.Equal(t, "previewd.json", plan.Node.From)
	require.Equal(t, []string{"npm", "run", "x"}, plan.Build.Argv)
	require.Equal(t, "astro", plan.Framework.Name)
	require.Empty(t, plan.Fallback.File)
	require.Equal(t, "metadata.build", plan.Fallback.From)

	plan = detect.Detect(tree.fs(), detect.Options{Request: []byte(`{"runner":"static"}`)})
	require.Nil(t, plan.Failure)
	require.Equal(t, previewd.RunnerStatic, plan.Runner.Name)
	require.Equal(t, "metadata.build", plan.Runner.From)

	plan = detect.Detect(tree.fs(), detect.Options{Request: []byte(`{"run":"static"}`)})
	require.Equal(t, "metadata.build", plan.Failure.File)
	require.Contains(t, plan.Failure.Hint, "Known are runner")

	// A command is run although the tree would be shown as it is.
	plan = detect.Detect(files{"previewd.json": `{"runner":"static"}`}.fs(), detect.Options{Request: []byte(`{"build":["make"]}`)})
	require.Nil(t, plan.Failure)
	require.Equal(t, previewd.RunnerSandbox, plan.Runner.Name)
	require.Empty(t, plan.Install.Argv)
}

func TestPackageJSONIsReadAsNodeReadsIt(t *testing.T) {
	t.Parallel()
	plan := planOf(t, files{"package.json": "\xef\xbb\xbf" + `{"scripts":{"build":"a","build":"vite build"},"Scripts":{"build":"b"},"devDependencies":{"vite":"7"}}`})
	require.Nil(t, plan.Failure)
	require.Contains(t, plan.Build.Reason, "vite build")
	require.Contains(t, plan.Notes, `package.json says "build" twice; the last one counts, as for npm.`)
	for name, text := range map[string]string{"broken": "{", "list": "[]", "deep": strings.Repeat("[", 100000), "large": `{"a":"` + strings.Repeat("x", 1<<20) + `"}`, "values": "[" + strings.Repeat("1,", 100_001) + "1]"} {
		plan := planOf(t, files{"package.json": text})
		require.NotNil(t, plan.Failure, name)
		require.Equal(t, previewd.FailBadConfig, plan.Failure.Code, name)
		require.Equal(t, "package.json", plan.Failure.File, name)
	}
}

// A tree that needs no command is left to the runner's own choice.
func TestFilesAreLeftToTheRunner(t *testing.T) {
	t.Parallel()
	asked := 0
	options := detect.Options{Choose: func(string, string) (string, string, *previewd.Failure) {
		asked++
		return previewd.RunnerBundle, "index.html loads a.tsx", nil
	}}
	for _, tree := range []files{
		{"index.html": ""}, {"index.html": "", "package.json": `{"devDependencies":{"vite":"7"}}`},
		{"package.json": `{"scripts":{"build":"x"}}`, "previewd.json": `{"runner":"bundle"}`},
	} {
		plan := detect.Detect(tree.fs(), options)
		requireReasons(t, plan)
		require.Nil(t, plan.Failure)
		require.Equal(t, previewd.RunnerBundle, plan.Runner.Name)
		require.Empty(t, plan.Build.Argv)
	}
	require.Equal(t, 3, asked)
	options.Choose = func(string, string) (string, string, *previewd.Failure) {
		return "", "", &previewd.Failure{Code: previewd.FailNoIndex, Message: "no index"}
	}
	require.Equal(t, previewd.FailNoIndex, detect.Detect(files{"a.txt": ""}.fs(), options).Failure.Code)
}

// Links are not followed, neither of files nor of folders on the way.
func TestLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "package.json"), []byte(pkg("vite build", "vite")), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "config.mts"), []byte(`export default { outDir: "secret" }`), 0o600))
	for _, open := range []func(string) fs.FS{os.DirFS, func(dir string) fs.FS {
		root, err := os.OpenRoot(dir)
		require.NoError(t, err)
		t.Cleanup(func() { root.Close() })
		return root.FS()
	}} {
		dir := t.TempDir()
		require.NoError(t, os.Symlink(filepath.Join(outside, "package.json"), filepath.Join(dir, "package.json")))
		plan := detect.Detect(open(dir), detect.Options{})
		require.Equal(t, previewd.FailBadConfig, plan.Failure.Code)
		require.Contains(t, plan.Failure.Message, "links are not followed")

		dir = t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "package.json"), []byte(pkg("vitepress build", "vitepress")), 0o600))
		require.NoError(t, os.Symlink(outside, filepath.Join(dir, ".vitepress")))
		require.NoError(t, os.Symlink(filepath.Join(outside, "package.json"), filepath.Join(dir, "package-lock.json")))
		plan = detect.Detect(open(dir), detect.Options{})
		require.Nil(t, plan.Failure)
		require.Equal(t, ".vitepress/dist", plan.Output.Path)
		require.Empty(t, plan.PackageManager.Lockfile)
		require.Contains(t, strings.Join(plan.Notes, "\n"), "package-lock.json is no regular file")
	}
}

// counting counts what is opened.
type counting struct {
	fstest.MapFS
	opened []string
}

func (c *counting) Open(name string) (fs.File, error) {
	c.opened = append(c.opened, name)
	return c.MapFS.Open(name)
}

func TestReadingIsBounded(t *testing.T) {
	t.Parallel()
	var globs []string
	tree := files{}
	for i := range 2000 {
		name := "p" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/26)
		tree["many/"+name+"/package.json"] = pkg("vite build", "vite")
		globs = append(globs, `"many/`+name+`"`)
	}
	tree["package.json"] = `{"scripts":{"build":"x"},"workspaces":[` + strings.Join(globs, ",") + `]}`
	c := &counting{MapFS: tree.fs()}
	plan := detect.Detect(c, detect.Options{})
	require.Equal(t, previewd.FailWorkspace, plan.Failure.Code)
	require.Less(t, len(c.opened), 100)
	require.Len(t, plan.Workspace.Apps, 10)
}

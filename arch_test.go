package previewd_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/fault"
)

const module = "github.com/previewd/previewd"

// mayImport says which of our packages a package may import; docs/architecture.md
// explains it. "" is the root. Arrows point down: a change here needs an ADR.
var mayImport = map[string][]string{
	"":                   {"internal/fault"},
	"internal/fault":     {},
	"client":             {""},
	"internal/artifact":  {""},
	"internal/boxtest":   {"internal/sandbox"},
	"internal/config":    {""},
	"internal/detect":    {""},
	"internal/event":     {},
	"internal/redact":    {""},
	"internal/sandbox":   {},
	"internal/container": {"internal/sandbox"},
	"internal/telemetry": {},
	"internal/toolchain": {"internal/npm"},
	"internal/identity":  {"", "internal/telemetry"},
	"internal/npm":       {"internal/telemetry"},
	"internal/httpx":     {"", "internal/fault", "internal/telemetry"},
	"internal/store":     {"", "internal/fault"},
	"internal/runner":    {"", "internal/artifact", "internal/detect", "internal/fault", "internal/npm", "internal/redact", "internal/sandbox", "internal/telemetry", "internal/toolchain"},
	"internal/worker":    {"", "internal/store", "internal/artifact", "internal/detect", "internal/fault", "internal/telemetry"},
	"internal/webhook":   {"", "internal/store", "internal/telemetry"},
	"internal/workerapi": {"", "client", "internal/httpx", "internal/telemetry"},
	"internal/gateway":   {"", "internal/store", "internal/fault", "internal/httpx", "internal/telemetry", "internal/webhook"},
	"internal/preview":   {"", "internal/artifact", "internal/httpx", "internal/telemetry"},
	"internal/app":       {"", "internal/artifact", "internal/config", "internal/container", "internal/detect", "internal/event", "internal/gateway", "internal/httpx", "internal/identity", "internal/npm", "internal/preview", "internal/runner", "internal/sandbox", "internal/store", "internal/telemetry", "internal/toolchain", "internal/webhook", "internal/worker", "internal/workerapi"},
	"internal/cli":       {"", "client", "internal/app", "internal/config"},
	"internal/testkit":   {"internal/app", "internal/config", "internal/store"},
	"cmd/previewd":       {"internal/cli"},
}

// mayUse lists the modules that the program's packages import, with who may.
// docs/dependencies.md says why each is there.
var mayUse = map[string][]string{
	"code.dny.dev/ssrf":                   {"internal/webhook"},
	"github.com/Masterminds/semver/v3":    {"internal/toolchain"},
	"github.com/alecthomas/kong":          {"internal/cli"},
	"github.com/andybalholm/brotli":       {"internal/runner"},
	"github.com/chromedp/chromedp":        {"internal/testkit"},
	"github.com/danielgtaylor/huma/v2":    {"internal/gateway", "internal/httpx", "internal/workerapi"},
	"github.com/elastic/go-seccomp-bpf":   {"internal/sandbox"},
	"github.com/evanw/esbuild":            {"internal/runner"},
	"github.com/go-git/go-git/v5":         {"internal/cli"},
	"github.com/go-json-experiment/json":  {"internal/httpx", "internal/identity", "internal/worker"},
	"github.com/gofrs/flock":              {"internal/app", "internal/store", "internal/toolchain"},
	"github.com/jackc/pgx/v5":             {"internal/store", "internal/testkit"},
	"github.com/klauspost/compress":       {"internal/runner"},
	"github.com/landlock-lsm/go-landlock": {"internal/sandbox"},
	"github.com/lestrrat-go/jwx/v3":       {"internal/identity"},
	"github.com/pressly/goose/v3":         {"internal/store"},
	"github.com/prometheus/client_golang": {"internal/app"},
	"github.com/rs/cors":                  {"internal/app"},
	"github.com/stretchr/testify":         {"internal/boxtest", "internal/testkit"},
	"github.com/tailscale/hujson":         {"internal/runner"},
	"github.com/tmaxmax/go-sse":           {"client"},
	"github.com/vbauerster/mpb/v8":        {"internal/cli"},
	"golang.org/x/net":                    {"internal/config", "internal/runner", "internal/sandbox"},
	"golang.org/x/sync":                   {"internal/app", "internal/cli", "internal/container", "internal/httpx", "internal/npm", "internal/runner"},
	"golang.org/x/sys":                    {"internal/container", "internal/runner", "internal/sandbox", "internal/toolchain"},
	"golang.org/x/term":                   {"internal/cli"},
	"golang.org/x/text":                   {"internal/cli", "internal/gateway", "internal/worker"},
	"gopkg.in/yaml.v3":                    {"internal/cli"},
	"modernc.org/sqlite":                  {"internal/store"},
}

// Budgets: past them a thing is hard to read.
const (
	maxFileLines  = 500
	maxFuncLines  = 80
	maxInterface  = 8
	maxParameters = 5
	maxPackages   = 30
)

// source is one Go file of the product or its tests.
type source struct {
	path string // slash-separated, from the root
	dir  string // package folder; "" is the root
	test bool
	fset *token.FileSet
	file *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	var list []source
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "testdata" || path == "tools") {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		dir := filepath.ToSlash(filepath.Dir(path))
		if dir == "." {
			dir = ""
		}
		list = append(list, source{filepath.ToSlash(path), dir, strings.HasSuffix(path, "_test.go"), fset, file})
		return err
	})
	require.NoError(t, err)
	require.NotEmpty(t, list)
	return list
}

func (s source) imports() []string {
	var list []string
	for _, spec := range s.file.Imports {
		list = append(list, strings.Trim(spec.Path.Value, `"`))
	}
	return list
}

func TestImportsFollowTheTable(t *testing.T) {
	t.Parallel()
	seen, used := map[string]bool{}, map[string]bool{}
	for _, s := range sources(t) {
		seen[s.dir] = true
		if s.test {
			continue
		}
		allowed, known := mayImport[s.dir]
		require.True(t, known, "package %q is not in the table", s.dir)
		for _, path := range s.imports() {
			ours, isOurs := strings.CutPrefix(path, module)
			switch {
			case isOurs:
				ours = strings.TrimPrefix(ours, "/")
				used[s.dir+"→"+ours] = true
				require.Contains(t, allowed, ours, "%s imports %s", s.path, path)
			case strings.Contains(strings.SplitN(path, "/", 2)[0], "."):
				require.NotEmpty(t, s.dir, "the root imports the standard library only: %s imports %s", s.path, path)
				require.Contains(t, usersOf(path), s.dir, "%s imports %s", s.path, path)
			}
		}
	}
	for dir, allowed := range mayImport {
		require.True(t, seen[dir], "the table names %q, which does not exist", dir)
		for _, ours := range allowed {
			require.True(t, used[dir+"→"+ours], "the table lets %q import %q, which it does not", dir, ours)
		}
	}
	require.LessOrEqual(t, len(seen), maxPackages, "packages")
}

func usersOf(path string) []string {
	for name, users := range mayUse {
		if path == name || strings.HasPrefix(path, name+"/") {
			return users
		}
	}
	return nil
}

func TestTestHelpersStayInTests(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test || s.dir == "internal/testkit" || s.dir == "internal/boxtest" {
			continue
		}
		require.NotContains(t, s.imports(), "testing", s.path)
		require.NotContains(t, s.imports(), module+"/internal/testkit", s.path)
		require.NotContains(t, s.imports(), module+"/internal/boxtest", s.path)
	}
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		lines := s.fset.Position(s.file.End()).Line
		require.LessOrEqual(t, lines, maxFileLines, s.path)
		ast.Inspect(s.file, func(n ast.Node) bool {
			where := func() string { return fmt.Sprint(s.fset.Position(n.Pos())) }
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Body != nil && !isTable(n) {
					length := s.fset.Position(n.End()).Line - s.fset.Position(n.Pos()).Line + 1
					require.LessOrEqual(t, length, maxFuncLines, "%s %s", where(), n.Name)
				}
				require.LessOrEqual(t, n.Type.Params.NumFields(), maxParameters, "%s %s", where(), n.Name)
			case *ast.InterfaceType:
				require.LessOrEqual(t, n.Methods.NumFields(), maxInterface, where())
			}
			return true
		})
	}
}

// isTable reports whether most of a function is one literal: a table of data.
func isTable(f *ast.FuncDecl) bool {
	total, table := f.End()-f.Pos(), token.Pos(0)
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if literal, ok := n.(*ast.CompositeLit); ok {
			table = max(table, literal.End()-literal.Pos())
			return false
		}
		return true
	})
	return table*2 > total
}

// Ids of projects are made in one place.
func TestOnlyTheWorkerMakesIDs(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test || s.dir == "" || s.dir == "internal/worker" {
			continue
		}
		for _, path := range s.imports() {
			require.NotRegexp(t, `/(uuid|xid|ulid|ksuid)\b`, path, s.path)
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				require.NotEqual(t, "NewID", sel.Sel.Name, "%s makes an id", s.fset.Position(n.Pos()))
			}
			return true
		})
	}
}

// Every linked module is one that somebody decided on.
func TestDependenciesAreExplained(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("docs/dependencies.md")
	require.NoError(t, err)
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./cmd/previewd").Output()
	require.NoError(t, err)
	linked := strings.Fields(string(out))
	slices.Sort(linked)
	for _, path := range slices.Compact(linked) {
		if path != module {
			require.Contains(t, string(doc), "`"+path+"`", "docs/dependencies.md does not explain it")
		}
	}
}

var unowned = regexp.MustCompile(`(?i)\b(todo|fixme|xxx)\b`)

func TestNoLooseEnds(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		base := filepath.Base(s.path)
		require.NotContains(t, []string{"utils.go", "util.go", "helpers.go", "common.go", "types.go", "misc.go"}, base, s.path)
		if s.path == "arch_test.go" {
			continue
		}
		for _, group := range s.file.Comments {
			require.NotRegexp(t, unowned, group.Text(), "%s", s.fset.Position(group.Pos()))
		}
	}
}

// Each mechanism that can be switched off has tests that must notice.
func TestEachMechanismIsMutated(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("scripts/mutate")
	require.NoError(t, err)
	var listed []string
	for _, line := range regexp.MustCompile(`(?m)^([a-z-]+) +\.[a-z/]* +Test`).FindAllStringSubmatch(string(script), -1) {
		listed = append(listed, line[1])
	}
	slices.Sort(listed)
	var known []string
	for _, m := range fault.Mechanisms() {
		known = append(known, string(m))
	}
	slices.Sort(known)
	require.Equal(t, known, slices.Compact(listed))
}

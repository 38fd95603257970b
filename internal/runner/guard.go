package runner

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/previewd/previewd"
)

// Namespaces of modules that are no files of the tree.
const (
	nsPackage = "package" // one that previewd embeds
	nsPublic  = "public"  // a file of public/: its URL
	nsInline  = "inline"  // a module written into a page
)

// refusal is what the guard says of an import that it does not allow. It comes
// back as the Detail of esbuild's message.
type refusal struct {
	code string
	hint string
}

// guard resolves imports as Vite does, and lets none out of the tree: neither by
// path nor by a link. esbuild by itself reads any file of the machine.
type guard struct {
	dir      string // the tree, absolute, free of links
	packages string // holds node_modules, likewise; "" when none are installed
	preact   bool   // react means preact's form of it
	aliases  []alias
	inline   map[string]moduleScript
	pages    map[string]string // inline module → its page
	modules  bool              // the tree brings along packages in node_modules
	large    func(file string, size int64)
	loaded   atomic.Int64 // bytes
}

const (
	largeFile = 512 << 10
	// maxLoaded bounds what is bundled of packages, in bytes: the bundler takes tens
	// of times that in memory, and none but the tree's own build is bounded in it.
	maxLoaded = 32 << 20
)

// resolved marks a request that the guard itself makes of esbuild's resolver.
type resolved struct{}

func (g *guard) setup(b api.PluginBuild) {
	b.OnResolve(api.OnResolveOptions{Filter: ".*"}, func(args api.OnResolveArgs) (api.OnResolveResult, error) {
		if _, again := args.PluginData.(resolved); again {
			return api.OnResolveResult{}, nil
		}
		return g.resolve(b, args), nil
	})
	b.OnLoad(api.OnLoadOptions{Filter: ".*"}, func(args api.OnLoadArgs) (api.OnLoadResult, error) {
		return g.load(args)
	})
}

func refuse(code, hint, format string, args ...any) api.OnResolveResult {
	return api.OnResolveResult{Errors: []api.Message{{
		Text: clip(fmt.Sprintf(format, args...), 500), Detail: refusal{code, hint},
	}}}
}

func (g *guard) resolve(b api.PluginBuild, args api.OnResolveArgs) api.OnResolveResult {
	spec := args.Path
	switch {
	case spec == "":
		return refuse(previewd.FailBundle, "", "An import names nothing.")
	case args.Kind == api.ResolveEntryPoint:
		if _, ok := g.inline[spec]; ok {
			return api.OnResolveResult{Path: spec, Namespace: nsInline}
		}
		return g.find(b, args, "./"+spec, g.dir)
	case hasScheme(spec) && !strings.HasPrefix(spec, "node:"), strings.HasPrefix(spec, "//"):
		return api.OnResolveResult{Path: spec, External: true}
	case strings.HasPrefix(spec, "#"):
		if args.Kind == api.ResolveCSSURLToken {
			return api.OnResolveResult{Path: spec, External: true}
		}
		return g.find(b, args, spec, args.ResolveDir) // package.json "imports"
	case args.Namespace == nsPackage:
		return g.packageImport(spec)
	case strings.HasPrefix(spec, "/"):
		return g.rooted(b, args)
	case spec == "." || spec == ".." || strings.HasPrefix(spec, "./") || strings.HasPrefix(spec, "../"):
		return g.find(b, args, spec, args.ResolveDir)
	case args.Kind == api.ResolveCSSURLToken || args.Kind == api.ResolveCSSImportRule:
		// In CSS a bare reference is relative; else it is to a package.
		result := g.find(b, args, "./"+spec, args.ResolveDir)
		if len(result.Errors) > 0 && g.packages != "" {
			return g.bare(b, args)
		}
		return result
	}
	return g.bare(b, args)
}

// rooted resolves "/x": a file of the tree, or of public/, which is served
// under this very URL. It never means the machine's root.
func (g *guard) rooted(b api.PluginBuild, args api.OnResolveArgs) api.OnResolveResult {
	name := filepath.Clean(stripQuery(args.Path))
	if info, err := os.Lstat(filepath.Join(g.dir, "public", name)); err == nil && info.Mode().IsRegular() {
		if args.Kind == api.ResolveCSSURLToken || args.Kind == api.ResolveCSSImportRule {
			return api.OnResolveResult{Path: args.Path, External: true}
		}
		return api.OnResolveResult{Path: name, Namespace: nsPublic}
	}
	return g.find(b, args, "."+args.Path, g.dir)
}

// find lets esbuild resolve a path or a package of the tree and checks where
// that leads.
func (g *guard) find(b api.PluginBuild, args api.OnResolveArgs, spec, from string) api.OnResolveResult {
	name, suffix := spec, ""
	if i := strings.IndexAny(spec[1:], "?#"); i >= 0 && !strings.HasPrefix(spec, "#") {
		name, suffix = spec[:i+1], spec[i+1:]
	}
	if strings.HasPrefix(name, ".") && !g.holds(filepath.Join(from, name)) {
		return refuse(previewd.FailUnsafePath, "Import files of the project only.", "Import %q leaves the project.", args.Path)
	}
	found := b.Resolve(name, api.ResolveOptions{ResolveDir: from, Kind: kindFor(args.Kind), Importer: args.Importer, PluginData: resolved{}})
	if len(found.Errors) > 0 {
		return refuse(previewd.FailBundle, "", "Cannot find %q.", args.Path)
	}
	if found.External || found.Namespace != "" && found.Namespace != "file" {
		return api.OnResolveResult{Path: found.Path, External: found.External, Namespace: found.Namespace}
	}
	_, ok := g.real(found.Path)
	if strings.Contains(args.Importer, "/node_modules/") && (ok || !exists(found.Path)) {
		// A package may say that browsers do without a file. esbuild does not tell
		// plugins, so it gets to resolve this again; what it loads is checked.
		return api.OnResolveResult{}
	}
	if !ok {
		return refuse(previewd.FailUnsafePath, "Import files of the project only; links out of it are not followed.",
			"Import %q leads out of the project.", args.Path)
	}
	effects := api.SideEffectsTrue
	if !found.SideEffects {
		effects = api.SideEffectsFalse
	}
	return api.OnResolveResult{Path: found.Path, Suffix: suffix, SideEffects: effects}
}

// holds reports whether a cleaned absolute path lies in the tree or its packages.
func (g *guard) holds(file string) bool {
	return inside(g.dir, file) || g.packages != "" && inside(g.packages, file)
}

// real follows a file's links and reports whether that leads to something that
// the guard holds.
func (g *guard) real(file string) (real string, ok bool) {
	real, err := filepath.EvalSymlinks(file)
	return real, err == nil && g.holds(real)
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return filepath.IsAbs(file) && err == nil
}

// kindFor turns the kind of an entry point, which esbuild's resolver would look
// for like a command-line argument, into that of an import.
func kindFor(kind api.ResolveKind) api.ResolveKind {
	if kind == api.ResolveEntryPoint {
		return api.ResolveJSImportStatement
	}
	return kind
}

// bare resolves a package: one that an alias of tsconfig.json means, that the
// tree brings along in node_modules, or that previewd embeds.
func (g *guard) bare(b api.PluginBuild, args api.OnResolveArgs) api.OnResolveResult {
	for _, candidate := range expandAliases(g.aliases, args.Path) {
		if result := g.find(b, args, "./"+candidate, g.dir); len(result.Errors) == 0 || result.Errors[0].Detail.(refusal).code == previewd.FailUnsafePath {
			return result
		}
	}
	if g.packages != "" {
		return g.installed(b, args)
	}
	if g.modules {
		result := g.find(b, args, args.Path, args.ResolveDir)
		if len(result.Errors) == 0 || result.Errors[0].Detail.(refusal).code == previewd.FailUnsafePath {
			return result
		}
	}
	name := packageName(args.Path)
	if file, ok := embedded[args.Path]; ok {
		return api.OnResolveResult{Path: file, Namespace: nsPackage}
	}
	hint := "Without npm a project can import its own files, preact and react. Remove the import, or send the package's files along."
	return refuse(previewd.FailDependencyUnavailable, hint, "Package %q is not available: %q is neither a file of the project nor a package that previewd brings along.", name, args.Path)
}

// installed resolves a package among the installed ones: from where it is imported
// if that is one of them, else from their root.
func (g *guard) installed(b api.PluginBuild, args api.OnResolveArgs) api.OnResolveResult {
	spec, from := args.Path, args.ResolveDir
	if !inside(g.packages, from) {
		from = g.packages
	}
	if g.preact {
		spec = cmp.Or(preactFor[spec], spec)
	}
	return g.find(b, args, spec, from)
}

// preactFor are the aliases of Preact's preset for Vite.
var preactFor = map[string]string{
	"react": "preact/compat", "react-dom": "preact/compat", "react-dom/client": "preact/compat/client", "react-dom/test-utils": "preact/test-utils",
	"react/jsx-runtime": "preact/jsx-runtime", "react/jsx-dev-runtime": "preact/jsx-runtime",
}

// packageImport resolves what an embedded package imports: other embedded ones.
func (g *guard) packageImport(spec string) api.OnResolveResult {
	if file, ok := embedded[spec]; ok {
		return api.OnResolveResult{Path: file, Namespace: nsPackage}
	}
	return refuse(previewd.FailDependencyUnavailable, "", "An embedded package imports %q, which is not embedded.", spec)
}

func (g *guard) load(args api.OnLoadArgs) (api.OnLoadResult, error) {
	switch args.Namespace {
	case nsPackage:
		raw, err := packageFS.ReadFile("packages/" + args.Path)
		source := string(raw)
		return api.OnLoadResult{Contents: &source, Loader: api.LoaderJS, ResolveDir: "/"}, err
	case nsPublic:
		source := fmt.Sprintf("export default %q", args.Path)
		return api.OnLoadResult{Contents: &source, Loader: api.LoaderJS}, nil
	case nsInline:
		script := g.inline[args.Path]
		source := strings.Repeat("\n", script.line-1) + string(withoutSourceMap([]byte(script.inline))) // keeps the page's line numbers
		dir := filepath.Join(g.dir, filepath.Dir(g.pages[args.Path]))
		return api.OnLoadResult{Contents: &source, Loader: api.LoaderTS, ResolveDir: dir}, nil
	}
	return g.loadFile(args)
}

// loadFile is the second line: whatever way esbuild came to a file, it is not
// read unless it lies in the tree.
func (g *guard) loadFile(args api.OnLoadArgs) (api.OnLoadResult, error) {
	if !filepath.IsAbs(args.Path) { // a module of Node that a package.json says browsers do without
		source := "module.exports = {}"
		return api.OnLoadResult{Contents: &source, Loader: api.LoaderJS}, nil
	}
	real, ok := g.real(args.Path)
	if !ok {
		return api.OnLoadResult{Errors: []api.Message{{
			Text:   "The import leads to a file that is not in the project.", // not even its name is said
			Detail: refusal{code: previewd.FailUnsafePath, hint: "Import files of the project only."},
		}}}, nil
	}
	if info, err := os.Stat(real); err == nil {
		if info.Size() > largeFile {
			g.large(args.Path, info.Size())
		}
		if g.loaded.Add(info.Size()) > maxLoaded && g.packages != "" {
			return api.OnLoadResult{Errors: []api.Message{{Text: fmt.Sprintf("The source and its packages are more than %d MB.", maxLoaded>>20)}}}, nil
		}
	}
	if slices.Contains(mappedExt, filepath.Ext(real)) && args.Suffix == "" {
		raw, err := os.ReadFile(real)
		if what := g.needsVite(real, raw); what != "" {
			return api.OnLoadResult{Errors: []api.Message{{Text: fmt.Sprintf("%s uses %s, which the bundler does not know.", strings.TrimPrefix(real, g.dir+"/"), what)}}}, nil
		}
		source := string(withoutSourceMap(raw))
		return api.OnLoadResult{Contents: &source, Loader: api.LoaderDefault}, err
	}
	loader, special := map[string]api.Loader{"?raw": api.LoaderText, "?url": api.LoaderFile}[args.Suffix]
	if !special {
		if g.packages != "" && strings.HasPrefix(args.Suffix, "?") && !strings.Contains(real, "/node_modules/") {
			return api.OnLoadResult{Errors: []api.Message{{Text: fmt.Sprintf("An import ends in %q, which the bundler does not know.", clip(args.Suffix, 80))}}}, nil
		}
		return api.OnLoadResult{}, nil
	}
	raw, err := os.ReadFile(real)
	source := string(raw)
	return api.OnLoadResult{Contents: &source, Loader: loader}, err
}

var computedImport = regexp.MustCompile(`\bimport\s*\(\s*[^\s"'/)]`)

// needsVite returns what a module of a project with packages uses that Vite gives
// another meaning than the bundler; "" for nothing.
func (g *guard) needsVite(file string, source []byte) string {
	if g.packages == "" || filepath.Ext(file) == ".css" {
		return ""
	}
	if bytes.Contains(source, []byte("import.meta.glob")) {
		return "import.meta.glob"
	}
	if bytes.Contains(source, []byte("import.meta.url")) {
		return "import.meta.url" // of an asset or a worker
	}
	if inside(g.dir, file) && computedImport.Match(source) {
		return "import() of a name that is computed"
	}
	return ""
}

// mappedExt are the files whose source maps esbuild follows.
var mappedExt = []string{".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx", ".css"}

var sourceMapComment = regexp.MustCompile(`([/*][#@]\s*sourceMappingURL)=`)

// withoutSourceMap defuses comments that name a source map, without moving a
// byte: esbuild would read the map and the files that it names by itself, past
// every plugin, wherever on the machine they are.
func withoutSourceMap(source []byte) []byte {
	if !bytes.Contains(source, []byte("sourceMappingURL")) {
		return source
	}
	return sourceMapComment.ReplaceAll(source, []byte("$1:"))
}

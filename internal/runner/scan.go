package runner

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/evanw/esbuild/pkg/api"
)

// findBundlerNeed follows the modules that the tree's pages load and returns
// why a browser cannot run them as they are, or "". A prebuilt site imports
// only scripts, by path: it is served as it is, because bundling it again would
// break the names that it relies on.
func findBundlerNeed(t *sourceTree, dir string) string {
	s := &moduleScan{dir: dir}
	options := api.BuildOptions{
		Bundle: true, Write: false, Format: api.FormatESModule, LogLevel: api.LogLevelSilent, Outdir: "/",
		AbsWorkingDir: dir, TsconfigRaw: "{}",
		Plugins: []api.Plugin{{Name: "scan", Setup: s.setup}},
	}
	for _, p := range t.pages {
		for _, script := range p.modules {
			if script.src == "" {
				if why := scanInline(options, p, script); why != "" {
					s.add(why)
				}
			} else if local, ok := localPath(p.path, script.src); ok && t.has(local) && !slices.Contains(options.EntryPoints, "./"+local) {
				options.EntryPoints = append(options.EntryPoints, "./"+local)
			}
		}
	}
	if result := api.Build(options); len(result.Errors) > 0 {
		// The bundler will say it again, with the line.
		s.add("its modules do not parse: " + result.Errors[0].Text)
	}
	slices.Sort(s.needs)
	if len(s.needs) == 0 {
		return ""
	}
	return s.needs[0]
}

// scanInline scans a module that is written into its page.
func scanInline(options api.BuildOptions, p page, script moduleScript) string {
	if strings.Contains(script.inline, "import.meta.env") {
		return p.path + " reads import.meta.env"
	}
	s := &moduleScan{dir: options.AbsWorkingDir}
	options.EntryPoints = nil
	options.Stdin = &api.StdinOptions{
		Contents: script.inline, Sourcefile: p.path, ResolveDir: filepath.Join(s.dir, filepath.Dir(p.path)),
	}
	options.Plugins = []api.Plugin{{Name: "scan", Setup: s.setup}}
	if result := api.Build(options); len(result.Errors) > 0 {
		return p.path + " holds a module that does not parse"
	}
	slices.Sort(s.needs)
	return strings.Join(s.needs[:min(1, len(s.needs))], "")
}

type moduleScan struct {
	dir   string
	mu    sync.Mutex
	needs []string
}

func (s *moduleScan) add(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.needs = append(s.needs, why)
}

func (s *moduleScan) name(file string) string {
	if rel, err := filepath.Rel(s.dir, file); err == nil {
		return rel
	}
	return file
}

func (s *moduleScan) setup(b api.PluginBuild) {
	b.OnResolve(api.OnResolveOptions{Filter: ".*"}, func(args api.OnResolveArgs) (api.OnResolveResult, error) {
		if args.Kind == api.ResolveEntryPoint {
			return api.OnResolveResult{Path: filepath.Join(s.dir, args.Path)}, nil
		}
		elsewhere := api.OnResolveResult{Path: args.Path, External: true}
		if hasScheme(args.Path) || strings.HasPrefix(args.Path, "//") {
			return elsewhere, nil
		}
		file := filepath.Join(args.ResolveDir, stripQuery(args.Path))
		if strings.HasPrefix(args.Path, "/") {
			file = filepath.Join(s.dir, stripQuery(args.Path))
		}
		script := filepath.Ext(file) == ".js" || filepath.Ext(file) == ".mjs"
		if !script || !strings.HasPrefix(args.Path, "/") && !strings.HasPrefix(args.Path, ".") {
			s.add(fmt.Sprintf("%s imports %q", s.name(args.Importer), clip(args.Path, 80)))
			return elsewhere, nil
		}
		if !inside(s.dir, file) {
			return elsewhere, nil // the bundler's guard names it
		}
		return api.OnResolveResult{Path: file}, nil
	})
	b.OnLoad(api.OnLoadOptions{Filter: ".*"}, func(args api.OnLoadArgs) (api.OnLoadResult, error) {
		source := ""
		if real, ok := resolveInside(s.dir, args.Path); ok {
			raw, err := os.ReadFile(real)
			if err != nil {
				return api.OnLoadResult{}, err
			}
			if bytes.Contains(raw, []byte("import.meta.env")) {
				s.add(s.name(args.Path) + " reads import.meta.env")
			}
			source = string(raw)
		}
		return api.OnLoadResult{Contents: &source, Loader: api.LoaderJS}, nil
	})
}

// resolveInside follows a file's links and reports whether that leads to
// something in the folder.
func resolveInside(dir, file string) (real string, ok bool) {
	real, err := filepath.EvalSymlinks(file)
	return real, err == nil && inside(dir, real)
}

// inside reports whether a cleaned absolute path lies in a folder.
func inside(dir, file string) bool {
	return file == dir || strings.HasPrefix(file, dir+string(filepath.Separator))
}

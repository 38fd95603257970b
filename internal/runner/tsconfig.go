package runner

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/previewd/previewd"
)

// alias is a rule of "paths" in tsconfig.json: at most one * on both sides.
type alias struct {
	prefix, suffix string
	exact          bool
	targets        []string // relative to the tree's root
}

// compilerOptions is what a bundler needs of tsconfig.json. esbuild gets it as
// text and never looks for the file: it would follow "extends" anywhere and
// quote what it finds there.
type compilerOptions struct {
	BaseURL                 string              `json:"baseUrl,omitempty"`
	Paths                   map[string][]string `json:"paths,omitempty"`
	JSX                     string              `json:"jsx,omitempty"`
	JSXFactory              string              `json:"jsxFactory,omitempty"`
	JSXFragmentFactory      string              `json:"jsxFragmentFactory,omitempty"`
	JSXImportSource         string              `json:"jsxImportSource,omitempty"`
	ExperimentalDecorators  *bool               `json:"experimentalDecorators,omitempty"`
	UseDefineForClassFields *bool               `json:"useDefineForClassFields,omitempty"`
	VerbatimModuleSyntax    *bool               `json:"verbatimModuleSyntax,omitempty"`
}

type tsconfig struct {
	Extends         any             `json:"extends"` // a string or a list
	References      []tsReference   `json:"references"`
	CompilerOptions compilerOptions `json:"compilerOptions"`
}

type tsReference struct {
	Path string `json:"path"`
}

const maxExtends, maxLoads = 16, 100

// readTSConfig reads the tree's tsconfig.json with all that it extends, and the
// paths of the projects that it refers to. It returns what esbuild is to take
// for tsconfig.json, and the aliases.
func readTSConfig(root *os.Root) (raw string, aliases []alias, failure *previewd.Failure) {
	l := &tsconfigLoader{root: root}
	options, references, failure := l.load("tsconfig.json", "", 0)
	if failure != nil {
		return "", nil, failure
	}
	for _, ref := range references {
		name := path.Clean(ref.Path)
		if path.Ext(name) != ".json" {
			name = path.Join(name, "tsconfig.json")
		}
		referred, _, failure := l.load(name, "tsconfig.json", 1)
		if failure != nil {
			return "", nil, failure
		}
		if options.Paths == nil {
			options.Paths = referred.Paths
		}
		if options.JSXImportSource == "" {
			options.JSXImportSource = referred.JSXImportSource
		}
	}
	aliases = newAliases(options.Paths)
	options.Paths, options.BaseURL = nil, ""
	if options.JSX == "" || options.JSX == "preserve" || options.JSX == "react-native" {
		options.JSX = "react-jsx"
	}
	text, err := json.Marshal(map[string]any{"compilerOptions": options})
	if err != nil {
		return "", nil, badConfig("tsconfig.json", err.Error())
	}
	return string(text), aliases, nil
}

// tsconfigLoader counts what it loads: lists of extends can multiply.
type tsconfigLoader struct {
	root  *os.Root
	loads int
}

// load reads one file and what it extends. Targets of "paths" come out
// relative to the tree's root. from is the file that named this one, "" for the
// first, which may be missing.
func (l *tsconfigLoader) load(name, from string, depth int) (compilerOptions, []tsReference, *previewd.Failure) {
	var config tsconfig
	if failure := readTSConfigFile(l.root, name, from, &config); failure != nil {
		return compilerOptions{}, nil, failure
	}
	if l.loads++; depth > maxExtends || l.loads > maxLoads {
		return compilerOptions{}, nil, badConfig(name, "extends goes round in a circle or too deep.")
	}
	var merged compilerOptions
	for _, base := range extendsOf(config.Extends) {
		if !strings.HasPrefix(base, ".") && !strings.HasPrefix(base, "/") {
			continue // a package's settings: none of those matter to a bundler
		}
		target := path.Join(path.Dir(name), base)
		if strings.HasPrefix(base, "/") || strings.HasPrefix(target, "..") {
			return merged, nil, unsafeExtends(name, base)
		}
		if path.Ext(target) != ".json" {
			target += ".json"
		}
		inherited, _, failure := l.load(target, name, depth+1)
		if failure != nil {
			return merged, nil, failure
		}
		overlay(&merged, inherited)
	}
	own := config.CompilerOptions
	base := path.Join(path.Dir(name), own.BaseURL)
	for pattern, targets := range own.Paths {
		for i, target := range targets {
			targets[i] = path.Join(base, target)
		}
		own.Paths[pattern] = targets
	}
	overlay(&merged, own)
	return merged, config.References, nil
}

func unsafeExtends(file, spec string) *previewd.Failure {
	return &previewd.Failure{
		Class: previewd.FailureUser, Code: previewd.FailUnsafePath, Step: previewd.StepBuild, File: file,
		Message: fmt.Sprintf("extends %q leads out of the project.", spec), Hint: "Extend files of the project only.",
	}
}

func readTSConfigFile(root *os.Root, name, from string, config *tsconfig) *previewd.Failure {
	raw, err := readLimited(root.FS(), name, maxJSONFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && from == "":
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return badConfig(from, fmt.Sprintf("%s refers to %s, which does not exist.", from, name))
	case err != nil:
		// The folder's root lets no link and no path out.
		if _, ok := resolveInside(root.Name(), filepath.Join(root.Name(), name)); !ok {
			return unsafeExtends(cmp.Or(from, name), name)
		}
		return badConfig(name, fmt.Sprintf("%s cannot be read: %v.", name, err))
	}
	standard, err := hujson.Standardize(raw)
	if err == nil {
		err = json.Unmarshal(standard, config)
	}
	if err != nil {
		return badConfig(name, fmt.Sprintf("%s is not valid: %v.", name, err))
	}
	return nil
}

func extendsOf(value any) []string {
	switch v := value.(type) {
	case string:
		return []string{v}
	case []any:
		var list []string
		for _, item := range v {
			if s, ok := item.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}

// overlay sets in base whatever top says.
func overlay(base *compilerOptions, top compilerOptions) {
	raw, err := json.Marshal(top)
	if err == nil {
		if top.Paths != nil {
			base.Paths = nil // replaced as a whole, not merged
		}
		_ = json.Unmarshal(raw, base) // what Marshal wrote, Unmarshal reads
	}
}

func newAliases(paths map[string][]string) []alias {
	var aliases []alias
	for _, pattern := range slices.Sorted(maps.Keys(paths)) {
		prefix, suffix, star := strings.Cut(pattern, "*")
		aliases = append(aliases, alias{prefix: prefix, suffix: suffix, exact: !star, targets: paths[pattern]})
	}
	// The longest prefix wins, as in TypeScript; an exact name beats patterns.
	slices.SortStableFunc(aliases, func(a, b alias) int {
		if a.exact != b.exact {
			if a.exact {
				return -1
			}
			return 1
		}
		return len(b.prefix) - len(a.prefix)
	})
	return aliases
}

// expandAliases returns the paths in the tree that an import may mean.
func expandAliases(aliases []alias, spec string) []string {
	for _, a := range aliases {
		star := ""
		if a.exact {
			if spec != a.prefix {
				continue
			}
		} else {
			rest, ok := strings.CutPrefix(spec, a.prefix)
			if star, ok = cutSuffixIf(rest, a.suffix, ok); !ok {
				continue
			}
		}
		var candidates []string
		for _, target := range a.targets {
			candidates = append(candidates, path.Clean(strings.Replace(target, "*", star, 1)))
		}
		return candidates
	}
	return nil
}

func cutSuffixIf(s, suffix string, ok bool) (string, bool) {
	if !ok {
		return "", false
	}
	return strings.CutSuffix(s, suffix)
}

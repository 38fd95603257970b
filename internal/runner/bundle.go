package runner

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/previewd/previewd"
)

// bundle makes a site from HTML pages and the modules, styles and assets that
// they load, after Vite's conventions: pages keep their names, what they load
// gets names that hold a hash, public/ is copied to the root.
type bundle struct {
	*child
	tree  *sourceTree
	root  *os.Root // the tree
	out   *os.Root // the site
	env   map[string]any
	guard *guard
	jsx   string // the package that JSX is of, unless tsconfig.json says otherwise

	tsconfig  string
	entries   []string // in the order in which pages name them
	built     map[string]builtEntry
	assets    map[string]string // path in the tree → URL
	immutable []string
}

// builtEntry is what an entry has become: URLs.
type builtEntry struct {
	file    string
	styles  []string // stylesheets that its modules import
	preload []string // further modules that it needs at once
}

func newBundle(c *child, root *os.Root, req childRequest, t *sourceTree, jsx string) (*bundle, error) {
	out, err := os.OpenRoot(req.Out)
	if err != nil {
		return nil, err
	}
	b := &bundle{
		child: c, tree: t, root: root, out: out, jsx: jsx,
		built: map[string]builtEntry{}, assets: map[string]string{},
		env: map[string]any{"MODE": "production", "BASE_URL": "/", "PROD": true, "DEV": false, "SSR": false},
	}
	for name, value := range req.Env {
		b.env[name] = value
	}
	b.guard = &guard{
		dir: req.Source, packages: req.Packages, preact: jsx == "preact", modules: t.modules, inline: map[string]moduleScript{}, pages: map[string]string{},
		large: func(file string, size int64) {
			c.send(childMessage{Large: fmt.Sprintf("%s (%.1f MB)", strings.TrimPrefix(file, req.Source+"/"), float64(size)/1e6)})
		},
	}
	return b, nil
}

// run builds the site. The failure is the author's, the error ours.
func (b *bundle) run() (immutable []string, failure *previewd.Failure, err error) {
	defer b.out.Close()
	if b.tsconfig, b.guard.aliases, failure = readTSConfig(b.root); failure != nil {
		return nil, failure, nil
	}
	if b.guard.packages != "" {
		if failure := b.readDotenv(); failure != nil {
			return nil, failure, nil
		}
	}
	if failure := b.collectEntries(); failure != nil {
		return nil, failure, nil
	}
	if failure, err := b.buildEntries(); failure != nil || err != nil {
		return nil, failure, err
	}
	for _, p := range b.tree.pages {
		page, err := b.rewritePage(p)
		if err == nil {
			err = b.write(p.path, page)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	failure, err = b.copyPlain()
	return b.immutable, failure, err
}

// collectEntries finds the modules and stylesheets that pages load.
func (b *bundle) collectEntries() (failure *previewd.Failure) {
	for _, p := range b.tree.pages {
		for i, script := range p.modules {
			if script.src == "" && strings.TrimSpace(script.inline) != "" {
				b.addInline(p, i, script)
			}
		}
		mapped := p.modules == nil // an import map: its modules stay as they are
		walkHTML(p.source, func(t *htmlToken) {
			for attr, kind := range references(t) {
				local, ok := localPath(p.path, t.attr(attr))
				if !ok || kind != refModule && kind != refStyle || kind == refModule && mapped {
					continue
				}
				switch {
				case b.tree.has(local):
					b.addEntry(local)
				case !b.tree.has("public/"+local) && kind == refModule && failure == nil:
					failure = missingModule(p.path, t)
				}
			}
		})
	}
	return failure
}

func missingModule(pagePath string, t *htmlToken) *previewd.Failure {
	return &previewd.Failure{
		Class: previewd.FailureUser, Code: previewd.FailBundle, Step: previewd.StepBuild, File: pagePath, Line: t.line,
		Message: fmt.Sprintf("The page loads %q, which is not in the project.", clip(t.attr("src"), 300)), Excerpt: clip(t.String(), 200),
	}
}

func (b *bundle) addEntry(name string) {
	if !slices.Contains(b.entries, name) {
		b.entries = append(b.entries, name)
	}
}

func inlineName(pagePath string, index int) string {
	return fmt.Sprintf("%s.inline-%d.ts", pagePath, index)
}

func (b *bundle) addInline(p page, index int, script moduleScript) {
	name := inlineName(p.path, index)
	b.guard.inline[name], b.guard.pages[name] = script, p.path
	b.addEntry(name)
}

// loaders says what an import of a file gives: its URL, for what browsers show
// or play.
func loaders() map[string]api.Loader {
	all := map[string]api.Loader{".js": api.LoaderJSX, ".mjs": api.LoaderJSX, ".cjs": api.LoaderJSX, ".txt": api.LoaderText}
	for _, ext := range strings.Fields(`.apng .avif .bmp .gif .ico .jpeg .jpg .png .svg .webp .mp3 .mp4 .m4a .ogg .oga
		.ogv .opus .wav .webm .flac .aac .mov .vtt .woff .woff2 .eot .ttf .otf .pdf .wasm .webmanifest .glb .gltf .hdr`) {
		all[ext] = api.LoaderFile
	}
	return all
}

func (b *bundle) defines() (map[string]string, error) {
	defines := map[string]string{"process.env.NODE_ENV": `"production"`, "import.meta.hot": "undefined"}
	for name, value := range b.env {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		defines["import.meta.env."+name] = string(text)
	}
	all, err := json.Marshal(b.env)
	defines["import.meta.env"] = string(all)
	return defines, err
}

func (b *bundle) buildEntries() (*previewd.Failure, error) {
	if len(b.entries) == 0 {
		return nil, nil
	}
	defines, err := b.defines()
	if err != nil {
		return nil, err
	}
	maps := api.SourceMapLinked
	if b.guard.packages != "" {
		maps = api.SourceMapNone // as Vite does
	}
	result := api.Build(api.BuildOptions{
		EntryPoints: b.entries, Bundle: true, Splitting: true, Write: false, Metafile: true,
		AbsWorkingDir: b.guard.dir, Outdir: b.out.Name(), PublicPath: "/",
		EntryNames: "assets/[name]-[hash]", ChunkNames: "assets/[name]-[hash]", AssetNames: "assets/[name]-[hash]",
		Format: api.FormatESModule, Target: api.ES2022, Charset: api.CharsetUTF8,
		MinifyWhitespace: true, MinifyIdentifiers: true, MinifySyntax: true, LegalComments: api.LegalCommentsEndOfFile,
		Sourcemap: maps, SourcesContent: api.SourcesContentInclude,
		JSX: api.JSXAutomatic, JSXImportSource: b.jsx, TsconfigRaw: b.tsconfig,
		Define: defines, Loader: loaders(), Conditions: []string{"browser", "module"},
		Plugins:  []api.Plugin{{Name: "previewd", Setup: b.guard.setup}},
		LogLevel: api.LogLevelSilent, LogLimit: 20,
	})
	for _, w := range result.Warnings {
		b.logf("warning: %s", b.messageText(w))
	}
	if len(result.Errors) > 0 {
		return b.failure(result.Errors), nil
	}
	for _, f := range result.OutputFiles {
		name, err := filepath.Rel(b.out.Name(), f.Path)
		if err != nil {
			return nil, err
		}
		if err := b.writeHashed(filepath.ToSlash(name), f.Contents); err != nil {
			return nil, err
		}
	}
	return nil, b.readMetafile(result.Metafile)
}

func (b *bundle) write(name string, content []byte) error {
	if dir := path.Dir(name); dir != "." {
		if err := b.out.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return b.out.WriteFile(name, content, 0o644)
}

func (b *bundle) writeHashed(name string, content []byte) error {
	b.immutable = append(b.immutable, name)
	if path.Ext(name) != ".map" {
		b.logf("%s  %.1f kB", name, float64(len(content))/1000)
	}
	return b.write(name, content)
}

// messageText renders a message on one line, with its place.
func (b *bundle) messageText(m api.Message) string {
	text := strings.ReplaceAll(m.Text, b.guard.dir+"/", "")
	if m.Location == nil {
		return text
	}
	return fmt.Sprintf("%s:%d:%d: %s", b.fileOf(m.Location), m.Location.Line, m.Location.Column+1, text)
}

func (b *bundle) fileOf(l *api.Location) string {
	if page, ok := b.guard.pages[strings.TrimPrefix(l.File, nsInline+":")]; ok {
		return page
	}
	return l.File
}

// failure tells of the first error, with its line, and how many more there are.
func (b *bundle) failure(errs []api.Message) *previewd.Failure {
	if b.guard.packages == "" { // else the tree's own build may well go on
		for _, m := range errs {
			b.logf("error: %s", b.messageText(m))
		}
	}
	first := errs[0]
	f := &previewd.Failure{
		Class: previewd.FailureUser, Code: previewd.FailBundle, Step: previewd.StepBuild,
		Message: strings.ReplaceAll(first.Text, b.guard.dir+"/", ""),
	}
	if r, ok := first.Detail.(refusal); ok {
		f.Code, f.Hint = r.code, r.hint
	}
	if n := len(errs) - 1; n > 0 {
		f.Message += fmt.Sprintf(" (and %d more, see the log)", n)
	}
	if l := first.Location; l != nil {
		f.File, f.Line, f.Column = b.fileOf(l), l.Line, l.Column+1
		f.Excerpt = excerpt(l)
	}
	return f
}

// excerpt shows the line with a mark under the place, cut to what fits a screen.
func excerpt(l *api.Location) string {
	const before, width = 60, 120
	text, column := l.LineText, min(l.Column, len(l.LineText))
	if column > before {
		text, column = "…"+strings.ToValidUTF8(text[column-before:], ""), before+len("…")
	}
	if len(text) > width {
		text = strings.ToValidUTF8(text[:width], "") + "…"
	}
	column = min(column, len(text))
	indent := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, text[:column])
	prefix := fmt.Sprintf("%d | ", l.Line)
	return prefix + text + "\n" + strings.Repeat(" ", len(prefix)-2) + "| " + indent + strings.Repeat("^", max(1, min(l.Length, width-column)))
}

// metafile is what esbuild tells of its output.
type metafile struct {
	Outputs map[string]struct {
		EntryPoint string `json:"entryPoint"`
		CSSBundle  string `json:"cssBundle"`
		Imports    []struct {
			Path string `json:"path"`
			Kind string `json:"kind"`
		} `json:"imports"`
	} `json:"outputs"`
}

func (b *bundle) readMetafile(raw string) error {
	var meta metafile
	if err := json.Unmarshal([]byte(raw), &meta); err != nil {
		return fmt.Errorf("cannot read esbuild's metafile: %w", err)
	}
	url := func(output string) string {
		rel, err := filepath.Rel(b.out.Name(), filepath.Join(b.guard.dir, output))
		if err != nil {
			return output
		}
		return "/" + filepath.ToSlash(rel)
	}
	for output, o := range meta.Outputs {
		if o.EntryPoint == "" {
			continue
		}
		entry := builtEntry{file: url(output)}
		seen := map[string]bool{}
		var follow func(output string, static bool)
		follow = func(output string, static bool) {
			if seen[output] {
				return
			}
			seen[output] = true
			this := meta.Outputs[output]
			if this.CSSBundle != "" {
				entry.styles = append(entry.styles, url(this.CSSBundle))
			}
			for _, i := range this.Imports {
				atOnce := static && i.Kind == "import-statement"
				if _, ours := meta.Outputs[i.Path]; !ours || path.Ext(i.Path) != ".js" {
					continue
				}
				if atOnce && !seen[i.Path] {
					entry.preload = append(entry.preload, url(i.Path))
				}
				follow(i.Path, atOnce)
			}
		}
		follow(output, true)
		b.built[strings.TrimPrefix(o.EntryPoint, nsInline+":")] = entry
	}
	return nil
}

// asset gives a file of the tree a name that holds its hash and returns its
// URL, or false when the page refers to something that is no file of the tree.
func (b *bundle) asset(local string) (string, bool, error) {
	if url, done := b.assets[local]; done {
		return url, true, nil
	}
	if !b.tree.has(local) || path.Ext(local) == ".html" || strings.HasPrefix(local, "public/") {
		return "", false, nil
	}
	content, err := b.root.ReadFile(local)
	if err != nil {
		return "", false, err
	}
	sum := sha256.Sum256(content)
	ext := path.Ext(local)
	name := fmt.Sprintf("assets/%s-%s%s", strings.TrimSuffix(path.Base(local), ext),
		base32.StdEncoding.EncodeToString(sum[:5]), ext)
	b.assets[local] = "/" + name
	return "/" + name, true, b.writeHashed(name, content)
}

// copyPlain copies what keeps its name: public/, to the root of the site, and
// the whole tree when a page finds its modules by an import map.
func (b *bundle) copyPlain() (*previewd.Failure, error) {
	mapped := false
	for _, p := range b.tree.pages {
		mapped = mapped || bytes.Contains(p.source, []byte("importmap"))
	}
	for _, name := range b.tree.files {
		to, public := strings.CutPrefix(name, "public/")
		if !public && (!mapped || !partOfSite(name)) {
			continue
		}
		if _, err := b.out.Stat(to); err == nil {
			if public {
				b.logf("warning: public/%s is hidden by a file that the build made", to)
			}
			continue
		}
		if err := b.copyFile(name, to); errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrExist) {
			return badConfig(name, name+" needs a folder where the site has a file of that name."), nil
		} else if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (b *bundle) copyFile(from, to string) error {
	src, err := b.root.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if dir := path.Dir(to); dir != "." {
		if err := b.out.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	dst, err := b.out.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// envReplacer fills %NAME% in pages, as Vite does.
func (b *bundle) envReplacer() *strings.Replacer {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(b.env)) {
		pairs = append(pairs, "%"+name+"%", fmt.Sprint(b.env[name]))
	}
	return strings.NewReplacer(pairs...)
}

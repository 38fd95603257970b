package runner

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/previewd/previewd"
)

// shape is how a tool tells of an error in a file. Its groups are file, line, col
// and message.
type shape struct {
	re    *regexp.Regexp
	first int // what the tool gives the first column of a line: 0 or 1
}

var typeShapes = []shape{
	{regexp.MustCompile(`(?m)^(?P<file>\S[^\n]*?)\((?P<line>\d{1,7}),(?P<col>\d{1,7})\): error (?P<message>TS\d+: [^\n]*)$`), 1},
	{regexp.MustCompile(`(?m)^(?P<file>\S[^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7}) - error (?P<message>TS\d+: [^\n]*)$`), 1},
	{regexp.MustCompile(`(?m)^(?P<file>\./[^:\n]+):(?P<line>\d{1,7}):(?P<col>\d{1,7})\nType error: (?P<message>[^\n]*)$`), 1},
	{regexp.MustCompile(`(?m)^\d+ ERROR "(?P<file>[^"\n]+)" (?P<line>\d{1,7}):(?P<col>\d{1,7}) "(?P<message>[^\n]*)"$`), 1},
	{regexp.MustCompile(`(?m)^(?P<file>\S[^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7})\nError: (?P<message>[^\n]*) \((?:ts|js|svelte)\)$`), 1},
	{regexp.MustCompile(`(?m)^error (?P<message>TS\d+: [^\n]*)$`), 1},
}

func (d *diagnosis) typeError() *previewd.Failure {
	return d.errorIn(typeShapes, previewd.FailType, "Correct the types, or let the build command leave the check of types out.")
}

// The order is that of detail: some tools say the same thing twice. What begins a
// shape keeps it from matching the line of a stack.
var sourceShapes = []shape{
	{regexp.MustCompile(`(?m)^(?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7}): ERROR: (?P<message>[^\n]*)$`), 0},
	{regexp.MustCompile(`(?m)^.*\[ERROR\] (?P<message>[^\n]*)\n\s*(?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7}):$`), 0},
	{regexp.MustCompile(`(?m)^.*\[postcss\] (?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7}): (?P<message>[^\n]*)$`), 1},
	{regexp.MustCompile(`(?m)^.*CssSyntaxError: (?:\S+: )?(?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7}): (?P<message>[^\n]*)$`), 1},
	{regexp.MustCompile(`(?m)^(?:\[[\w:. -]{1,60}\] )*(?:\[!\] )?(?:\w*Error: )?(?P<file>[^\s:\[][^:\n]*?) \((?P<line>\d{1,7}):(?P<col>\d{1,7})\): (?P<message>[^\n]*)$`), 0},
	{regexp.MustCompile(`(?m)^(?P<message>\S[^\n]*)\nfile: (?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7})$`), 0},
	{regexp.MustCompile(`(?m)^(?:\[[\w:.\- ]{1,60}\] )?(?P<message>\S[^\n]*)\n *╭─\[ (?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7}) \]$`), 1},
	{regexp.MustCompile(`(?m)^RolldownError: (?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7}) (?P<message>[^\n]*)$`), 0},
	{regexp.MustCompile(`(?m)^\[[\w:.\- ]{1,60}\] (?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7})\n(?:\w*Error: )?(?P<message>[^\n]*)$`), 0},
	{regexp.MustCompile(`(?m)^(?P<file>\./[^:\n]+):(?P<line>\d{1,7}):(?P<col>\d{1,7})\n(?:\w*Error: )?(?P<message>\S[^\n]*)$`), 1},
	{regexp.MustCompile(`(?m)^Error: +[x×] (?P<message>[^\n]*)\n *[,╭][-─]\[(?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7})\]$`), 1},
	{regexp.MustCompile(`(?m)^ERROR in (?P<file>\S+) (?P<line>\d{1,7}):(?P<col>\d{1,7})[-\d]*\n(?:\w+Error: )?(?P<message>[^\n]*)$`), 0},
	{regexp.MustCompile(`(?m)^ERROR in (?P<file>\./\S+)\n(?:Module build failed[^\n]*\n)?(?:\w*Error: )?(?P<message>[^\n]*)$`), 0},
	{regexp.MustCompile(`(?m)^(?P<message>\S[^\n]*)\n(?:  Hint:\n[^\n]*\n)? *Location:\n *(?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7}):(?P<col>\d{1,7})$`), 1},
}

// ofNetwork tells an error of the source from one that a blocked connection made.
var ofNetwork = regexp.MustCompile(`fetch failed|\b(?:ENOTFOUND|EAI_AGAIN|ENETUNREACH|ECONNREFUSED|ETIMEDOUT)\b`)

func (d *diagnosis) sourceError() *previewd.Failure {
	f := d.errorIn(sourceShapes, previewd.FailBundle, "Correct the source there.")
	if f != nil && ofNetwork.MatchString(f.Message) {
		return nil
	}
	return f
}

// errorIn returns the first error in one of these shapes that is in a file of the
// tree, and says how many more there are in that shape.
func (d *diagnosis) errorIn(shapes []shape, code, hint string) *previewd.Failure {
	const enough = 100
	for _, s := range shapes {
		var first *previewd.Failure
		more := -1
		for _, at := range s.re.FindAllStringSubmatchIndex(d.text, enough) {
			found := groups(s.re, d.text, at)
			if found["file"] != "" && treeFile(found["file"]) == "" {
				continue
			}
			if more++; more == 0 {
				first = d.fail(code, clip(found["message"], 900), hint, found["rest"])
				d.place(first, s, found)
			}
		}
		if more > 0 {
			first.Message += fmt.Sprintf(" (and %d more, see the log)", more)
		}
		if first != nil {
			return first
		}
	}
	return nil
}

// What Node.js tells of a program that it runs: where an exception was made, or the
// line that it cannot read.
var thrownShapes = []shape{
	{regexp.MustCompile(`(?m)^(?P<message>\w*Error: [^\n]*)\n +at (?:[^\n]* \()?(?P<file>[\w.@~+\[\]()/-]+):(?P<line>\d{1,7}):(?P<col>\d{1,7})\)?(?: \{)?$`), 1},
	{regexp.MustCompile(`(?m)^(?P<file>[^\s:][^:\n]*):(?P<line>\d{1,7})\n[^\n]*\n *\^+\n+(?P<message>\w*Error: [^\n]*)$`), 0},
}

// thrown tells of an exception in a program of the tree that a build runs.
func (d *diagnosis) thrown() *previewd.Failure {
	return d.errorIn(thrownShapes, d.general(), "Correct the program there.")
}

var bundlerShapes = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^error during build:\n(?:Build failed with \d+ errors?:\n+)?(?:\[[^\n]*\]\n)?(?P<message>[^\n]+)`),
	regexp.MustCompile(`(?m)^Failed to compile\.\n+(?P<message>[^\n]+)`),
	regexp.MustCompile(`(?m)^(?P<message>\[Failed to load PostCSS config[^\n]*)`),
	regexp.MustCompile(`(?m)^.*\[!\] (?P<message>[^\n]+)`),
	regexp.MustCompile(`(?m)^Error: Turbopack build failed with \d+ errors?:\n(?P<message>[^\n]+)`),
}

// bundlerError tells of a bundler's error that is in no line of the source.
func (d *diagnosis) bundlerError() *previewd.Failure {
	found := d.find(bundlerShapes...)
	if found == nil {
		return nil
	}
	return d.fail(previewd.FailBundle, found["message"], "The log has all that the bundler wrote.", found["rest"])
}

var temporary = regexp.MustCompile(`^(?:node_modules/\.vite-temp/)?(.+)\.timestamp-[\w-]+\.mjs$`)

// treeFile returns the path in the tree that a tool means, or "" when it is none
// that the author wrote.
func treeFile(name string) string {
	name, _, _ = strings.Cut(strings.TrimPrefix(name, "./"), "?")
	name = temporary.ReplaceAllString(name, "$1")
	if clean := path.Clean(name); clean != name || !fs.ValidPath(name) || name == "." || len(name) > 1000 ||
		strings.HasPrefix(name, "node_modules/") || strings.Contains(name, "/node_modules/") || strings.HasPrefix(name, "node:") {
		return ""
	}
	return name
}

// place writes into a failure where it is, and shows the line when it can be read.
func (d *diagnosis) place(f *previewd.Failure, s shape, found map[string]string) {
	file := found["file"]
	if file == "" {
		file = found["stack"]
	}
	if f.File = treeFile(file); f.File == "" {
		return
	}
	f.Line, _ = strconv.Atoi(found["line"])
	if col, err := strconv.Atoi(found["col"]); err == nil && f.Line > 0 {
		f.Column = max(1, col+1-s.first)
	}
	d.show(f)
}

// show replaces a failure's excerpt by its line of the source.
func (d *diagnosis) show(f *previewd.Failure) {
	source, ok := d.source(f.File)
	if !ok || f.Line == 0 {
		return
	}
	number := 0
	for line := range strings.Lines(source) {
		if number++; number == f.Line {
			text := strings.TrimRight(line, "\r\n")
			column := f.Column - 1
			if f.Column == 0 {
				column = len(text) - len(strings.TrimLeft(text, " \t"))
			}
			f.Excerpt = excerpt(&api.Location{Line: f.Line, Column: column, Length: 1, LineText: text})
			return
		}
	}
}

// locate finds the line of a failure's file that imports something.
func (d *diagnosis) locate(f *previewd.Failure, spec string) {
	source, ok := d.source(f.File)
	if !ok {
		return
	}
	number := 0
	for line := range strings.Lines(source) {
		number++
		for _, quote := range []string{`"`, `'`} {
			if i := strings.Index(line, quote+spec+quote); i >= 0 {
				f.Line, f.Column = number, i+1
				d.show(f)
				return
			}
		}
	}
}

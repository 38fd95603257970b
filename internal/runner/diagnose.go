package runner

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/previewd/previewd"
)

// commandEnd is how a command of a build ended.
type commandEnd struct {
	install     bool           // it installs packages; else it builds
	plan        *previewd.Plan // nil when there is none
	argv        []string
	code        int                              // exit code, 128 + signal's number
	output      string                           // the end of what it wrote, ANSI escapes still in it
	source      func(name string) (string, bool) // a file of the tree, for excerpts; nil when there is none
	missing     []string                         // packages (name or name@version) that the registry said do not exist
	unreachable bool                             // the registry could not be reached while it ran
	denied      []string                         // host:port that it was not let to
}

// diagnose returns the failure of a command that did not succeed. It never returns nil.
func diagnose(e commandEnd) *previewd.Failure {
	d := newDiagnosis(e)
	rules := buildRules
	if e.install {
		rules = installRules
	}
	for _, rule := range rules {
		if f := rule(d); f != nil {
			return d.finish(f)
		}
	}
	return d.finish(d.unexplained())
}

// rule returns a failure when it knows what happened.
type rule func(*diagnosis) *previewd.Failure

// What is sure comes before what is likely: a tool that names a line of the source
// is right, while a blocked connection may have been to a counter of users.
var (
	installRules = []rule{
		(*diagnosis).memory, (*diagnosis).disk, (*diagnosis).lockfile, (*diagnosis).conflict, (*diagnosis).engine,
		(*diagnosis).unavailable, (*diagnosis).unreachableRegistry, (*diagnosis).missingProgram, (*diagnosis).offline,
		(*diagnosis).installScript, (*diagnosis).missingPackage, (*diagnosis).denial,
	}
	buildRules = []rule{
		(*diagnosis).memory, (*diagnosis).disk, (*diagnosis).missingScript, (*diagnosis).missingProgram,
		(*diagnosis).missingTypes, (*diagnosis).typeError, (*diagnosis).missingModule, (*diagnosis).sourceError,
		(*diagnosis).engine, (*diagnosis).offline, (*diagnosis).denial, (*diagnosis).bundlerError, (*diagnosis).thrown,
	}
)

// diagnosis is a command's end with its output made readable.
type diagnosis struct {
	commandEnd
	text     string // without escapes and warnings of package managers; paths begin at the tree
	manifest manifest
}

// maxOutput bounds what is read of a command's output.
const maxOutput = 64 << 10

func newDiagnosis(e commandEnd) *diagnosis {
	if e.plan == nil {
		e.plan = &previewd.Plan{}
	}
	if e.source == nil {
		e.source = func(string) (string, bool) { return "", false }
	}
	return &diagnosis{commandEnd: e, text: readable(e.output), manifest: readManifest(e.source)}
}

var (
	escapes   = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])`)
	managed   = regexp.MustCompile(`^(?:npm (?:error|ERR!) ?|➤ (YN\d{4}: )[│┌└·] ?)`)
	unneeded  = regexp.MustCompile(`^(?:npm (?:warn|WARN|notice)\b| ?WARN |warning )`)
	workspace = regexp.MustCompile(`(?:file://)?/workspace(/|\b)`) // where the sandbox has the tree
	noBreaks  = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u2009", " ")
)

// readable returns output as a person would read it, with what package managers
// begin their lines with cut off and their warnings left out.
func readable(output string) string {
	if len(output) > maxOutput {
		output = output[len(output)-maxOutput:]
	}
	output = noBreaks.Replace(escapes.ReplaceAllString(strings.ToValidUTF8(output, ""), ""))
	var b strings.Builder
	for line := range strings.Lines(output) {
		if !unneeded.MatchString(line) {
			b.WriteString(managed.ReplaceAllString(line, "$1"))
		}
	}
	text := workspace.ReplaceAllStringFunc(b.String(), func(path string) string {
		if strings.HasSuffix(path, "/") {
			return "./"
		}
		return "."
	})
	return strings.Map(previewd.Harmless, text)
}

// find returns the named groups of the first of these patterns that matches, with
// the text from there on as "rest"; nil when none does.
func (d *diagnosis) find(patterns ...*regexp.Regexp) map[string]string {
	for _, re := range patterns {
		if at := re.FindStringSubmatchIndex(d.text); at != nil {
			return groups(re, d.text, at)
		}
	}
	return nil
}

func groups(re *regexp.Regexp, text string, at []int) map[string]string {
	found := map[string]string{"rest": text[at[0]:]}
	for i, name := range re.SubexpNames() {
		if name != "" && at[2*i] >= 0 {
			found[name] = strings.TrimSpace(text[at[2*i]:at[2*i+1]])
		}
	}
	return found
}

// fail returns a failure that shows where the output tells of it.
func (d *diagnosis) fail(code, message, hint, rest string) *previewd.Failure {
	return &previewd.Failure{Code: code, Message: message, Hint: hint, Excerpt: shown(rest)}
}

func (d *diagnosis) finish(f *previewd.Failure) *previewd.Failure {
	out := bounded(*f)
	out.Class, out.Step = previewd.FailureUser, previewd.StepBuild
	if f.Code == previewd.FailRegistryUnreachable {
		out.Class = previewd.FailureInfra // worth another try
	}
	if d.install {
		out.Step = previewd.StepInstall
	}
	return &out
}

// general is the code of a failure that no other code tells of.
func (d *diagnosis) general() string {
	if d.install {
		return previewd.FailInstall
	}
	return previewd.FailBuild
}

func (d *diagnosis) command() string {
	return clip(strings.Join(d.argv, " "), 200)
}

// unexplained tells of a command that failed for a reason that nobody here knows.
func (d *diagnosis) unexplained() *previewd.Failure {
	f := &previewd.Failure{Code: d.general(), Hint: "The log has all that it wrote."}
	if d.code > 128 {
		f.Message = fmt.Sprintf("%s was killed by signal %d.", d.command(), d.code-128)
	} else {
		f.Message = fmt.Sprintf("%s failed with exit code %d.", d.command(), d.code)
	}
	lines := meaningful(d.text)
	if errors := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return !erroneous.MatchString(line) }); len(errors) > 0 {
		lines = errors
	}
	lines = lines[max(0, len(lines)-excerptLines):]
	if len(lines) > 0 && erroneous.MatchString(lines[0]) {
		f.Message = strings.TrimSuffix(f.Message, ".") + ": " + clip(strings.TrimSpace(lines[0]), 400)
	}
	f.Excerpt = strings.Join(lines, "\n")
	return f
}

const excerptLines = 4

var (
	erroneous = regexp.MustCompile(`(?i)error|fail|cannot|can't|could not|not found|invalid|unexpected|exception|undefined|is not `)
	noise     = regexp.MustCompile(`^\s*(?:$|at .*(?:node_modules/|node:|<anonymous>)|For a full report see|A complete log of this run|\S*/_logs/|info Visit|Node\.js v[\d.]+$|> [^\d ]|\$ |ELIFECYCLE|\[[36]\dm|[{}^~─╯|│╵ ]+$|error:? (?:script .* exited|Command failed) with|gyp (?:info|ERR! (?:stack at|System|command|cwd|node|not ok|\$npm))|YN0000: (?:Completed|Failed)|Build failed |error during build|code [A-Z]+$|JSON\.parse (?:Failed|Note)|Stack trace|file: \S+$)`)
)

// meaningful returns the lines of text that tell something.
func meaningful(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, " \t\n"); !noise.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// shown returns the first meaningful lines of text.
func shown(text string) string {
	lines := meaningful(text[:min(len(text), 8<<10)])
	return strings.Join(lines[:min(len(lines), excerptLines)], "\n")
}

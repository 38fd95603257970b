package previewd

// Runners that build a tree.
const (
	RunnerStatic  = "static"  // the files are the site
	RunnerBundle  = "bundle"  // esbuild; no code of the tree runs
	RunnerSandbox = "sandbox" // installs packages and runs the tree's build command

	// A server may run that command in containers; then a build is said to be by these.
	RunnerDocker = "docker"
	RunnerGVisor = "gvisor"
)

// Plan says how a tree becomes a site: what was decided, and why. Nothing of the
// tree was run to make it. Its text is of strangers, freed of control characters
// and cut to size.
type Plan struct {
	Runner         PlanRunner         `json:"runner"`
	Framework      PlanFramework      `json:"framework"`
	PackageManager PlanPackageManager `json:"packageManager"`
	Install        PlanCommand        `json:"install"`
	Build          PlanCommand        `json:"build"`
	Output         PlanOutput         `json:"output"`
	Node           PlanNode           `json:"node"`
	Fallback       PlanFallback       `json:"fallback"`
	Workspace      PlanWorkspace      `json:"workspace"`
	Bundle         PlanBundle         `json:"bundle"`
	Notes          []string           `json:"notes"`             // what its author should know besides
	Failure        *Failure           `json:"failure,omitempty"` // no build is possible; the rest is what was found all the same
}

// Why is the reason of a decision.
type Why struct {
	Reason string `json:"reason"`         // a sentence
	From   string `json:"from,omitempty"` // the file that decided, or "metadata.build"; "" for a default
	Unsure bool   `json:"unsure"`         // told by text that could mean something else
}

// PlanRunner is what builds a tree; "" when nothing does.
type PlanRunner struct {
	Name string `json:"name"`
	Why
}

// PlanFramework is what a tree is made with; "" when no framework is known.
type PlanFramework struct {
	Name    string `json:"name"`
	Title   string `json:"title,omitempty"`
	Package string `json:"package,omitempty"` // that gave it away
	Version string `json:"version,omitempty"` // the range that package.json wants
	Why
}

// PlanBundle says whether the bundler makes the same site as the build command, of
// installed packages and without running any code.
type PlanBundle struct {
	OK  bool   `json:"ok"`
	JSX string `json:"jsx,omitempty"` // the package that JSX is of: react, preact
	Why
}

// PlanPackageManager is what installs packages; "" when nothing is installed.
type PlanPackageManager struct {
	Name            string `json:"name"`              // npm, pnpm, yarn, bun
	Variant         string `json:"variant,omitempty"` // of yarn: classic, berry
	Version         string `json:"version,omitempty"` // exact, or a major version told by the lockfile
	Lockfile        string `json:"lockfile,omitempty"`
	LockfileVersion string `json:"lockfileVersion,omitempty"`
	Why
}

// PlanCommand is a program with its arguments. No shell reads it. Empty: nothing
// is run.
type PlanCommand struct {
	Argv []string `json:"argv"`
	Why
}

// PlanOutput is the folder that a build writes; "" when the runner knows.
type PlanOutput struct {
	Path string `json:"path"`
	// Candidates are to be tried in this order when Path is unsure: the first
	// that the build has made with an index.html is meant.
	Candidates []string `json:"candidates,omitempty"`
	Why
}

// PlanNode is the version of Node.js that a tree wants: a range, as npm reads
// them; "" when any will do.
type PlanNode struct {
	Range string `json:"range"`
	Why
}

// PlanFallback is the file of the output that answers unknown paths; "" when
// they are not found.
type PlanFallback struct {
	File string `json:"file"`
	Why
}

// PlanWorkspace tells of a tree that holds several packages.
type PlanWorkspace struct {
	Root bool     `json:"root"`           // the tree is the root of a workspace
	Apps []string `json:"apps,omitempty"` // folders of it that could be built by themselves
	Why
}

package previewd

// FailurePacket is what mending a failed build takes, for a person or for the
// model that wrote the code: what went wrong and where, the source that it is
// about, and what was tried. All text of it but Failure.Hint may be a stranger's:
// a model must take it as data.
type FailurePacket struct {
	BuildID     string    `json:"buildId"`
	ProjectID   string    `json:"projectId"`
	Seq         int64     `json:"seq"`
	ReferenceID string    `json:"referenceId" doc:"Name this when you ask about the build."`
	Prompt      string    `json:"prompt"`
	Failure     Failure   `json:"failure"`
	Tried       Tried     `json:"tried"`
	Log         string    `json:"log" doc:"The end of the build's log, whole lines."`
	Source      Source    `json:"source"`
	Paths       []string  `json:"paths" nullable:"false" doc:"The tree's files, sorted; the first 500."`
	Files       []Passage `json:"files" nullable:"false" doc:"What of the tree the failure is about, the most relevant first; 64 KiB at most."`
	Repairable  bool      `json:"repairable" doc:"The build is its project's newest, so it can be repaired."`
}

// Tried is what a build and those that it repairs have tried.
type Tried struct {
	Runner   string          `json:"runner,omitempty" doc:"What built it."`
	Reason   string          `json:"runnerReason,omitempty" doc:"Why this runner took the tree."`
	Attempts int             `json:"attempts"`
	Earlier  []EarlierRepair `json:"earlier" nullable:"false" doc:"The builds that led to this one, each a repair of the next, newest first; at most 5."`
}

// EarlierRepair is a build that failed and was repaired, in vain.
type EarlierRepair struct {
	BuildID string   `json:"buildId"`
	Seq     int64    `json:"seq"`
	Prompt  string   `json:"prompt"`
	Code    string   `json:"code"`
	Message string   `json:"message"`
	File    string   `json:"file,omitempty"`
	Line    int      `json:"line,omitempty" doc:"Counts from 1."`
	Changed []string `json:"changed" nullable:"false" doc:"Files that its repair changed, added or removed; the first 50."`
}

// Passage is a text file of a tree, or the part of it that matters.
type Passage struct {
	Path      string `json:"path"`
	Content   string `json:"content" doc:"Whole lines."`
	FirstLine int    `json:"firstLine" doc:"Number of the first line of content; counts from 1."`
	Bytes     int    `json:"bytes" doc:"Size of the whole file."`
	Whole     bool   `json:"whole" doc:"Content is the whole file."`
}

// RepairBuildRequest is how a failed build's tree is to be changed.
type RepairBuildRequest struct {
	BuildID       string   `json:"-"`
	Prompt        string   `json:"prompt,omitempty"`        // "" means that of the build
	TemplateFiles Files    `json:"templateFiles,omitempty"` // laid over the build's tree
	Remove        []string `json:"remove,omitempty"`        // paths of its tree

	IdempotencyKey string `json:"-"`
	Caller         Caller `json:"-"`
}

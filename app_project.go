package previewd

import "time"

// AppProject is a project as the gateway shows it to its owner.
type AppProject struct {
	ID             string        `json:"id" doc:"Made by the worker."`
	Name           string        `json:"name" doc:"Unique among the owner's projects, whatever the case of its letters."`
	Status         ProjectStatus `json:"status" enum:"queued,building,deployed,failed,canceled,superseded" doc:"Of the newest build."`
	Canceling      bool          `json:"canceling,omitempty"`
	Prompt         string        `json:"prompt"`
	Template       string        `json:"template,omitempty"`
	PreviewURL     string        `json:"previewUrl" doc:"Shows the current version, and until there is one a page that says how the build is doing."`
	CurrentVersion int64         `json:"currentVersion,omitempty" doc:"Number of the version that is shown; absent while there is none."`
	Pinned         bool          `json:"pinned,omitempty" doc:"True after a rollback: new builds do not move the current version."`
	Deleting       bool          `json:"deleting,omitempty" doc:"Its deletion is under way."`
	Build          AppBuild      `json:"build" doc:"The newest build."`
	CreatedAt      time.Time     `json:"createdAt"`
	UpdatedAt      time.Time     `json:"updatedAt"`
}

// AppProjectPage is one page of a user's projects and the cursor of the next, ""
// at the end.
type AppProjectPage struct {
	Projects []AppProject `json:"projects" nullable:"false"`
	Next     string       `json:"nextCursor,omitempty"`
}

// AppBuild is a build as the gateway shows it to its owner.
type AppBuild struct {
	ID           string        `json:"id"`
	ProjectID    string        `json:"projectId"`
	Seq          int64         `json:"seq" doc:"Counts 1, 2, 3… per project."`
	Status       ProjectStatus `json:"status" enum:"queued,building,deployed,failed,canceled,superseded"`
	Canceling    bool          `json:"canceling,omitempty"`
	Version      int64         `json:"version,omitempty" doc:"Number of the version that the build made."`
	PreviewURL   string        `json:"previewUrl" doc:"Shows this build for ever."`
	Failure      *Failure      `json:"failure,omitempty"`
	SupersededBy string        `json:"supersededBy,omitempty" doc:"The newer build that took this one's place."`
	ReferenceID  string        `json:"referenceId" doc:"Name this when you ask about the build; the same from its creation on."`

	QueuePosition              int        `json:"queuePosition,omitempty" doc:"1 is next; absent once the build has begun."`
	EstimatedCompletionTime    *time.Time `json:"estimatedCompletionTime,omitempty" doc:"When it is as likely over as not (p50); absent while there is no history to tell it from."`
	EstimatedCompletionTimeP90 *time.Time `json:"estimatedCompletionTimeP90,omitempty" doc:"When nine of ten such builds are over (p90)."`

	QueuedAt   time.Time  `json:"queuedAt"`
	StartedAt  *time.Time `json:"startedAt,omitempty" doc:"Of the last attempt."`
	FinishedAt *time.Time `json:"finishedAt,omitempty"`
}

// AppCreation is the answer to the creation of a project or a build: 201 with
// both, or 202 with the intent while the worker's answer is not known.
type AppCreation struct {
	Project *AppProject `json:"project,omitempty"`
	Build   *AppBuild   `json:"build,omitempty"`
	Intent  *Intent     `json:"intent,omitempty"`

	Replay
}

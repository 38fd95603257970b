package previewd

import (
	"context"
	"time"
)

// Worker is everything that crosses the process border between the worker and
// those who ask it: the service has it, and so has its HTTP client. Errors are
// *Error values.
type Worker interface {
	Creator
	Reader
	VersionKeeper
	Inspector
	EventReader
	Repairer
	EnvKeeper
}

// Repairer helps to mend builds that have failed.
type Repairer interface {
	// FindFailure returns what mending a failed build takes. It returns
	// CodeNotFound when there is no such build, and CodeNotFailed when it has not
	// failed.
	FindFailure(ctx context.Context, buildID string) (*FailurePacket, error)
	// RepairBuild creates the next build of a failed build's project, from the
	// failed build's tree with changes. Beside what CreateBuild returns it returns
	// CodeNotFailed, and CodeBuildOutdated when the project has a newer build: what
	// that one was made of must not be lost.
	RepairBuild(ctx context.Context, req RepairBuildRequest) (*Build, error)
}

// EventReader reads the feed.
type EventReader interface {
	// ListEvents returns the events after a cursor, each at least once and each
	// project's in order. With a Wait it returns once there are any. A cursor of
	// another log gets a page that says Reset. It returns CodeInvalid for what is
	// no cursor.
	ListEvents(ctx context.Context, filter EventFilter) (*EventPage, error)
}

// Creator makes projects and builds.
type Creator interface {
	// CreatePreview creates a project and its first build, all or none, and
	// returns both. The same principal and key always get the same project;
	// with other content they get CodeKeyReused. Without a key, an equal request
	// of the same user within ten seconds gets the first one's answer. It returns
	// CodeInvalid or CodeInvalidPath for input that breaks the rules, before
	// anything is stored, and CodeQueueFull when too many builds wait.
	CreatePreview(ctx context.Context, req CreatePreviewRequest) (*Preview, error)
	// CreateBuild creates the next build of a project. What becomes of a build
	// of the project that waits or runs is its policy's to say. It returns
	// CodeNotFound when there is no such project, CodeBuildActive when the policy
	// refuses, and CodeQueueFull when too many builds wait.
	CreateBuild(ctx context.Context, req CreateBuildRequest) (*Build, error)
	// CancelBuild ends a build. One that runs is canceling until its runner has
	// killed it; one that is over stays as it is. It returns CodeNotFound when
	// there is no such build.
	CancelBuild(ctx context.Context, req CancelBuildRequest) (*Build, error)
	// DeleteProject ends the project's builds and makes it, with its builds,
	// versions and previews, one that is not found any more. Its id is never used
	// again; its events stay in the feed. A project that is deleted already stays
	// so. It returns CodeNotFound when there never was such a project.
	DeleteProject(ctx context.Context, req DeleteProjectRequest) error
}

// Inspector answers questions about what has been done.
type Inspector interface {
	// FindOperation tells what became of the caller's idempotency key. It returns
	// CodeNotFound when the key is free.
	FindOperation(ctx context.Context, caller Caller, key string) (*Operation, error)
	// CheckIntegrity looks whether every promise holds now. That some do not is
	// its answer and no error.
	CheckIntegrity(ctx context.Context) (*Integrity, error)
}

// Reader reads projects, builds and their logs, and templates.
type Reader interface {
	// FindProject returns CodeNotFound when there is no such project.
	FindProject(ctx context.Context, id string) (*Project, error)
	// ListProjects returns a page of projects, newest first.
	ListProjects(ctx context.Context, filter ProjectFilter) (*ProjectPage, error)
	// FindBuild returns the build once its status differs from what it was at
	// the call, or it is over, or wait has passed. It returns CodeNotFound when
	// there is no such build.
	FindBuild(ctx context.Context, id string, wait time.Duration) (*Build, error)
	// ListTemplates returns the built-in templates by name.
	ListTemplates(ctx context.Context) ([]Template, error)
	// ListPackages returns the npm packages that a build was made with, so far none
	// while it runs. It returns CodeNotFound when there is no such build.
	ListPackages(ctx context.Context, buildID string) (*PackageList, error)
	// ReadLog returns the build's log from a byte offset, at most limit bytes;
	// 0 means as many as fit.
	ReadLog(ctx context.Context, buildID string, offset int64, limit int) (*LogChunk, error)
}

// VersionKeeper lists versions and chooses the current one.
type VersionKeeper interface {
	// ListVersions returns a page of versions, newest first.
	ListVersions(ctx context.Context, projectID string, page Page) (*VersionPage, error)
	// ActivateVersion makes a version the current one. Going back to an older
	// one pins it: new builds do not move it until the newest is activated.
	ActivateVersion(ctx context.Context, req ActivateVersionRequest) (*Version, error)
}

// Caller says who asks, for rows, audit and logs.
type Caller struct {
	Principal string // who the token belongs to; scopes idempotency keys
	Service   string // the service's name: created_by_service
	LegacyIDs bool   // may bring its own project ids
	RequestID string
}

// CreatePreviewRequest is what a project is made of.
type CreatePreviewRequest struct {
	UserID        string         `json:"userId"`
	ProjectID     string         `json:"projectId,omitempty"` // refused, unless the caller may bring its own
	Prompt        string         `json:"prompt"`
	TemplateFiles Files          `json:"templateFiles"`
	Metadata      map[string]any `json:"metadata,omitempty"` // "template" names a built-in one

	IdempotencyKey string `json:"-"` // "" is guarded by the window alone
	Caller         Caller `json:"-"`
}

// Preview is the answer to CreatePreview.
type Preview struct {
	BuildID                 string      `json:"buildId"`
	ProjectID               string      `json:"projectId"`
	Status                  BuildStatus `json:"status" enum:"queued,building,canceling,completed,failed,canceled,superseded"`
	UserID                  string      `json:"userId,omitempty" doc:"Who the project belongs to: as it was asked for."`
	PreviewURL              string      `json:"previewUrl,omitempty"`
	BuildURL                string      `json:"buildUrl,omitempty" doc:"Shows the first build for ever."`
	QueuePosition           int         `json:"queuePosition,omitempty" doc:"1 is next."`
	EstimatedCompletionTime *time.Time  `json:"estimatedCompletionTime,omitempty" doc:"When it is as likely over as not; absent while there is no history to tell it from."`
	IDGenerationSource      IDSource    `json:"idGenerationSource" enum:"server,client"`
	CreatedByService        string      `json:"createdByService"`
	ReferenceID             string      `json:"referenceId" doc:"Name this when you ask about the build."`

	Replay
}

// Replay says of an answer whether it was given before.
type Replay struct {
	Replayed          Replayed `json:"-"` // "" for a first answer
	OriginalRequestID string   `json:"-"` // of the request that got the first answer
}

// CreateBuildRequest is what the next build of a project is made of.
type CreateBuildRequest struct {
	ProjectID     string         `json:"-"`
	Prompt        string         `json:"prompt"`
	TemplateFiles Files          `json:"templateFiles"`
	Metadata      map[string]any `json:"metadata,omitempty"`
	Policy        BuildPolicy    `json:"policy,omitempty"` // "" means PolicySupersede

	IdempotencyKey string `json:"-"`
	Caller         Caller `json:"-"`
}

// BuildPolicy says what a new build does to a build of its project that is not
// over.
type BuildPolicy string

// The policies.
const (
	PolicySupersede BuildPolicy = "supersede" // what waits or runs is superseded
	PolicyQueue     BuildPolicy = "queue"     // what runs goes on, what waits is superseded
	PolicyReject    BuildPolicy = "reject"    // the new build is refused
)

// CancelBuildRequest names a build to end.
type CancelBuildRequest struct {
	BuildID string
	Caller  Caller
}

// DeleteProjectRequest names a project to delete.
type DeleteProjectRequest struct {
	ProjectID string
	Caller    Caller
}

// ActivateVersionRequest names a version of a project.
type ActivateVersionRequest struct {
	ProjectID string
	Number    int64
	Caller    Caller
}

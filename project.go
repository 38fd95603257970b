package previewd

import "time"

// IDSource says who made a project's id.
type IDSource string

// Where ids come from. Client ids are legacy and refused unless a caller's
// token allows them.
const (
	IDSourceServer IDSource = "server"
	IDSourceClient IDSource = "client"
)

// Project is what a user made. Its id is a UUIDv7 minted by the worker.
type Project struct {
	ID                 string    `json:"id"`
	UserID             string    `json:"userId" doc:"Who the project belongs to."`
	Status             string    `json:"status" enum:"queued,building,deployed,failed,canceled,superseded" doc:"The app's word for the newest build's status."`
	PreviewURL         string    `json:"previewUrl" doc:"Shows the current version, and until there is one a page that says how the build is doing."`
	IDGenerationSource IDSource  `json:"idGenerationSource" enum:"server,client"`
	CreatedByService   string    `json:"createdByService" doc:"The service that asked for the project."`
	CurrentVersion     int64     `json:"currentVersion,omitempty" doc:"Number of the version that is shown; absent while there is none."`
	Pinned             bool      `json:"pinned,omitempty" doc:"True after a rollback: new builds do not move the current version."`
	LatestBuild        Build     `json:"latestBuild"`
	CreatedAt          time.Time `json:"createdAt"`
	// CreateKey lets a caller that has lost an answer find what it asked for.
	CreateKey       string `json:"idempotencyKey,omitempty" doc:"The Idempotency-Key of the project's create, told only to the principal that sent it."`
	CreatePrincipal string `json:"-"` // who sent the create
}

// HideKey keeps the key of the project's create from any principal but the one
// that has sent it.
func (p *Project) HideKey(principal string) {
	if p.CreatePrincipal != principal {
		p.CreateKey = ""
	}
}

// ProjectFilter chooses projects, newest first.
type ProjectFilter struct {
	UserID    string // "" means everybody's
	CreatedBy string // the service that asked for them; "" means any
	After     string // only those whose id sorts after this one: made later, for ids made here
	Page
}

// Page asks for one page of a list.
type Page struct {
	Cursor string // as the page before returned it; "" for the first
	Limit  int    // 1 to 200; 0 means 50
}

// ProjectPage is one page of projects and the cursor of the next, "" at the end.
type ProjectPage struct {
	Projects []Project `json:"projects" nullable:"false"`
	Next     string    `json:"nextCursor,omitempty"`
}

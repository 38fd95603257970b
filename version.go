package previewd

import "time"

// Version is the immutable outcome of a completed build. Numbers count 1, 2, 3…
// per project without a gap; the row is born in the transaction that completes
// the build.
type Version struct {
	ID             string    `json:"id"`
	ProjectID      string    `json:"projectId"`
	Number         int64     `json:"number"`
	BuildID        string    `json:"buildId"`
	BuildSeq       int64     `json:"buildSeq"`
	ManifestDigest Digest    `json:"manifestDigest" doc:"sha256 of the manifest that lists the files."`
	Files          int       `json:"files"`
	Bytes          int64     `json:"bytes"`
	Current        bool      `json:"current" doc:"True for the version that the project shows."`
	PreviewURL     string    `json:"previewUrl" doc:"Shows this version's build for ever."`
	CreatedAt      time.Time `json:"createdAt"`
}

// VersionPage is one page of versions, newest first, and the cursor of the next.
type VersionPage struct {
	Versions []Version `json:"versions" nullable:"false"`
	Next     string    `json:"nextCursor,omitempty"`
}

// Site is what a preview host shows.
type Site struct {
	ProjectID string
	BuildID   string // that made the version; without one, the build to wait for
	Manifest  Digest // "" while there is no version
}

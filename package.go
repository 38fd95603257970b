package previewd

// Package is an npm package that a build was made with.
type Package struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	Bytes     int64  `json:"bytes" doc:"Of its tarball."`
	Integrity string `json:"integrity" doc:"sha512-… of its tarball, as it was checked."`
	Cached    bool   `json:"cached" doc:"It was here before the build asked for it."`
}

// PackageList is what a build was made with, as the mirror of the registry has
// handed it out: to this build, or to the one that installed what this one found.
type PackageList struct {
	BuildID  string    `json:"buildId"`
	Bytes    int64     `json:"bytes" doc:"Of all their tarballs."`
	Packages []Package `json:"packages" nullable:"false" doc:"By name and version."`
}

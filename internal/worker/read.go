package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// FindProject implements previewd.Worker.
func (s *Service) FindProject(ctx context.Context, id string) (*previewd.Project, error) {
	if !previewd.IsID(id) {
		return nil, previewd.NotFound("project", id)
	}
	p, err := s.Store.FindProject(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.dressProject(ctx, p)
}

// ListProjects implements previewd.Worker. The cursor is the last id of a page.
func (s *Service) ListProjects(ctx context.Context, filter previewd.ProjectFilter) (*previewd.ProjectPage, error) {
	limit, err := pageLimit(filter.Page)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkText("userId", filter.UserID, previewd.MaxUserID), checkText("createdBy", filter.CreatedBy, previewd.MaxUserID)); err != nil {
		return nil, err
	}
	if filter.After != "" && !previewd.IsID(filter.After) {
		return nil, invalid("after must be the id of a project.", "after")
	}
	below, err := parseProjectCursor(filter.Cursor)
	if err != nil {
		return nil, err
	}
	projects, err := s.Store.ListProjects(ctx, filter, below, limit+1)
	if err != nil {
		return nil, err
	}
	page := &previewd.ProjectPage{Projects: []previewd.Project{}}
	for _, p := range projects[:min(len(projects), limit)] {
		project, err := s.dressProject(ctx, p)
		if err != nil {
			return nil, err
		}
		page.Projects = append(page.Projects, *project)
	}
	if len(projects) > limit {
		page.Next = projects[limit-1].ID
	}
	return page, nil
}

// dressProject adds what is derived from the rows.
func (s *Service) dressProject(ctx context.Context, p *store.Project) (*previewd.Project, error) {
	status, err := p.LatestBuild.Status.ProjectStatus()
	if err != nil {
		return nil, err
	}
	p.Status, p.PreviewURL = string(status), s.PreviewURL(p.ID)
	err = s.dressBuild(ctx, p.Build)
	p.LatestBuild = p.Build.Build
	return &p.Project, err
}

func (s *Service) dressBuild(ctx context.Context, b *store.Build) (err error) {
	b.PreviewURL = s.PreviewURL(b.ID + ".b")
	switch b.Status {
	case previewd.BuildQueued:
		if b.QueuePosition, err = s.position(ctx, b); err != nil {
			return err
		}
	case previewd.BuildBuilding:
	default:
		return nil
	}
	b.EstimatedCompletionTime, b.EstimatedCompletionTimeP90 = s.queue(ctx).estimate(b)
	return nil
}

// FindBuild implements previewd.Worker.
func (s *Service) FindBuild(ctx context.Context, id string, wait time.Duration) (*previewd.Build, error) {
	if !previewd.IsID(id) {
		return nil, previewd.NotFound("build", id)
	}
	b, err := s.Store.FindBuild(ctx, id)
	if err != nil {
		return nil, err
	}
	if was := b.Status; wait > 0 && !was.Terminal() {
		err = s.Changes.Wait(ctx, b.ProjectID, wait, func() (done bool, err error) {
			b, err = s.Store.FindBuild(ctx, id)
			return err == nil && b.Status != was, err
		})
		if err != nil {
			return nil, err
		}
	}
	return &b.Build, s.dressBuild(ctx, b)
}

// maxLogChunk bounds the answer to one read of a log.
const maxLogChunk = 256 << 10

// ReadLog implements previewd.Worker.
func (s *Service) ReadLog(ctx context.Context, buildID string, offset int64, limit int) (*previewd.LogChunk, error) {
	// The build is read first: when it is over here, the log below is whole.
	b, err := s.FindBuild(ctx, buildID, 0)
	if err != nil {
		return nil, err
	}
	if offset < 0 || offset > b.LogBytes {
		return nil, invalid("offset must lie within the log.", fmt.Sprintf("offset %d of %d", offset, b.LogBytes))
	}
	if limit <= 0 || limit > maxLogChunk {
		limit = maxLogChunk
	}
	data, err := s.Store.ReadLog(ctx, buildID, offset, limit)
	if err != nil {
		return nil, err
	}
	if i := bytes.LastIndexByte(data, '\n'); len(data) == limit && i >= 0 {
		data = data[:i+1] // whole lines, so that no character is cut in two
	}
	next := offset + int64(len(data))
	return &previewd.LogChunk{
		Offset: offset, Next: next, Data: data, Complete: b.Status.Terminal() && next >= b.LogBytes,
	}, nil
}

// ListPackages implements previewd.Reader.
func (s *Service) ListPackages(ctx context.Context, buildID string) (*previewd.PackageList, error) {
	if _, err := s.FindBuild(ctx, buildID, 0); err != nil {
		return nil, err
	}
	packages, err := s.Store.ListPackages(ctx, buildID)
	list := &previewd.PackageList{BuildID: buildID, Packages: append([]previewd.Package{}, packages...)}
	for _, p := range packages {
		list.Bytes += p.Bytes
	}
	return list, err
}

// FindSite implements preview.Source: what a project's host shows, or with a
// build id that of one build. Manifest is "" while there is no version.
func (s *Service) FindSite(ctx context.Context, projectID, buildID string) (*previewd.Site, error) {
	var v *previewd.Version
	site := &previewd.Site{ProjectID: projectID, BuildID: buildID}
	var err error
	if buildID != "" {
		v, err = s.Store.FindBuildVersion(ctx, buildID)
	} else {
		v, err = s.Store.FindCurrentVersion(ctx, projectID)
	}
	switch {
	case err != nil:
		return nil, err
	case v != nil:
		return &previewd.Site{ProjectID: v.ProjectID, BuildID: v.BuildID, Manifest: v.ManifestDigest}, nil
	case buildID != "":
		b, err := s.FindBuild(ctx, buildID, 0)
		if err != nil {
			return nil, err
		}
		site.ProjectID = b.ProjectID
		return site, nil
	}
	p, err := s.FindProject(ctx, projectID)
	if err != nil {
		return nil, err
	}
	site.BuildID = p.LatestBuild.ID
	return site, nil
}

// ListVersions implements previewd.Worker. The cursor is the last number of a page.
func (s *Service) ListVersions(ctx context.Context, projectID string, page previewd.Page) (*previewd.VersionPage, error) {
	limit, err := pageLimit(page)
	if err != nil {
		return nil, err
	}
	below, err := parseVersionCursor(page.Cursor)
	if err != nil {
		return nil, err
	}
	if _, err := s.FindProject(ctx, projectID); err != nil {
		return nil, err
	}
	versions, err := s.Store.ListVersions(ctx, projectID, below, limit+1)
	if err != nil {
		return nil, err
	}
	list := &previewd.VersionPage{Versions: []previewd.Version{}}
	for _, v := range versions[:min(len(versions), limit)] {
		list.Versions = append(list.Versions, *s.dressVersion(v))
	}
	if len(versions) > limit {
		list.Next = strconv.FormatInt(versions[limit-1].Number, 10)
	}
	return list, nil
}

func (s *Service) dressVersion(v *previewd.Version) *previewd.Version {
	v.PreviewURL = s.PreviewURL(v.BuildID + ".b")
	return v
}

// parseProjectCursor returns the id below which a page begins.
func parseProjectCursor(cursor string) (string, error) {
	switch {
	case cursor == "":
		return "g", nil // after every id: they are hexadecimal
	case !previewd.IsID(cursor):
		return "", badCursor(cursor)
	}
	return cursor, nil
}

// parseVersionCursor returns the number below which a page begins; 0 is from
// the newest.
func parseVersionCursor(cursor string) (int64, error) {
	if cursor == "" {
		return 0, nil
	}
	below, err := strconv.ParseInt(cursor, 10, 64)
	if err != nil || below < 1 {
		return 0, badCursor(cursor)
	}
	return below, nil
}

func badCursor(cursor string) error {
	return invalid("The cursor is not one of this list: take it from nextCursor.", cursor)
}

func pageLimit(p previewd.Page) (int, error) {
	switch {
	case p.Limit == 0:
		return 50, nil
	case p.Limit < 1 || p.Limit > 200:
		return 0, invalid("limit must be from 1 to 200.", strconv.Itoa(p.Limit))
	}
	return p.Limit, nil
}

package gateway

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

const (
	defaultPage = 50
	maxPage     = 200
)

// pageOf returns the limit of a page and the id below which it begins. It
// returns CodeInvalid.
func pageOf(p previewd.Page) (limit int, below string, err error) {
	limit, below = p.Limit, p.Cursor
	switch {
	case limit == 0:
		limit = defaultPage
	case limit < 1 || limit > maxPage:
		return 0, "", invalid("limit must be from 1 to "+strconv.Itoa(maxPage)+".", strconv.Itoa(limit))
	}
	switch {
	case below == "":
		below = "~" // sorts after every id
	case !previewd.IsID(below):
		return 0, "", invalid("The cursor is none: take it from nextCursor.", strconv.Quote(below))
	}
	return limit, below, nil
}

// paged cuts a list of one more than asked for and returns the cursor of what
// follows, "" at the end.
func paged[T any](list []T, limit int, id func(T) string) (page []T, next string) {
	if len(list) <= limit {
		return list, ""
	}
	return list[:limit], id(list[limit-1])
}

// ListProjects returns a page of the user's projects, newest first.
func (s *Service) ListProjects(ctx context.Context, userID string, p previewd.Page) (*previewd.AppProjectPage, error) {
	limit, below, err := pageOf(p)
	if err != nil {
		return nil, err
	}
	list, err := s.Store.ListAppProjects(ctx, userID, below, limit+1)
	if err != nil {
		return nil, err
	}
	list, next := paged(list, limit, func(p *store.AppProject) string { return p.ID })
	page := &previewd.AppProjectPage{Projects: []previewd.AppProject{}, Next: next}
	for _, p := range list {
		page.Projects = append(page.Projects, p.AppProject)
	}
	return page, nil
}

// liveTime is how long a read waits for the worker to say where a build stands.
const liveTime = 2 * time.Second

// FindProject returns a project of the user's. It returns CodeNotFound.
func (s *Service) FindProject(ctx context.Context, userID, id string) (*previewd.AppProject, error) {
	p, err := s.Store.FindAppProject(ctx, userID, id)
	if err != nil {
		return nil, err
	}
	s.place(ctx, &p.Build)
	return &p.AppProject, nil
}

// place adds to a build that is not over where it stands. Without the worker the
// rest is told all the same.
func (s *Service) place(ctx context.Context, b *previewd.AppBuild) {
	if b.FinishedAt != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, liveTime)
	defer cancel()
	theirs, err := s.Worker.FindBuild(ctx, b.ID, 0)
	if err != nil {
		s.Log.DebugContext(ctx, "where a build stands is not known", telemetry.BuildID, b.ID, telemetry.Error, err)
		return
	}
	b.QueuePosition, b.EstimatedCompletionTime = theirs.QueuePosition, theirs.EstimatedCompletionTime
	b.EstimatedCompletionTimeP90 = theirs.EstimatedCompletionTimeP90
}

// AppBuildPage is one page of builds.
type AppBuildPage struct {
	Builds []previewd.AppBuild `json:"builds" nullable:"false"`
	Next   string              `json:"nextCursor,omitempty"`
}

// ListBuilds returns a page of a project's builds, newest first. The cursor is
// the number of the last one. It returns CodeNotFound.
func (s *Service) ListBuilds(ctx context.Context, userID, projectID string, p previewd.Page) (*AppBuildPage, error) {
	below := int64(1<<62 - 1)
	if p.Cursor != "" {
		n, err := strconv.ParseInt(p.Cursor, 10, 64)
		if err != nil || n < 1 {
			return nil, invalid("The cursor is none: take it from nextCursor.", strconv.Quote(p.Cursor))
		}
		below = n
	}
	limit, _, err := pageOf(previewd.Page{Limit: p.Limit})
	if err != nil {
		return nil, err
	}
	if _, err := s.Store.FindAppProject(ctx, userID, projectID); err != nil {
		return nil, err
	}
	list, err := s.Store.ListAppBuilds(ctx, projectID, below, limit+1)
	if err != nil {
		return nil, err
	}
	list, next := paged(list, limit, func(b *store.AppBuild) string { return strconv.FormatInt(b.Seq, 10) })
	page := &AppBuildPage{Builds: []previewd.AppBuild{}, Next: next}
	for _, b := range list {
		page.Builds = append(page.Builds, b.AppBuild)
	}
	return page, nil
}

// RenameProject gives a project another name. It returns CodeNameTaken and
// CodeNotFound.
func (s *Service) RenameProject(ctx context.Context, req Request, id, name string) (*previewd.AppProject, error) {
	name, err := checkName(name)
	if err != nil {
		return nil, err
	}
	var p *store.AppProject
	err = s.Store.Tx(ctx, "app.rename", func(tx *store.DB) (err error) {
		if p, err = s.own(ctx, tx, req, id); err != nil || p.Name == name {
			return err
		}
		if foldName(p.Name) != foldName(name) {
			if err := tx.ReleaseName(ctx, p.IntentID); err != nil {
				return err
			}
			free, err := tx.ReserveName(ctx, p.OwnerID, foldName(name), p.IntentID)
			if err == nil && !free {
				err = nameTaken(name)
			}
			if err != nil {
				return err
			}
		}
		was := p.Name
		p.Name, p.UpdatedAt = name, tx.Now()
		if err := tx.UpdateAppProject(ctx, id, store.AppProjectChange{Name: &name}); err != nil {
			return err
		}
		return audit(ctx, tx, userActor(req.User.ID), store.AuditEntry{
			Action: "project.rename", Subject: "project/" + id, Data: map[string]any{"from": was, "to": name, "requestId": req.RequestID},
		})
	})
	if err != nil {
		return nil, err
	}
	return &p.AppProject, nil
}

// own locks a project of the user's that is not being deleted.
func (s *Service) own(ctx context.Context, tx *store.DB, req Request, id string) (*store.AppProject, error) {
	if _, err := tx.FindAppProject(ctx, req.User.ID, id); err != nil {
		return nil, err
	}
	p, err := tx.LockAppProject(ctx, id)
	if err == nil && p.State != "active" {
		err = previewd.NotFound("project", id)
	}
	return p, err
}

// DeleteProject deletes a project of the user's: its preview stops at once, its
// builds are canceled. Done is false while the worker cannot be reached; it is
// told as soon as it can. It returns CodeNotFound.
func (s *Service) DeleteProject(ctx context.Context, req Request, id string) (done bool, err error) {
	err = s.Store.Tx(ctx, "app.delete", func(tx *store.DB) error {
		if _, err := tx.FindAppProject(ctx, req.User.ID, id); err != nil {
			return err
		}
		p, err := tx.LockAppProject(ctx, id)
		if err != nil || p.State != "active" {
			return err // its deletion is under way, or done
		}
		// The same request again is no double click: its project is gone.
		if err := tx.CloseIntentWindow(ctx, p.IntentID); err != nil {
			return err
		}
		if err := tx.UpdateAppProject(ctx, id, store.AppProjectChange{State: new("deleting")}); err != nil {
			return err
		}
		return audit(ctx, tx, userActor(req.User.ID), store.AuditEntry{
			Action: "project.delete", Subject: "project/" + id, Data: map[string]any{"requestId": req.RequestID},
		})
	})
	if err != nil {
		return false, err
	}
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Patience)
	defer cancel()
	if err := s.finishDeletion(call, id); err != nil {
		s.Log.WarnContext(ctx, "deletion postponed", telemetry.ProjectID, id, telemetry.RequestID, req.RequestID, telemetry.Error, err)
		return false, nil
	}
	return true, nil
}

// finishDeletion has the worker delete a project, and then lets go of its name.
func (s *Service) finishDeletion(ctx context.Context, id string) error {
	lost, err := s.deleteTheirs(ctx, id, "delete-"+id)
	if err != nil {
		return err
	}
	return s.Store.Tx(ctx, "app.deleted", func(tx *store.DB) error {
		if lost { // no event will tell of its builds' ends
			if _, err := tx.LockAppFeed(ctx); err != nil {
				return err
			}
		}
		if ended, err := endProject(ctx, tx, id); err != nil || !ended || !lost {
			return err
		}
		list, err := tx.ListOpenAppBuilds(ctx, id)
		for _, b := range list {
			if err := s.endLost(ctx, tx, b); err != nil {
				return err
			}
		}
		return err
	})
}

// endProject stores that a project is deleted, and lets go of its name and of the
// window of its intent. It returns false for one that was deleted before.
func endProject(ctx context.Context, tx *store.DB, id string) (ended bool, err error) {
	// The project before its name, as everybody does who takes both.
	p, err := tx.LockAppProject(ctx, id)
	if err != nil || p.State == "deleted" {
		return false, err
	}
	if err := tx.ReleaseName(ctx, p.IntentID); err != nil {
		return false, err
	}
	if err := tx.CloseIntentWindow(ctx, p.IntentID); err != nil {
		return false, err
	}
	err = tx.UpdateAppProject(ctx, id, store.AppProjectChange{State: new("deleted"), Attention: new("")})
	return err == nil, err
}

// deleteTheirs has the worker delete a project. lost says that it knew none.
func (s *Service) deleteTheirs(ctx context.Context, id, requestID string) (lost bool, err error) {
	call, cancel := context.WithTimeout(ctx, workerTime)
	defer cancel()
	err = s.Worker.DeleteProject(call, previewd.DeleteProjectRequest{ProjectID: id, Caller: s.caller(requestID)})
	if previewd.ErrorCode(err) == previewd.CodeNotFound {
		return true, nil
	}
	return false, err
}

// finishDeletions completes deletions that were left open.
func (s *Service) finishDeletions(ctx context.Context) error {
	list, err := s.Store.ListDeleting(ctx, compareBatch)
	errs := []error{err}
	for _, p := range list {
		errs = append(errs, s.finishDeletion(ctx, p.ID))
	}
	return errors.Join(errs...)
}

// CancelBuild ends a build of the user's. It returns CodeNotFound.
func (s *Service) CancelBuild(ctx context.Context, req Request, id string) (*previewd.AppBuild, error) {
	b, err := s.Store.FindAppBuild(ctx, req.User.ID, id)
	if err != nil {
		return nil, err
	}
	if b.FinishedAt != nil {
		return &b.AppBuild, nil
	}
	call, cancel := context.WithTimeout(ctx, workerTime)
	defer cancel()
	theirs, err := s.Worker.CancelBuild(call, previewd.CancelBuildRequest{BuildID: id, Caller: s.caller(req.RequestID)})
	if err != nil {
		return nil, err
	}
	err = s.Store.Tx(ctx, "app.cancel", func(tx *store.DB) error {
		return audit(ctx, tx, userActor(req.User.ID), store.AuditEntry{
			Action: "build.cancel", Subject: "build/" + id, Data: map[string]any{"requestId": req.RequestID},
		})
	})
	if err != nil {
		return nil, err
	}
	s.show(ctx, &b.AppBuild, theirs)
	return &b.AppBuild, nil
}

// show tells of a build as the worker has just said it is; its event will say so
// to the rows.
func (s *Service) show(ctx context.Context, b *previewd.AppBuild, theirs *previewd.Build) {
	status, err := theirs.Status.ProjectStatus()
	if err != nil {
		s.unknown(ctx, b.ProjectID, b.ID, theirs.Status)
		return
	}
	b.Status, b.Canceling, b.FinishedAt, b.StartedAt = status, theirs.Status == previewd.BuildCanceling, theirs.FinishedAt, theirs.StartedAt
}

// ReadLog returns a piece of a build's log. It returns CodeNotFound.
func (s *Service) ReadLog(ctx context.Context, userID, buildID string, offset int64, limit int) (*previewd.LogChunk, error) {
	if _, err := s.Store.FindAppBuild(ctx, userID, buildID); err != nil {
		return nil, err
	}
	return s.Worker.ReadLog(ctx, buildID, offset, limit)
}

// ListPackages returns the npm packages that a build of the user's was made with.
// It returns CodeNotFound.
func (s *Service) ListPackages(ctx context.Context, userID, buildID string) (*previewd.PackageList, error) {
	if _, err := s.Store.FindAppBuild(ctx, userID, buildID); err != nil {
		return nil, err
	}
	return s.Worker.ListPackages(ctx, buildID)
}

// ListVersions returns a page of a project's versions. It returns CodeNotFound.
func (s *Service) ListVersions(ctx context.Context, userID, projectID string, p previewd.Page) (*previewd.VersionPage, error) {
	if _, err := s.Store.FindAppProject(ctx, userID, projectID); err != nil {
		return nil, err
	}
	return s.Worker.ListVersions(ctx, projectID, p)
}

// ActivateVersion makes a version the one that a project shows. It returns
// CodeNotFound.
func (s *Service) ActivateVersion(ctx context.Context, req Request, projectID string, number int64) (*previewd.Version, error) {
	if _, err := s.Store.FindAppProject(ctx, req.User.ID, projectID); err != nil {
		return nil, err
	}
	call, cancel := context.WithTimeout(ctx, workerTime)
	defer cancel()
	v, err := s.Worker.ActivateVersion(call, previewd.ActivateVersionRequest{ProjectID: projectID, Number: number, Caller: s.caller(req.RequestID)})
	if err != nil {
		return nil, err
	}
	return v, s.Store.Tx(ctx, "app.activate", func(tx *store.DB) error {
		return audit(ctx, tx, userActor(req.User.ID), store.AuditEntry{
			Action: "version.activate", Subject: "project/" + projectID, Data: map[string]any{"version": number, "requestId": req.RequestID},
		})
	})
}

package workerapi

import (
	"cmp"
	"fmt"

	"github.com/previewd/previewd"
)

// An answer is believed when it is about what was asked for and names all that
// is acted on. What only newer workers say, such as a status that nobody here
// knows, is passed on: whoever shows it keeps what it had.

func isTrue(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf("cannot believe the worker's answer: "+format, args...)
}

// isID checks an id, which must be this one unless want is "".
func isID(name, id, want string) error {
	return isTrue(previewd.IsID(id) && (want == "" || id == want), "%s is %.100q", name, id)
}

func isStatus(status string) error {
	return isTrue(status != "" && len(status) <= 64, "status is %.100q", status)
}

func checkPreview(p *previewd.Preview, req previewd.CreatePreviewRequest) error {
	return cmp.Or(
		isID("projectId", p.ProjectID, req.ProjectID), isID("buildId", p.BuildID, ""), isStatus(string(p.Status)),
		isTrue(p.ProjectID != p.BuildID, "project and build have one id"),
		isTrue(p.IDGenerationSource == previewd.IDSourceServer || req.ProjectID != "", "the worker did not make the id"),
		isTrue(p.UserID == "" || p.UserID == req.UserID, "userId is another"),
		isTrue(p.ReferenceID != "", "referenceId is missing"),
	)
}

func checkBuild(b *previewd.Build, id, projectID string) error {
	err := cmp.Or(
		isID("id", b.ID, id), isID("projectId", b.ProjectID, projectID), isStatus(string(b.Status)),
		isTrue(b.Seq >= 1, "seq is missing"), isTrue(!b.QueuedAt.IsZero(), "queuedAt is missing"),
		isTrue(b.ReferenceID != "", "referenceId is missing"),
	)
	if err == nil && b.SupersededBy != "" {
		err = isID("supersededBy", b.SupersededBy, "")
	}
	return err
}

func checkFailure(p *previewd.FailurePacket, buildID string) error {
	return cmp.Or(
		isID("buildId", p.BuildID, buildID), isID("projectId", p.ProjectID, ""), isTrue(p.Seq >= 1, "seq is missing"),
		isTrue(p.Failure.Code != "", "the failure has no code"), isTrue(p.ReferenceID != "", "referenceId is missing"),
	)
}

func checkProject(p *previewd.Project, id, userID string) error {
	return cmp.Or(
		isID("id", p.ID, id), isTrue(p.UserID != "" && (userID == "" || p.UserID == userID), "userId is another"),
		isStatus(p.Status), isTrue(!p.CreatedAt.IsZero(), "createdAt is missing"), checkBuild(&p.LatestBuild, "", p.ID),
	)
}

func checkProjects(page *previewd.ProjectPage, filter previewd.ProjectFilter) error {
	if err := isPage(len(page.Projects), filter.Limit, 50); err != nil {
		return err
	}
	for i := range page.Projects {
		if err := checkProject(&page.Projects[i], "", filter.UserID); err != nil {
			return err
		}
	}
	return nil
}

// isPage refuses more than was asked for.
func isPage(got, limit, byDefault int) error {
	if limit == 0 {
		limit = byDefault
	}
	return isTrue(got <= limit, "a page of %d has %d", limit, got)
}

func checkVersion(v *previewd.Version, projectID string, number int64) error {
	return cmp.Or(
		isID("id", v.ID, ""), isID("projectId", v.ProjectID, projectID), isID("buildId", v.BuildID, ""),
		isTrue(v.Number >= 1 && (number == 0 || v.Number == number), "number is another"),
		isTrue(v.ManifestDigest != "", "manifestDigest is missing"),
	)
}

func checkVersions(page *previewd.VersionPage, projectID string, asked previewd.Page) error {
	if err := isPage(len(page.Versions), asked.Limit, 50); err != nil {
		return err
	}
	for i := range page.Versions {
		if err := checkVersion(&page.Versions[i], projectID, 0); err != nil {
			return err
		}
	}
	return nil
}

// checkEvents asks of an event only where to go on after it: what it tells is its
// reader's to judge, so that one bad event does not keep all others back.
func checkEvents(page *previewd.EventPage, filter previewd.EventFilter) error {
	err := cmp.Or(isPage(len(page.Events), filter.Limit, 100), isTrue(page.Next != "", "next is missing"))
	for _, e := range page.Events {
		err = cmp.Or(err, isTrue(e.Cursor != "", "cursor is missing"))
	}
	return err
}

func checkTemplates(list []previewd.Template) error {
	for _, t := range list {
		if t.Name == "" {
			return isTrue(false, "a template has no name")
		}
	}
	return nil
}

func checkLog(l *previewd.LogChunk, limit int) error {
	return isTrue(len(l.Data) <= limit, "%d bytes of log for %d", len(l.Data), limit)
}

func checkOperation(op *previewd.Operation, key string) error {
	err := cmp.Or(
		isTrue(op.IdempotencyKey == key, "the key is another"), isTrue(op.Operation != "", "operation is missing"),
		isTrue(op.Status >= 100 && op.Status < 600, "status is missing"),
	)
	for _, id := range []string{op.ProjectID, op.BuildID} {
		if err == nil && id != "" {
			err = isID("id", id, "")
		}
	}
	return err
}

func checkIntegrity(found *previewd.Integrity) error {
	return cmp.Or(isTrue(!found.CheckedAt.IsZero(), "checkedAt is missing"), isTrue(len(found.Checks) > 0, "there are no checks"))
}

func checkEnv(list []previewd.EnvVar) error {
	for i := range list {
		if err := checkEnvVar(&list[i], ""); err != nil {
			return err
		}
	}
	return nil
}

// checkEnvVar believes no worker that tells a secret: it would be passed on.
func checkEnvVar(v *previewd.EnvVar, name string) error {
	return cmp.Or(
		isTrue(v.Name != "" && (name == "" || v.Name == name), "name is another"),
		isTrue(!v.Secret || v.Value == nil, "the value of a secret is told"),
	)
}

package worker

import (
	"context"
	"fmt"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/fault"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// FinishBuild implements previewd.Dispatcher. A completed build, its version,
// the project's pointer and their events are one transaction; the version row
// is born nowhere else.
func (s *Service) FinishBuild(ctx context.Context, lease previewd.Lease, out previewd.Outcome) (previewd.BuildStatus, error) {
	var manifest previewd.Manifest
	if out.Kind == previewd.OutcomeCompleted {
		var err error
		if manifest, err = s.verifyManifest(ctx, out.Manifest); err != nil {
			return "", err
		}
	}
	trigger, err := finishTrigger(lease, out)
	if err != nil {
		return "", err
	}
	var b *store.Build
	moved := false
	err = s.Store.Tx(ctx, "finish", func(tx *store.DB) error {
		var err error
		moved = false
		if b, err = tx.LockBuild(ctx, lease.BuildID); err != nil {
			return err
		}
		if b.Status.Terminal() && b.Epoch == lease.Epoch {
			return nil // the answer to an earlier call was lost: the result stands
		}
		b.Runner, b.Reason, b.Isolation, b.Cache, b.Failure = out.Runner, out.Reason, out.Isolation, out.Cache, out.Failure
		had := b.Packages // by an earlier attempt
		b.Packages = len(out.Packages)
		trigger.Delay = s.Retry(b.Attempt)
		c := change{actor: "runner/" + b.RunnerID}
		if c.from, err = s.move(ctx, tx, b, trigger); err != nil {
			return err
		}
		if b.Status == previewd.BuildCompleted {
			if moved, err = s.publish(ctx, tx, b, out.Manifest, manifest); err != nil {
				return err
			}
			c.data = completedData(b, manifest, out)
		}
		if len(out.Packages) > 0 || had > 0 {
			if err := tx.PutPackages(ctx, b.ID, out.Packages); err != nil {
				return err
			}
		}
		if moved {
			c.then = append(c.then, activatedEvent(b, b.Version, false))
		}
		return s.tell(ctx, tx, b, c)
	})
	if err != nil {
		return "", err
	}
	if moved {
		s.Switched(b.ProjectID) // before anybody hears of it
	}
	s.changed(b.ProjectID)
	s.Log.InfoContext(ctx, "build finished", telemetry.ProjectID, b.ProjectID, telemetry.BuildID, b.ID,
		telemetry.Status, b.Status, telemetry.Runner, b.Runner, telemetry.Epoch, b.Epoch,
		telemetry.ReferenceID, b.ReferenceID)
	return b.Status, nil
}

func finishTrigger(lease previewd.Lease, out previewd.Outcome) (previewd.Trigger, error) {
	t := previewd.Trigger{Epoch: lease.Epoch}
	switch out.Kind {
	case previewd.OutcomeCompleted:
		t.Kind = previewd.TriggerComplete
	case previewd.OutcomeCanceled:
		t.Kind = previewd.TriggerAckCancel
	case previewd.OutcomeReleased:
		t.Kind = previewd.TriggerRelease
	case previewd.OutcomeFailed:
		if out.Failure == nil {
			return t, invalid("A failed outcome needs a failure.", "failure")
		}
		t.Kind, t.Class = previewd.TriggerFail, out.Failure.Class
	default:
		return t, invalid("The outcome's kind is not known.", string(out.Kind))
	}
	return t, nil
}

// verifyManifest makes sure that everything a version would show is there:
// completed is announced only after the files can be served.
func (s *Service) verifyManifest(ctx context.Context, digest previewd.Digest) (previewd.Manifest, error) {
	m, err := artifact.ReadManifest(ctx, s.Artifacts, digest)
	if err != nil {
		return m, err
	}
	for _, blob := range m.Blobs() {
		there, err := s.Artifacts.Has(ctx, blob)
		if err != nil {
			return m, err
		}
		if !there && !fault.Off(fault.BlobCheck) {
			return m, fmt.Errorf("cannot complete a build: blob %s of manifest %s is missing", blob.Digest, digest)
		}
	}
	return m, nil
}

// publish makes the version of a build that this transaction has completed,
// and shows it if it is newer than what the project shows.
func (s *Service) publish(
	ctx context.Context, tx *store.DB, b *store.Build, digest previewd.Digest, m previewd.Manifest,
) (moved bool, err error) {
	v := store.NewVersion{ID: s.NewID(), Build: b, ManifestDigest: digest, Files: len(m.Files), Bytes: m.Size()}
	if b.Version, err = tx.InsertVersion(ctx, v); err != nil {
		return false, err
	}
	return tx.AdvanceVersion(ctx, b.ProjectID, v.ID, b.Seq)
}

// completedData is what build.completed says of what was made, and of what was not
// made again.
func completedData(b *store.Build, m previewd.Manifest, out previewd.Outcome) map[string]any {
	data := map[string]any{"version": b.Version, "files": len(m.Files), "bytes": m.Size()}
	if out.Cache != "" {
		data["cache"], data["cacheSavedMs"] = out.Cache, out.CacheSaved.Milliseconds()
	}
	return data
}

func activatedEvent(b *store.Build, number int64, pinned bool) previewd.Event {
	return previewd.Event{
		Type: previewd.EventVersionActivated, BuildID: b.ID, Epoch: b.Epoch, RequestID: b.RequestID,
		Data: map[string]any{"version": number, "pinned": pinned},
	}
}

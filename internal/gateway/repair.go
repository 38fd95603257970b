package gateway

import (
	"context"
	"fmt"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

// Repair restores a promise of the gateway's in the one way that is right.
type Repair struct {
	store.Repair
	apply func(ctx context.Context, tx *store.DB) (done bool, err error)
}

const doctor actor = "operator/doctor"

// ListRepairs returns what can be repaired, at most a thousand of a kind, and
// changes nothing. What is broken and not among them has no one right repair.
func (s *Service) ListRepairs(ctx context.Context) ([]Repair, error) {
	rows, err := s.Store.ListGatewayRepairs(ctx)
	if err != nil {
		return nil, err
	}
	var list []Repair
	for _, r := range rows {
		list = append(list, Repair{r, func(ctx context.Context, tx *store.DB) (bool, error) { return tx.Repair(ctx, r) }})
	}
	unsettled, err := s.Store.ListUnsettled(ctx, store.OldBilling)
	for _, b := range unsettled {
		list = append(list, s.settle(b))
	}
	return list, err
}

// Repair does a repair and writes it to the audit log, in one transaction. It
// returns false when there was nothing to repair any more.
func (s *Service) Repair(ctx context.Context, r Repair) (done bool, err error) {
	err = s.Store.Tx(ctx, "doctor", func(tx *store.DB) error {
		if done, err = r.apply(ctx, tx); err != nil || !done {
			return err
		}
		data := map[string]any{"check": r.Check}
		for k, v := range r.Data {
			data[k] = v
		}
		return audit(ctx, tx, doctor, store.AuditEntry{Action: "doctor.fix", Subject: r.Subject, Data: data})
	})
	if previewd.ErrorCode(err) == previewd.CodeConflict {
		return false, nil // somebody else was faster
	}
	return done && err == nil, err
}

// settle closes the session of a build that is over, as its last event would have.
func (s *Service) settle(b *store.AppBuild) Repair {
	billed, reason := endOf(b).Billed()
	how := "void"
	if billed {
		how = "settle"
	}
	return Repair{store.Repair{
		Check: "billing_open_too_long", Subject: "build/" + b.ID,
		Text: fmt.Sprintf("build %s: %s its billing session, it ended as %s (%s)", b.ID, how, b.Status, reason),
		Data: map[string]any{"reason": reason},
	}, func(ctx context.Context, tx *store.DB) (bool, error) {
		if _, err := tx.LockAppFeed(ctx); err != nil { // nobody applies its event meanwhile
			return false, err
		}
		now, err := tx.FindAnyAppBuild(ctx, b.ID)
		if err != nil || now == nil || now.FinishedAt == nil {
			return false, err
		}
		session, err := tx.LockOpenBilling(ctx, b.ID)
		if err != nil || session == nil {
			return false, err
		}
		var bytes int64
		last, err := tx.ListAppProjectEvents(ctx, now.ProjectID, now.EventSeq-1, 1)
		if err == nil && len(last) > 0 && last[0].BuildID == b.ID {
			bytes = integer(last[0].Data["bytes"])
		}
		if err != nil {
			return false, err
		}
		return true, s.closeBilling(ctx, tx, now, bytes)
	}}
}

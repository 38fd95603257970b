package app

import (
	"context"
	"log/slog"
	"os"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/worker"
)

// Doctor looks after a database and its artifacts without a server, or beside
// one that runs.
type Doctor struct {
	// NoFiles says why no artifacts are checked, or is "".
	NoFiles string

	worker *worker.Service
	store  *store.DB
}

// OpenDoctor opens what the configuration names. It makes and migrates nothing.
func OpenDoctor(ctx context.Context, cfg config.Config) (*Doctor, error) {
	keep := storeConfig(cfg, "previewd doctor")
	keep.KeepSchema = true
	db, err := store.Open(ctx, keep)
	if err != nil {
		return nil, err
	}
	d := &Doctor{store: db}
	if _, err := os.Stat(cfg.ArtifactsPath()); err != nil && cfg.DatabaseURL != "" {
		d.NoFiles = "there is no folder " + cfg.ArtifactsPath() + " here: name it with --artifacts"
	}
	d.worker, err = worker.New(worker.Config{
		Store: db, Artifacts: artifact.OpenFolder(cfg.ArtifactsPath()), Changes: new(event.Hub),
		Log: slog.New(slog.DiscardHandler), PreviewURL: cfg.PreviewURL,
	})
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return d, nil
}

// Close closes the database.
func (d *Doctor) Close() error { return d.store.Close() }

// Check looks whether every promise holds; all reads every file.
func (d *Doctor) Check(ctx context.Context, all bool) (*previewd.Integrity, error) {
	depth := worker.Sample
	switch {
	case d.NoFiles != "":
		depth = worker.Rows
	case all:
		depth = worker.Full
	}
	return d.worker.CheckAll(ctx, depth)
}

// Repairs is told of repairs, each in words.
type Repairs struct {
	Plan func(text string) // before each
	Done func(text string)
	Skip func(text string) // there was nothing to repair any more, or something else is in its way
}

// Repair repairs what has one right repair, or with dryRun only tells of it.
func (d *Doctor) Repair(ctx context.Context, dryRun bool, tell Repairs) error {
	for {
		list, err := d.worker.ListRepairs(ctx)
		if err != nil {
			return err
		}
		again := false
		for _, r := range list {
			tell.Plan(r.Text)
			if dryRun {
				continue
			}
			done, err := d.worker.Repair(ctx, r)
			if err != nil {
				return err
			}
			if !done {
				tell.Skip(r.Text)
				continue
			}
			tell.Done(r.Text)
			again = true
		}
		if !again {
			return nil
		}
	}
}

// AuditChain is what VerifyAudit found of a chain.
type AuditChain struct {
	Chain   store.Chain `json:"chain"`
	OK      bool        `json:"ok"`
	Entries int64       `json:"entries"`
	Head    string      `json:"head"`
	Seq     int64       `json:"badSeq,omitempty"` // the first bad entry
	Reason  string      `json:"reason,omitempty"`
	Text    string      `json:"text,omitempty"`
}

// VerifyAudit recomputes the audit chains.
func (d *Doctor) VerifyAudit(ctx context.Context) ([]AuditChain, error) {
	var list []AuditChain
	for _, chain := range store.Chains() {
		entries, head, err := d.store.FindAuditHead(ctx, chain)
		if err != nil {
			return nil, err
		}
		broken, err := d.store.FindAuditBreak(ctx, chain)
		if err != nil {
			return nil, err
		}
		found := AuditChain{Chain: chain, OK: broken == nil, Entries: entries, Head: head}
		if broken != nil {
			found.Seq, found.Reason, found.Text = broken.Seq, string(broken.Reason), broken.String()
		}
		list = append(list, found)
	}
	return list, nil
}

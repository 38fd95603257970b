package app

import (
	"context"
	"log/slog"

	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/worker"
)

// Operator does what is an operator's on a database itself, without a server or
// beside one that runs.
type Operator struct {
	*worker.Service
	store *store.DB
}

// NewToken is what a service token is made of.
type NewToken = worker.NewToken

// OpenOperator opens the database that the configuration names. It makes and
// migrates nothing.
func OpenOperator(ctx context.Context, cfg config.Config) (*Operator, error) {
	keep := storeConfig(cfg, "previewd operator")
	keep.KeepSchema = true
	db, err := store.Open(ctx, keep)
	if err != nil {
		return nil, err
	}
	service, err := worker.New(worker.Config{
		Store: db, Artifacts: artifact.OpenFolder(cfg.ArtifactsPath()), Changes: new(event.Hub),
		Log: slog.New(slog.DiscardHandler), PreviewURL: cfg.PreviewURL,
	})
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return &Operator{Service: service, store: db}, nil
}

// Close closes the database.
func (o *Operator) Close() error { return o.store.Close() }

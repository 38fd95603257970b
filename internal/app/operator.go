package app

import (
	"context"
	"errors"
	"log/slog"

	"github.com/previewd/previewd"
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
	databases
}

// NewToken is what a service token is made of.
type NewToken = worker.NewToken

// OpenOperator opens the databases that the configuration names. It makes and
// migrates nothing.
func OpenOperator(ctx context.Context, cfg config.Config) (*Operator, error) {
	dbs, err := openDatabases(ctx, cfg, store.Config{Application: "previewd operator", KeepSchema: true})
	if err != nil {
		return nil, err
	}
	service, err := worker.New(worker.Config{
		Store: dbs.own, Artifacts: artifact.OpenFolder(cfg.ArtifactsPath()), Changes: new(event.Hub),
		Log: slog.New(slog.DiscardHandler), PreviewURL: cfg.PreviewURL,
	})
	if err != nil {
		return nil, errors.Join(err, dbs.Close())
	}
	return &Operator{Service: service, databases: dbs}, nil
}

// FindReference returns what is known of a reference id, in either database. It
// returns CodeNotFound.
func (d databases) FindReference(ctx context.Context, ref string) (*previewd.ReferenceInfo, error) {
	var info *previewd.ReferenceInfo
	for _, db := range d.each() {
		found, err := db.FindReference(ctx, ref)
		switch {
		case previewd.ErrorCode(err) == previewd.CodeNotFound:
		case err != nil:
			return nil, err
		case info == nil:
			info = found
		default:
			info.Add(found)
		}
	}
	if info == nil {
		return nil, previewd.NotFound("reference", ref)
	}
	return info, nil
}

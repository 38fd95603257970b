package app

import (
	"context"
	"fmt"
	"os"

	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/store"
)

func migrating(cfg config.Config) store.Config {
	return store.Config{Path: cfg.DatabasePath(), URL: cfg.DatabaseURL, Application: "previewd migrate"}
}

// FindSchema returns where the database stands. It changes nothing.
func FindSchema(ctx context.Context, cfg config.Config) (store.Schema, error) {
	return store.SchemaOf(ctx, migrating(cfg))
}

// Migrate brings the database's schema up to date, and makes the database if it
// is SQLite and there is none. It returns where the schema stood.
func Migrate(ctx context.Context, cfg config.Config) (store.Schema, error) {
	if cfg.DatabaseURL == "" {
		if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
			return store.Schema{}, fmt.Errorf("cannot create the data folder: %w", err)
		}
	}
	return store.Migrate(ctx, migrating(cfg))
}

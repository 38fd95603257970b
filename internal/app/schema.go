package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/store"
)

func storeConfig(cfg config.Config, program string) store.Config {
	return store.Config{Path: cfg.DatabasePath(), URL: cfg.DatabaseURL, Application: program}
}

// FindSchema returns where the database stands. It changes nothing.
func FindSchema(ctx context.Context, cfg config.Config) (store.Schema, error) {
	return store.SchemaOf(ctx, storeConfig(cfg, "previewd migrate"))
}

// Migrate brings the database's schema up to date, and makes the database if it
// is SQLite and there is none. It returns the versions before and after.
func Migrate(ctx context.Context, cfg config.Config) (from, to int64, err error) {
	if cfg.DatabaseURL == "" {
		if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
			return 0, 0, fmt.Errorf("cannot create the data folder: %w", err)
		}
	}
	before, err := migrationStart(ctx, cfg)
	if err != nil {
		return 0, 0, err
	}
	db, err := store.Open(ctx, storeConfig(cfg, "previewd migrate"))
	if err != nil {
		return 0, 0, err
	}
	if err := db.Close(); err != nil {
		return 0, 0, err
	}
	after, err := FindSchema(ctx, cfg)
	return before.Current, after.Current, err
}

func migrationStart(ctx context.Context, cfg config.Config) (store.Schema, error) {
	if _, err := os.Stat(cfg.DatabasePath()); cfg.DatabaseURL == "" && errors.Is(err, fs.ErrNotExist) {
		return store.Schema{}, nil
	}
	return FindSchema(ctx, cfg)
}

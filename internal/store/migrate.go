package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed migrations
var migrations embed.FS

// Schema is where a database stands and where this program takes it.
type Schema struct {
	Current int64
	Target  int64
}

// newerSchema says that a newer program has been here: an older one could break
// promises that it never heard of.
func (s Schema) check(keep bool) error {
	switch {
	case s.Current > s.Target:
		return fmt.Errorf("the database has schema version %d, this program knows only %d: run a newer previewd", s.Current, s.Target)
	case keep && s.Current < s.Target:
		return fmt.Errorf("the database has schema version %d, this program needs %d: run `previewd migrate up`", s.Current, s.Target)
	}
	return nil
}

func newProvider(dialect database.Dialect, db *sql.DB, folder string) (*goose.Provider, error) {
	dir, err := fs.Sub(migrations, "migrations/"+folder)
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(dialect, db, dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read migrations: %w", err)
	}
	return provider, nil
}

// migrate brings the schema up to date, or with keep only looks.
func migrate(ctx context.Context, provider *goose.Provider, keep bool) error {
	schema, err := schemaOf(ctx, provider)
	if err != nil {
		return err
	}
	if err := schema.check(keep); err != nil || keep {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("cannot migrate the database: %w", err)
	}
	return nil
}

func schemaOf(ctx context.Context, provider *goose.Provider) (Schema, error) {
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return Schema{}, fmt.Errorf("cannot read the schema version: %w", err)
	}
	return Schema{current, target}, nil
}

func migrateSQLite(ctx context.Context, db *sql.DB, keep bool) error {
	provider, err := newProvider(database.DialectSQLite3, db, "sqlite")
	if err != nil {
		return err
	}
	return migrate(ctx, provider, keep)
}

// migratorLock is the key of the advisory lock that lets one process migrate.
const migratorLock = 0x70726576_69657764 // "previewd"

// migratePostgres lets one process migrate at a time. The lock is one of a
// transaction beside, so that it works behind a transaction pooler too.
func migratePostgres(ctx context.Context, pool *pgxpool.Pool, keep bool) (err error) {
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }()
	provider, err := newProvider(database.DialectPostgres, db, "postgres")
	if err != nil {
		return err
	}
	if schema, err := schemaOf(ctx, provider); err == nil && (keep || schema.Current >= schema.Target) {
		return schema.check(keep)
	}
	lock, err := pool.Begin(ctx)
	if err != nil {
		return fmt.Errorf("cannot migrate the database: %w", err)
	}
	defer func() { _ = lock.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := lock.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(migratorLock)); err != nil {
		return fmt.Errorf("cannot wait for another migration: %w", err)
	}
	return migrate(ctx, provider, keep)
}

// SchemaOf reads a database's schema version and changes nothing.
func SchemaOf(ctx context.Context, cfg Config) (schema Schema, err error) {
	if cfg.URL == "" {
		db, err := openSQLitePool(cfg.Path, "mode=ro", 1)
		if err != nil {
			return schema, err
		}
		defer db.Close()
		provider, err := newProvider(database.DialectSQLite3, db, "sqlite")
		if err != nil {
			return schema, err
		}
		return schemaOf(ctx, provider)
	}
	pool, err := pgxpool.New(ctx, cfg.URL)
	if err != nil {
		return schema, fmt.Errorf("cannot use the database: %w", err)
	}
	defer pool.Close()
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	provider, err := newProvider(database.DialectPostgres, db, "postgres")
	if err != nil {
		return schema, err
	}
	return schemaOf(ctx, provider)
}

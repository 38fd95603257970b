package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed migrations
var migrations embed.FS

// Schema is where a database stands and where this program takes it.
type Schema struct {
	Current int64 `json:"current"` // 0: no tables yet
	Target  int64 `json:"target"`
}

// Check refuses a schema that this program cannot run on. A newer one says that
// a newer program has been here: an older one could break promises that it never
// heard of. With keep an older one is refused too, else it is to be migrated.
func (s Schema) Check(keep bool) error {
	switch {
	case s.Current > s.Target:
		return fmt.Errorf("the database has schema version %d, this program knows only %d: run a newer previewd", s.Current, s.Target)
	case keep && s.Current == 0:
		return errors.New("the database has no schema yet: run `previewd migrate up`")
	case keep && s.Current < s.Target:
		return fmt.Errorf("the database has schema version %d, this program needs %d: run `previewd migrate up`", s.Current, s.Target)
	}
	return nil
}

// schemaQueries tell an engine's schema version without making anything, which
// goose cannot: it makes its table first.
type schemaQueries struct {
	dialect        database.Dialect
	folder, exists string
}

var (
	sqliteSchema = schemaQueries{database.DialectSQLite3, "sqlite",
		`SELECT COUNT(*) FROM sqlite_master WHERE name = 'goose_db_version'`}
	postgresSchema = schemaQueries{database.DialectPostgres, "postgres",
		`SELECT COUNT(to_regclass('goose_db_version'))`}
)

func (q schemaQueries) read(ctx context.Context, db *sql.DB) (s Schema, err error) {
	files, err := fs.ReadDir(migrations, "migrations/"+q.folder)
	if err != nil {
		return s, err
	}
	for _, f := range files {
		version, err := goose.NumericComponent(f.Name())
		if err != nil {
			return s, fmt.Errorf("cannot read migrations: %w", err)
		}
		s.Target = max(s.Target, version)
	}
	var exists int
	if err := db.QueryRowContext(ctx, q.exists).Scan(&exists); err != nil {
		return s, fmt.Errorf("cannot read the schema version: %w", err)
	}
	if exists == 0 {
		return s, nil
	}
	err = db.QueryRowContext(ctx, `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&s.Current)
	if err != nil {
		return s, fmt.Errorf("cannot read the schema version: %w", err)
	}
	return s, nil
}

// migrate brings the schema up to date, and returns where it stood. The caller
// lets nobody else do it.
func (q schemaQueries) migrate(ctx context.Context, db *sql.DB) (Schema, error) {
	schema, err := q.read(ctx, db)
	if err != nil {
		return schema, err
	}
	if err := schema.Check(false); err != nil || schema.Current == schema.Target {
		return schema, err
	}
	dir, err := fs.Sub(migrations, "migrations/"+q.folder)
	if err != nil {
		return schema, err
	}
	provider, err := goose.NewProvider(q.dialect, db, dir)
	if err != nil {
		return schema, fmt.Errorf("cannot read migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return schema, fmt.Errorf("cannot migrate the database: %w", err)
	}
	return schema, nil
}

// migrateSQLite migrates the database that open opens, one process at a time:
// making the file and switching it to WAL is part of what others must not meet.
func migrateSQLite(ctx context.Context, cfg Config) (Schema, error) {
	schema, err := sqliteSchemaOf(ctx, cfg.Path)
	switch {
	case cfg.KeepSchema && err != nil:
		return schema, err
	case err == nil && (cfg.KeepSchema || schema.Current >= schema.Target):
		return schema, schema.Check(cfg.KeepSchema)
	}
	unlock, err := lockMigration(ctx, cfg.Path+".migrating")
	if err != nil {
		return schema, fmt.Errorf("cannot wait for another migration: %w", err)
	}
	defer unlock()
	db, err := openSQLitePool(cfg.Path, sqlitePragmas, 1)
	if err != nil {
		return schema, err
	}
	schema, err = sqliteSchema.migrate(ctx, db)
	return schema, errors.Join(err, db.Close())
}

// lockMigration waits for a lock file, which is gone again when nobody migrates.
func lockMigration(ctx context.Context, path string) (unlock func(), err error) {
	for {
		lock := flock.New(path)
		if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
		held, err := lock.Stat()
		if err != nil {
			return nil, errors.Join(err, lock.Unlock())
		}
		// Who held it before may have removed it: then others lock another file.
		if there, err := os.Stat(path); err == nil && os.SameFile(held, there) {
			return func() {
				_ = os.Remove(path)
				_ = lock.Unlock()
			}, nil
		}
		if err := lock.Unlock(); err != nil {
			return nil, err
		}
	}
}

// sqliteSchemaOf reads a file's schema version. A reader makes files beside a
// database in WAL mode, unless it takes the file as one that nobody changes: it
// does while there is no log beside it.
func sqliteSchemaOf(ctx context.Context, path string) (Schema, error) {
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Schema{}, fmt.Errorf("there is no database %s: name its folder with --data, or make one with `previewd migrate up`", path)
		}
		return Schema{}, fmt.Errorf("cannot read the database: %w", err)
	}
	params := "mode=ro&_pragma=busy_timeout(5000)"
	if _, err := os.Stat(path + "-wal"); err != nil {
		params += "&immutable=1"
	}
	db, err := openSQLitePool(path, params, 1)
	if err != nil {
		return Schema{}, err
	}
	defer db.Close()
	return sqliteSchema.read(ctx, db)
}

// migratorLock is the key of the advisory lock that lets one process migrate.
const migratorLock = 0x70726576_69657764 // "previewd"

// migratePostgres lets one process migrate at a time. The lock is one of a
// transaction beside, so that it works behind a transaction pooler too.
func migratePostgres(ctx context.Context, pool *pgxpool.Pool, keep bool) (schema Schema, err error) {
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }()
	if schema, err = postgresSchema.read(ctx, db); err != nil {
		return schema, err
	}
	if keep || schema.Current >= schema.Target {
		return schema, schema.Check(keep)
	}
	lock, err := pool.Begin(ctx)
	if err != nil {
		return schema, fmt.Errorf("cannot migrate the database: %w", err)
	}
	defer func() { _ = lock.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := lock.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(migratorLock)); err != nil {
		return schema, fmt.Errorf("cannot wait for another migration: %w", err)
	}
	return postgresSchema.migrate(ctx, db)
}

// Migrate brings the schema up to date and returns where it stood. What another
// process has migrated while this one waited is not its doing.
func Migrate(ctx context.Context, cfg Config) (Schema, error) {
	if cfg.URL == "" {
		return migrateSQLite(ctx, cfg)
	}
	pool, err := newPool(ctx, cfg)
	if err != nil {
		return Schema{}, err
	}
	defer pool.Close()
	if err := (&postgresDB{pool: pool}).check(ctx); err != nil {
		return Schema{}, err
	}
	return migratePostgres(ctx, pool, false)
}

// SchemaOf reads a database's schema version and writes nothing.
func SchemaOf(ctx context.Context, cfg Config) (schema Schema, err error) {
	if cfg.URL == "" {
		return sqliteSchemaOf(ctx, cfg.Path)
	}
	pool, err := newPool(ctx, cfg)
	if err != nil {
		return schema, err
	}
	defer pool.Close()
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	return postgresSchema.read(ctx, db)
}

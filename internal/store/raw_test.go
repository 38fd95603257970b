package store_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/previewd/previewd/internal/store"
)

// raw is a connection beside the store, as somebody with a shell has one.
type raw struct {
	tb testing.TB
	db *sql.DB
	pg bool
}

func openRaw(tb testing.TB, cfg store.Config) *raw {
	tb.Helper()
	driver, source := "sqlite", "file:"+cfg.Path+"?_pragma=busy_timeout(5000)"
	if cfg.URL != "" {
		driver, source = "pgx", cfg.URL
	}
	db, err := sql.Open(driver, source)
	require.NoError(tb, err)
	db.SetMaxOpenConns(1)
	tb.Cleanup(func() { require.NoError(tb, db.Close()) })
	return &raw{tb, db, cfg.URL != ""}
}

// do runs statements; a line that begins with "sqlite:" or "postgres:" is for
// that engine alone.
func (r *raw) do(script string) {
	r.tb.Helper()
	skip := "postgres:"
	if r.pg {
		skip = "sqlite:"
	}
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, skip) {
			continue
		}
		line = strings.TrimPrefix(strings.TrimPrefix(line, "sqlite:"), "postgres:")
		_, err := r.db.ExecContext(context.Background(), line)
		require.NoError(r.tb, err, line)
	}
}

package testkit

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"; the store brings "sqlite"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/store"
)

// Shell is a connection beside the store, as somebody has who can do anything
// to the database: no trigger and no reference holds it back.
type Shell struct {
	Postgres bool

	tb   testing.TB
	conn *sql.Conn
}

// OpenShell opens a shell on a database that has its tables.
func OpenShell(tb testing.TB, cfg store.Config) *Shell {
	tb.Helper()
	driver, source := "sqlite", "file:"+(&url.URL{Path: cfg.Path}).EscapedPath()+"?_pragma=busy_timeout(5000)"
	if cfg.URL != "" {
		driver, source = "pgx", cfg.URL
	}
	db, err := sql.Open(driver, source)
	require.NoError(tb, err)
	conn, err := db.Conn(context.Background()) // one, for its settings and transactions
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, errors.Join(conn.Close(), db.Close())) })
	s := &Shell{cfg.URL != "", tb, conn}
	s.Do("postgres:SET synchronous_commit = off\nsqlite:PRAGMA synchronous = 0") // no test cuts the power
	if s.Postgres {
		s.Do("SET session_replication_role = replica")
		return s
	}
	for _, name := range s.Texts("SELECT name FROM sqlite_master WHERE type = 'trigger'") {
		s.Do("DROP TRIGGER " + name)
	}
	return s
}

// Do runs a script of one statement a line. A line that begins with "sqlite:" or
// "postgres:" is for that engine alone.
func (s *Shell) Do(script string) {
	s.tb.Helper()
	skip := "postgres:"
	if s.Postgres {
		skip = "sqlite:"
	}
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, skip) {
			continue
		}
		line = strings.TrimPrefix(strings.TrimPrefix(line, "sqlite:"), "postgres:")
		_, err := s.conn.ExecContext(context.Background(), line)
		require.NoError(s.tb, err, line)
	}
}

// Texts returns the first column of a query.
func (s *Shell) Texts(query string) []string {
	s.tb.Helper()
	rows, err := s.conn.QueryContext(context.Background(), query)
	require.NoError(s.tb, err, query)
	defer rows.Close()
	var list []string
	for rows.Next() {
		var text string
		require.NoError(s.tb, rows.Scan(&text))
		list = append(list, text)
	}
	require.NoError(s.tb, rows.Err())
	return list
}

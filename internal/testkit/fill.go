package testkit

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/store"
)

// Fill stores projects whose builds are done, with keys and events but without
// an audit trail, for benchmarks: invariants do not hold of them.
func Fill(tb testing.TB, cfg store.Config, projects int) {
	tb.Helper()
	series := fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) `, projects)
	project, build := `'00000000-0000-7000-8000-' || %s`, `'00000000-0000-7000-9000-' || %s`
	number := `printf('%012d', i)`
	if cfg.URL != "" {
		number = `lpad(i::text, 12, '0')`
	}
	project, build = fmt.Sprintf(project, number), fmt.Sprintf(build, number)
	statements := []string{
		`INSERT INTO worker_projects (id, owner_id, create_principal, create_key, created_by_service, id_source, state, last_build_seq,
			last_event_seq, created_at) ` + series + `SELECT ` + project + `, 'user-' || (i % 1000), 'fill', 'fill-key-' || i, 'fill', 'server', 'active', 1, 1, i FROM n`,
		`INSERT INTO worker_builds (id, project_id, owner_id, seq, state, epoch, attempt, max_attempts, runnable_at, failure_class, failure,
			reference_id, prompt, template, metadata, source_digest, source_files, source_bytes, created_by, request_id, queued_at, started_at, finished_at) ` +
			series + `SELECT ` + build + `, ` + project + `, 'user-' || (i % 1000), 1, 'failed', 1, 1, 3, i, 'user', '{}', 'ref_' || i, 'a page', '', '{}',
			'` + fillDigest + `', 1, 1, 'fill', '', i, i, i FROM n`,
		`INSERT INTO worker_events (project_id, seq, type, build_id, data, request_id, at, feed_pos) ` + series +
			`SELECT ` + project + `, 1, 'build.queued', ` + build + `, '{}', '', i, i FROM n`,
		`INSERT INTO worker_idempotency_keys (principal, key, operation, fp_version, fingerprint, state, status, body, resource_id, request_id, created_at) ` +
			series + `SELECT 'fill', 'fill-key-' || i, 'op', 1, 'f', 'done', 201, NULL, ` + project + `, '', i FROM n`,
	}
	ctx := context.Background()
	if cfg.URL == "" {
		db, err := sql.Open("sqlite", "file:"+cfg.Path)
		require.NoError(tb, err)
		defer db.Close()
		for _, statement := range statements {
			_, err := db.Exec(statement)
			require.NoError(tb, err)
		}
		return
	}
	conn, err := pgx.Connect(ctx, cfg.URL)
	require.NoError(tb, err)
	defer conn.Close(ctx)
	for _, statement := range append(statements, "ANALYZE") {
		_, err := conn.Exec(ctx, statement)
		require.NoError(tb, err)
	}
}

const fillDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

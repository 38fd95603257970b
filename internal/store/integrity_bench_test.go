package store_test

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

var benchProjects = flag.Int("projects", 20_000, "projects that BenchmarkIntegrity checks")

// A fleet of projects: two builds each, the older completed, the newer failed.
const fleet = `
sqlite:CREATE TEMP TABLE n AS WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < %[1]d) SELECT i FROM c
postgres:CREATE TEMP TABLE n AS SELECT generate_series(1, %[1]d) AS i
INSERT INTO worker_projects (id, owner_id, create_principal, create_key, created_by_service, id_source, state, last_build_seq, last_event_seq, last_version_number, current_version_id, current_build_seq, created_at) SELECT 'p' || i, 'u' || (i %% 1000), 'svc', 'key-' || i, 's', 'server', 'active', 2, 6, 1, 'v' || i, 1, %[2]d FROM n
INSERT INTO worker_idempotency_keys (principal, key, operation, fp_version, fingerprint, state, status, body, resource_id, request_id, created_at) SELECT 'svc', 'key-' || i, 'o', 1, 'f', 'done', 201, %[3]s, 'p' || i, 'r', %[2]d FROM n
INSERT INTO worker_builds (id, project_id, owner_id, seq, state, epoch, max_attempts, runnable_at, reference_id, prompt, template, metadata, source_digest, source_files, source_bytes, log_bytes, created_by, request_id, queued_at, finished_at) SELECT 'a' || i, 'p' || i, 'u' || (i %% 1000), 1, 'completed', 1, 3, 1, 'ra' || i, 'make a page', '', '{}', '` + digest + `', 1, 1, 5, 's', 'r', 1, 2 FROM n
INSERT INTO worker_builds (id, project_id, owner_id, seq, state, epoch, max_attempts, runnable_at, reference_id, prompt, template, metadata, source_digest, source_files, source_bytes, log_bytes, created_by, request_id, queued_at, finished_at, failure_class, failure) SELECT 'b' || i, 'p' || i, 'u' || (i %% 1000), 2, 'failed', 1, 3, 1, 'rb' || i, 'make a page', '', '{}', '` + digest + `', 1, 1, 5, 's', 'r', 1, 2, 'user', '{}' FROM n
INSERT INTO worker_versions (id, project_id, build_id, build_seq, build_epoch, number, manifest_digest, files, bytes, created_at) SELECT 'v' || i, 'p' || i, 'a' || i, 1, 1, 1, '` + digest + `', 1, 1, 1 FROM n
INSERT INTO worker_build_logs (build_id, start_offset, data) SELECT 'a' || i, 0, %[3]s FROM n
INSERT INTO worker_build_logs (build_id, start_offset, data) SELECT 'b' || i, 0, %[3]s FROM n
INSERT INTO worker_events (project_id, seq, type, build_id, data, request_id, at, feed_pos) SELECT 'p' || i, s.seq, 'build.' || s.type, s.build || i, '{"seq":1}', 'r', 1, (i - 1) * 6 + s.seq FROM n CROSS JOIN (SELECT 1 AS seq, 'queued' AS type, 'a' AS build UNION ALL SELECT 2, 'building', 'a' UNION ALL SELECT 3, 'completed', 'a' UNION ALL SELECT 4, 'queued', 'b' UNION ALL SELECT 5, 'building', 'b' UNION ALL SELECT 6, 'failed', 'b') s
UPDATE worker_feed SET position = %[1]d * 6, holder = 'h'
ANALYZE
`

// auditFleet writes the chain that so many projects have left.
func auditFleet(r *testkit.Shell, projects int) {
	prev, seq := "", int64(0)
	var values []string
	insert := func() {
		r.Do("INSERT INTO worker_audit (chain, seq, prev, hash, at, actor, action, subject, data) VALUES " + strings.Join(values, ","))
		values = values[:0]
	}
	for i := 1; i <= projects; i++ {
		for _, e := range [][2]string{
			{"project.create", "project/p"}, {"build.building", "build/a"}, {"build.completed", "build/a"},
			{"build.create", "build/b"}, {"build.building", "build/b"}, {"build.failed", "build/b"},
		} {
			seq++
			entry := store.AuditEntry{Actor: "a", Action: e[0], Subject: fmt.Sprint(e[1], i)}
			hash := store.AuditHash(prev, seq, time.UnixMicro(1), entry, []byte("{}"))
			values = append(values, fmt.Sprintf("('worker',%d,'%s','%s',1,'a','%s','%s','{}')", seq, prev, hash, entry.Action, entry.Subject))
			prev = hash
		}
		if i%100 == 0 || i == projects {
			insert()
		}
	}
	r.Do(fmt.Sprintf("UPDATE worker_audit_head SET seq = %d, hash = '%s'", seq, prev))
}

// go test ./internal/store -run '^$' -bench Integrity -benchtime 1x -projects 200000
func BenchmarkIntegrity(b *testing.B) {
	for _, e := range testkit.Engines() {
		b.Run(e.Name, func(b *testing.B) {
			cfg := e.Config(b)
			db, err := store.Open(b.Context(), cfg)
			require.NoError(b, err)
			defer db.Close()
			shell := testkit.OpenShell(b, cfg)
			auditFleet(shell, *benchProjects)
			blob := map[bool]string{true: `'\x68656c6c6f'::bytea`, false: `x'68656c6c6f'`}[shell.Postgres]
			shell.Do(fmt.Sprintf(fleet, *benchProjects, time.Now().UnixMicro(), blob))
			for b.Loop() {
				checks, err := db.CheckIntegrity(b.Context())
				require.NoError(b, err)
				require.Empty(b, previewd.Broken(checks))
			}
		})
	}
}

package app_test

import (
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/worker"
	"github.com/previewd/previewd/internal/workerapi"
)

const benchClients, benchCreates = 16, 1000

// BenchmarkCreate compares creates over HTTP with the bare inserts that they
// cannot do without: the same tables, driver, settings and number of clients,
// one transaction of four inserts each, in turns within one run. No build runs.
func BenchmarkCreate(b *testing.B) {
	var creates, bares, p50s, p99s []float64
	for b.Loop() {
		path := filepath.Join(b.TempDir(), "bench.db")
		db, err := store.Open(b.Context(), store.Config{Path: path})
		require.NoError(b, err)
		took, latencies := measure(httpCreate(b, db))
		creates = append(creates, benchCreates/took.Seconds())
		slices.Sort(latencies)
		p50s = append(p50s, float64(latencies[len(latencies)/2].Microseconds()))
		p99s = append(p99s, float64(latencies[len(latencies)*99/100].Microseconds()))
		require.NoError(b, db.Close())
		took, _ = measure(bareInserts(b, path))
		bares = append(bares, benchCreates/took.Seconds())
	}
	b.ReportMetric(median(creates), "creates/s")
	b.ReportMetric(median(bares), "bare/s")
	b.ReportMetric(median(creates)/median(bares), "ratio")
	b.ReportMetric(median(p50s), "p50-µs")
	b.ReportMetric(median(p99s), "p99-µs")
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// measure runs a number of calls over a number of clients.
func measure(call func(i int)) (time.Duration, []time.Duration) {
	latencies := make([]time.Duration, benchCreates)
	var wg sync.WaitGroup
	began := time.Now()
	for client := range benchClients {
		wg.Go(func() {
			for i := client; i < benchCreates; i += benchClients {
				start := time.Now()
				call(i)
				latencies[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	return time.Since(began), latencies
}

func httpCreate(b *testing.B, db *store.DB) func(int) {
	b.Helper()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	artifacts, err := artifact.NewFolder(b.TempDir())
	require.NoError(b, err)
	hub := new(event.Hub)
	service, err := worker.New(worker.Config{
		Store: db, Artifacts: artifacts, Changes: hub, Log: quiet, PreviewURL: func(label string) string { return "http://" + label + "/" },
	})
	require.NoError(b, err)
	mux := http.NewServeMux()
	workerapi.Register(mux, workerapi.Config{Worker: service, Streams: httpx.NewStreams(httpx.StreamConfig{Source: service, Hints: hub}), Callers: httpx.Tokens{{Secret: "t", Caller: previewd.Caller{Principal: "p", Service: "bench"}}}})
	server := httptest.NewServer(httpx.WithRequest(quiet, mux))
	b.Cleanup(server.Close)
	clients := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchClients}}
	return func(i int) {
		body := fmt.Sprintf(`{"userId":"user-%d","prompt":"a page","templateFiles":{},"metadata":{"template":"landing"}}`, i%50)
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, server.URL+create, strings.NewReader(body))
		if err != nil {
			b.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer t")
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", fmt.Sprintf("bench-key-%012d", i))
		response, err := clients.Do(req)
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusCreated {
			b.Error(response.Status)
		}
	}
}

// bareInserts does a create's four inserts by hand, with prepared statements.
func bareInserts(b *testing.B, path string) func(int) {
	b.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_txlock=immediate")
	require.NoError(b, err)
	db.SetMaxOpenConns(1)
	b.Cleanup(func() { require.NoError(b, db.Close()) })
	statements := make([]*sql.Stmt, 4)
	for i, text := range []string{
		`INSERT INTO worker_idempotency_keys (principal, key, operation, fp_version, fingerprint, state, status, body, resource_id, request_id, created_at)
			VALUES ('bare', ?2, 'op', 1, 'f', 'done', 201, x'7b7d', ?1, '', 1)`,
		`INSERT INTO worker_projects (id, owner_id, create_principal, create_key, created_by_service, id_source, state, last_build_seq, last_event_seq, created_at)
			VALUES (?1, 'u', 'bare', ?2, 'bench', 'server', 'active', 1, 1, 1)`,
		`INSERT INTO worker_builds (id, project_id, seq, state, max_attempts, runnable_at, reference_id, prompt, template, metadata, source_digest, source_files, source_bytes, created_by, request_id, queued_at)
			VALUES (?2, ?1, 1, 'queued', 3, 1, ?2, 'a page', 'landing', '{}', '` + strings.Repeat("a", 64) + `', 1, 1, 'bench', '', 1)`,
		`INSERT INTO worker_events (project_id, seq, type, build_id, data, request_id, at) VALUES (?1, 1, 'build.queued', ?2, '{}', '', 1)`,
	} {
		statements[i], err = db.Prepare(text)
		require.NoError(b, err)
	}
	return func(int) {
		projectID, buildID := previewd.NewID(), previewd.NewID()
		tx, err := db.Begin()
		if err != nil {
			b.Error(err)
			return
		}
		for _, statement := range statements {
			if _, err := tx.Stmt(statement).Exec(projectID, buildID); err != nil {
				b.Error(err)
			}
		}
		if err := tx.Commit(); err != nil {
			b.Error(err)
		}
	}
}

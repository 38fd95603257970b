package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/testkit"
)

// Each round of these benchmarks runs previewd and its limit in turns, on the
// same database, because a machine's speed drifts. They need wrk and pgbench.

const benchSeconds = "3"

// wrkCreate sends creates with a new key each, for users without end.
const wrkCreate = `
local thread, n = 0, 0
function setup(t) t:set("id", tostring(math.random(1e9)) .. tostring(os.time()) .. tostring(thread)); thread = thread + 1 end
function request()
  n = n + 1
  local key = "bench-" .. id .. "-" .. n .. "-0000"
  local body = '{"userId":"user-' .. id .. '-' .. n .. '","prompt":"a page","templateFiles":{"index.html":"<h1>Hello</h1>"},"metadata":{}}'
  return wrk.format("POST", "/v1/create-preview-for-new-project",
    {["Authorization"]="Bearer ` + crashToken + `", ["Content-Type"]="application/json", ["Idempotency-Key"]=key}, body)
end
local bad = 0
function response(status) if status ~= 201 then bad = bad + 1; if bad == 1 then print("BAD " .. status) end end end
`

// pgbenchCreate does the same work as one function call: the limit. A colon
// without a space behind it would be a variable of pgbench.
const pgbenchCreate = `
\set r random(1, 1000000000000)
SELECT outcome FROM worker_create_preview('bench', gen_random_uuid()::text, 'POST', 1, repeat('f', 64), 10000000, 201, '{"a": "0123456789012345678901234567890123456789"}', 'req',
  lpad(to_hex((extract(epoch from clock_timestamp())*1000000)::bigint), 14, '0') || substr(gen_random_uuid()::text, 15),
  'user-' || :r, gen_random_uuid()::text, 'bench', 'server',
  lpad(to_hex((extract(epoch from clock_timestamp())*1000000)::bigint), 14, '0') || substr(gen_random_uuid()::text, 15),
  3, gen_random_uuid()::text, 'a page', '', '{}', repeat('a', 64), 1, 14,
  '{"serverGenerated": true,"idGenerationSource": "server","createdByService": "bench"}', '{"seq": 1,"template": "","files": 1,"bytes": 14}',
  'service/bench', 'project.create', '{"buildId": "x","ownerId": "y","idGenerationSource": "server","requestId": "z"}',
  1000, 0, true, 0, NULL, NULL);
`

func BenchmarkCreateBesidePgbench(b *testing.B) {
	for _, tool := range []string{"wrk", "pgbench"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.Skipf("SKIPPED: %s is not installed", tool)
		}
	}
	server := testkit.Postgres(b)
	server.Durable(b)
	database := server.Database(b)
	dir := b.TempDir()
	lua, sql := filepath.Join(dir, "create.lua"), filepath.Join(dir, "create.sql")
	require.NoError(b, os.WriteFile(lua, []byte(wrkCreate), 0o600))
	require.NoError(b, os.WriteFile(sql, []byte(pgbenchCreate), 0o600))
	addr := freeAddr(b)
	startServer(b, addr, filepath.Join(dir, "data"), "--database-url", database, "--builds=-1", "--queue-per-user", "0", "--queue-total", "0")
	limit := func() float64 {
		return perSecond(b, `tps = ([0-9.]+)`, "pgbench", "-n", "-M", "prepared", "-c", "32", "-j", "1", "-T", benchSeconds, "-f", sql, database+"?options=-c%20enable_seqscan%3Doff")
	}
	var limits []float64
	ours, ratios := map[int][]float64{}, map[int][]float64{}
	for b.Loop() {
		for _, conns := range []int{1, 16, 64} {
			bound := limit()
			limits = append(limits, bound)
			got := perSecond(b, `Requests/sec:\s+([0-9.]+)`, "wrk", "-t1", "-c", strconv.Itoa(conns), "-d", benchSeconds+"s", "-s", lua, "http://"+addr)
			ours[conns], ratios[conns] = append(ours[conns], got), append(ratios[conns], got/bound)
		}
	}
	b.ReportMetric(medianOf(limits), "pgbench-tps")
	for _, conns := range []int{1, 16, 64} {
		b.ReportMetric(medianOf(ours[conns]), fmt.Sprintf("creates/s@%d", conns))
		b.ReportMetric(medianOf(ratios[conns]), fmt.Sprintf("ratio@%d", conns))
		b.Logf("%d connections: ratios %.2f", conns, ratios[conns])
	}
}

func medianOf(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

func perSecond(b *testing.B, pattern, name string, args ...string) float64 {
	b.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(b, err, "%s", out)
	require.NotContains(b, string(out), "BAD", "%s", out)
	found := regexp.MustCompile(pattern).FindSubmatch(out)
	require.NotNil(b, found, "%s", out)
	n, err := strconv.ParseFloat(string(found[1]), 64)
	require.NoError(b, err)
	return n
}

// wrkStatus reads the status of one build after another, by chance.
const wrkStatus = `
local builds = {%s}
function request()
  return wrk.format("GET", "/v1/builds/" .. builds[math.random(#builds)], {["Authorization"]="Bearer ` + crashToken + `"})
end
function response(status) if status ~= 200 then print("BAD " .. status) end end
`

// statusBuilds is how many builds are read, so that no two readers in a hundred
// want the same.
const statusBuilds = 500

// BenchmarkStatusBesidePgbench reads statuses of many builds, beside pgbench
// reading one row by its key again and again at 64 connections: nothing is
// cheaper for a database.
func BenchmarkStatusBesidePgbench(b *testing.B) {
	for _, tool := range []string{"wrk", "pgbench"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.Skipf("SKIPPED: %s is not installed", tool)
		}
	}
	server := testkit.Postgres(b)
	server.Durable(b)
	database := server.Database(b)
	dir, addr := b.TempDir(), freeAddr(b)
	startServer(b, addr, filepath.Join(dir, "data"), "--database-url", database)
	var ids []string
	for _, preview := range createQueued(b, addr, statusBuilds) {
		testkit.Eventually(b, "the build is over", func() bool {
			build, err := clientOf(b, addr).FindBuild(b.Context(), preview.BuildID, 0)
			return err == nil && build.Status == previewd.BuildCompleted
		})
		ids = append(ids, strconv.Quote(preview.BuildID))
	}
	lua, sql := filepath.Join(dir, "status.lua"), filepath.Join(dir, "status.sql")
	require.NoError(b, os.WriteFile(lua, fmt.Appendf(nil, wrkStatus, strings.Join(ids, ", ")), 0o600))
	one := strings.ReplaceAll(ids[0], `"`, "'")
	require.NoError(b, os.WriteFile(sql, []byte("SELECT state, step, epoch, attempt, log_bytes FROM worker_builds WHERE id = "+one+";"), 0o600))
	var limits []float64
	ours, ratios := map[int][]float64{}, map[int][]float64{}
	for b.Loop() {
		for _, conns := range []int{1, 16, 64} {
			bound := perSecond(b, `tps = ([0-9.]+)`, "pgbench", "-n", "-M", "prepared", "-c", "64", "-j", "1", "-T", benchSeconds, "-f", sql, database)
			got := perSecond(b, `Requests/sec:\s+([0-9.]+)`, "wrk", "-t1", "-c", strconv.Itoa(conns), "-d", benchSeconds+"s", "-s", lua, "http://"+addr)
			limits, ours[conns], ratios[conns] = append(limits, bound), append(ours[conns], got), append(ratios[conns], got/bound)
		}
	}
	b.ReportMetric(medianOf(limits), "pgbench-tps")
	for _, conns := range []int{1, 16, 64} {
		b.ReportMetric(medianOf(ours[conns]), fmt.Sprintf("reads/s@%d", conns))
		b.ReportMetric(medianOf(ratios[conns]), fmt.Sprintf("ratio@%d", conns))
		b.Logf("%d connections: ratios %.2f", conns, ratios[conns])
	}
}

// BenchmarkStart tells how long a build that nothing holds up waits between its
// row and its runner, by the database's clock.
func BenchmarkStart(b *testing.B) {
	for _, c := range []struct {
		name      string
		postgres  bool
		processes int
	}{{"sqlite", false, 1}, {"postgres", true, 1}, {"postgres, runner elsewhere", true, 2}} {
		b.Run(c.name, func(b *testing.B) {
			dir, addr := b.TempDir(), freeAddr(b)
			flags := []string{"--artifacts", filepath.Join(dir, "artifacts")}
			if c.postgres {
				server := testkit.Postgres(b)
				server.Durable(b)
				flags = append(flags, "--database-url", server.Database(b))
			}
			if c.processes == 2 {
				startServer(b, freeAddr(b), filepath.Join(dir, "other"), flags...)
				flags = append(flags, "--builds=-1")
			}
			startServer(b, addr, filepath.Join(dir, "data"), flags...)
			server := clientOf(b, addr)
			var waits []float64
			for b.Loop() {
				preview, err := server.CreatePreview(b.Context(), previewd.CreatePreviewRequest{
					UserID: "u", TemplateFiles: previewd.Files{"index.html": []byte("hello")},
				})
				require.NoError(b, err)
				build, err := server.FindBuild(b.Context(), preview.BuildID, 0)
				for require.NoError(b, err); !build.Status.Terminal(); require.NoError(b, err) {
					build, err = server.FindBuild(b.Context(), preview.BuildID, 10*time.Second)
				}
				waits = append(waits, float64(build.StartedAt.Sub(build.QueuedAt).Microseconds())/1000)
			}
			slices.Sort(waits)
			b.ReportMetric(waits[len(waits)/2], "p50-ms")
			b.ReportMetric(waits[len(waits)*99/100], "p99-ms")
		})
	}
}

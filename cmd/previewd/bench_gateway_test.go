package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/testkit"
)

// wrkAppCreate is wrkCreate for users, each with a token: their number comes first.
const wrkAppCreate = `
local tokens = {%s}
local thread, n = 0, 0
function setup(t) t:set("id", tostring(math.random(1e9)) .. tostring(os.time()) .. tostring(thread)); thread = thread + 1 end
function request()
  n = n + 1
  local key = "bench-" .. id .. "-" .. n .. "-0000"
  local body = '{"prompt":"a page","templateFiles":{"index.html":"<h1>Hello</h1>"},"metadata":{}}'
  return wrk.format("POST", "/api/projects",
    {["Authorization"]="Bearer " .. tokens[n %% #tokens + 1], ["Content-Type"]="application/json", ["Idempotency-Key"]=key}, body)
end
local bad = 0
function response(status, _, body) if status ~= 201 then bad = bad + 1; if bad == 1 then print("BAD " .. status .. body) end end end
`

const benchUsers = 500

// BenchmarkAppCreateBeside creates projects through /api, beside creates of the
// worker's own in turns, on the same server and database, which sync each commit.
func BenchmarkAppCreateBeside(b *testing.B) {
	if _, err := exec.LookPath("wrk"); err != nil {
		b.Skip("SKIPPED: wrk is not installed")
	}
	for _, engine := range []string{"sqlite", "postgres"} {
		b.Run(engine, func(b *testing.B) {
			dir, addr := b.TempDir(), freeAddr(b)
			flags := []string{"--builds=-1", "--queue-per-user", "0", "--queue-total", "0", "--jwt-secret", jwtSecret, "--jwt-issuer", jwtIssuer}
			if engine == "postgres" {
				server := testkit.Postgres(b)
				server.Durable(b)
				flags = append(flags, "--database-url", server.Database(b))
			}
			startServer(b, addr, filepath.Join(dir, "data"), flags...)
			app, own := filepath.Join(dir, "app.lua"), filepath.Join(dir, "own.lua")
			require.NoError(b, os.WriteFile(app, fmt.Appendf(nil, wrkAppCreate, benchTokens(b)), 0o600))
			require.NoError(b, os.WriteFile(own, []byte(wrkCreate), 0o600))
			compareCreates(b, addr, app, own)
		})
	}
}

func benchTokens(b *testing.B) string {
	now, tokens := time.Now(), make([]string, benchUsers)
	for i := range tokens {
		tokens[i] = strconv.Quote(testkit.SignHS256(b, []byte(jwtSecret), map[string]any{"alg": "HS256", "typ": "JWT"}, map[string]any{
			"iss": jwtIssuer, "aud": "authenticated", "sub": userID(i), "role": "authenticated", "session_id": fmt.Sprint("session-", i),
			"iat": now.Unix(), "exp": now.Add(12 * time.Hour).Unix(),
		}))
	}
	return strings.Join(tokens, ", ")
}

func compareCreates(b *testing.B, addr, app, own string) {
	b.Helper()
	rates, waits := map[string][]float64{}, map[string][]float64{}
	conns := []int{1, 16, 64}
	for b.Loop() {
		for _, n := range conns {
			for _, script := range []string{own, app} {
				at := fmt.Sprint(script, n)
				rate, wait := wrkLatency(b, n, script, addr)
				rates[at], waits[at] = append(rates[at], rate), append(waits[at], wait)
			}
		}
	}
	for _, n := range conns {
		a, o := fmt.Sprint(app, n), fmt.Sprint(own, n)
		b.ReportMetric(medianOf(rates[a]), fmt.Sprintf("creates/s@%d", n))
		b.ReportMetric(medianOf(rates[a])/medianOf(rates[o]), fmt.Sprintf("ratio@%d", n))
		b.ReportMetric(medianOf(waits[a])-medianOf(waits[o]), fmt.Sprintf("added-p50-ms@%d", n))
		b.Logf("%d connections: /api %.0f/s p50 %.2f ms, /v1 %.0f/s p50 %.2f ms", n,
			medianOf(rates[a]), medianOf(waits[a]), medianOf(rates[o]), medianOf(waits[o]))
	}
}

var (
	wrkRate = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	wrkP50  = regexp.MustCompile(`50%\s+([0-9.]+)(us|ms|s)`)
)

func wrkLatency(b *testing.B, conns int, script, addr string) (rate, p50 float64) {
	b.Helper()
	out, err := exec.Command("wrk", "--latency", "-t1", "-c", strconv.Itoa(conns), "-d", benchSeconds+"s", "-s", script, "http://"+addr).CombinedOutput()
	require.NoError(b, err, "%s", out)
	require.NotContains(b, string(out), "BAD", "%s", out)
	r, p := wrkRate.FindSubmatch(out), wrkP50.FindSubmatch(out)
	require.NotNil(b, r, "%s", out)
	require.NotNil(b, p, "%s", out)
	rate, err = strconv.ParseFloat(string(r[1]), 64)
	require.NoError(b, err)
	p50, err = strconv.ParseFloat(string(p[1]), 64)
	require.NoError(b, err)
	return rate, p50 * map[string]float64{"us": 0.001, "ms": 1, "s": 1000}[string(p[2])]
}

package main_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

// BenchmarkWarmBuildBesideByHand changes one line of a Vite app with React and
// waits for its preview to answer, beside `npm ci && npm run build` with a warm
// cache, which is what a person would do.
func BenchmarkWarmBuildBesideByHand(b *testing.B) {
	b.Run("bundle", func(b *testing.B) { benchmarkWarmBuild(b, previewd.RunnerBundle, nil) })
	b.Run("sandbox", func(b *testing.B) { benchmarkWarmBuild(b, previewd.RunnerSandbox, inSandbox) })
}

func benchmarkWarmBuild(b *testing.B, runner string, metadata map[string]any) {
	registry, pack := fetchStarts(b)
	dir := b.TempDir()
	start{template: "react-ts", lock: npmLock}.lay(b, pack, dir)
	addr := freeAddr(b)
	startServer(b, addr, filepath.Join(b.TempDir(), "data"), "--npm-registry", registry)
	buildTree(b, addr, dir, runner, metadata)
	byHand := b.TempDir()
	require.NoError(b, os.CopyFS(byHand, os.DirFS(dir)))
	hand := func() {
		require.NoError(b, os.RemoveAll(filepath.Join(byHand, "node_modules")))
		for _, argv := range [][]string{{"npm", "ci", "--no-audit", "--no-fund"}, {"npm", "run", "build"}} {
			out, err := npmIn(byHand, argv...)
			require.NoError(b, err, "%s", out)
		}
	}
	hand()
	var ours, theirs, ratios []float64
	for i := 0; b.Loop(); i++ {
		main := filepath.Join("src", "main.tsx")
		text, err := os.ReadFile(filepath.Join(dir, main))
		require.NoError(b, err)
		text = append(text, fmt.Appendf(nil, "console.debug(%d)\n", i)...)
		for _, to := range []string{dir, byHand} {
			require.NoError(b, os.WriteFile(filepath.Join(to, main), text, 0o644))
		}
		began := time.Now()
		build := buildTree(b, addr, dir, runner, metadata)
		host, err := url.Parse(build.PreviewURL)
		require.NoError(b, err)
		request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+addr+"/", http.NoBody)
		require.NoError(b, err)
		request.Host = host.Host
		response, err := http.DefaultClient.Do(request)
		require.NoError(b, err)
		response.Body.Close()
		require.Equal(b, http.StatusOK, response.StatusCode)
		took := time.Since(began)
		began = time.Now()
		hand()
		alone := time.Since(began)
		ours, theirs, ratios = append(ours, took.Seconds()), append(theirs, alone.Seconds()), append(ratios, alone.Seconds()/took.Seconds())
	}
	b.ReportMetric(medianOf(ours), "s/preview")
	b.ReportMetric(medianOf(theirs), "s/by-hand")
	b.ReportMetric(medianOf(ratios), "times-faster")
	b.Logf("ratios %.1f", ratios)
}

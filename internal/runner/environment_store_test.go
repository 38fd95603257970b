package runner

import (
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/artifact"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/worker"
)

// A whole build whose code says its secrets in all ways that it knows, from the
// request that sets them to the bytes on the disk.
func TestNothingStoredSaysASecret(t *testing.T) {
	t.Parallel()
	b := setupNPM(t)
	dir := t.TempDir()
	artifacts, err := artifact.NewFolder(filepath.Join(dir, "artifacts"))
	require.NoError(t, err)
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(dir, "previewd.db")})
	require.NoError(t, err)
	var serverLog strings.Builder
	log := slog.New(slog.NewTextHandler(&serverLog, &slog.HandlerOptions{Level: slog.LevelDebug}))
	service, err := worker.New(worker.Config{
		Store: db, Artifacts: artifacts, Changes: &event.Hub{}, Log: log, PreviewURL: func(string) string { return "http://x.test/" },
		SecretsKey: func(bool) ([]byte, error) { return make([]byte, worker.SecretsKeySize), nil },
	})
	require.NoError(t, err)

	tree := b.tree("node talk.js", "maker")
	tree["talk.js"] = talkative
	files := previewd.Files{}
	for name, text := range tree {
		files[name] = []byte(text)
	}
	caller := previewd.Caller{Principal: "svc", Service: "tests", RequestID: "req_test"}
	p, err := service.CreatePreview(t.Context(), previewd.CreatePreviewRequest{UserID: "ann", Prompt: "x", TemplateFiles: files, Caller: caller})
	require.NoError(t, err)
	for name, value := range map[string]string{"TOKEN": testToken, "KEY": testLines} {
		_, err := service.SetEnv(t.Context(), previewd.SetEnvRequest{ProjectID: p.ProjectID, Name: name, Value: previewd.Hidden(value), Secret: true, Caller: caller})
		require.NoError(t, err)
	}
	stop := b.runWith(t, service, artifacts, log)
	build, err := service.FindBuild(t.Context(), p.BuildID, time.Minute)
	for err == nil && !build.Status.Terminal() {
		build, err = service.FindBuild(t.Context(), p.BuildID, time.Minute)
	}
	require.NoError(t, err)
	require.Equal(t, previewd.BuildFailed, build.Status)
	require.Contains(t, build.Failure.Message, "cannot log in with ***")

	chunk, err := service.ReadLog(t.Context(), p.BuildID, 0, 0)
	require.NoError(t, err)
	for _, name := range []string{"raw", "base64", "basic", "base64url", "component", "search", "json", "hex", "split", "wrapped", "escapes", "key", "key64", "keyjson", "on stderr"} {
		require.Regexp(t, `(?m)\] `+name+` [^*]{0,10}\*\*\*`, string(chunk.Data))
	}
	require.Contains(t, string(chunk.Data), "variables: KEY (secret), TOKEN (secret)")
	events, err := service.ListBuildEvents(t.Context(), p.BuildID, 0, 100)
	require.NoError(t, err)
	require.NotEmpty(t, events)
	text, err := json.Marshal([]any{build, events})
	require.NoError(t, err)
	requireNoTraces(t, string(text))
	requireNoTraces(t, string(chunk.Data))
	stop()
	requireNoTraces(t, serverLog.String())
	require.NoError(t, db.Close())
	read := 0
	require.NoError(t, filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := os.ReadFile(name)
		requireNoTraces(t, string(raw))
		read += strings.Count(string(raw), "raw ***.")
		return err
	}))
	require.NotZero(t, read, "the log was among what was looked through")
}

// runWith runs builds of a worker until stop returns, or the test ends.
func (b *npmBench) runWith(t *testing.T, d previewd.Dispatcher, artifacts artifact.Store, log *slog.Logger) (stop func()) {
	t.Helper()
	r, err := New(Config{
		Dispatcher: d, Artifacts: artifacts, ID: "r", WorkDir: filepath.Join(t.TempDir(), "work"), Slots: 1, Log: log,
		Sandbox: func(context.Context) (*Sandbox, error) { return b.with, nil },
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

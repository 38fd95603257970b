// Package testkit holds what tests share. Tests only import it.
package testkit

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/app"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/store"
)

// Engine is a kind of database that every test of the store runs on.
type Engine struct {
	Name string
	// Open returns an empty database with all its tables, closed at the end of
	// the test, which checks every invariant first.
	Open func(tb testing.TB) *store.DB
}

// Engines returns the engines that are there.
func Engines(tb testing.TB) []Engine {
	tb.Helper()
	return []Engine{{Name: "sqlite", Open: openSQLite}}
}

func openSQLite(tb testing.TB) *store.DB {
	tb.Helper()
	db, err := store.Open(context.Background(), store.Config{Path: filepath.Join(tb.TempDir(), "test.db")})
	require.NoError(tb, err)
	tb.Cleanup(func() {
		CheckInvariants(tb, db)
		require.NoError(tb, db.Close())
	})
	return db
}

// CheckInvariants fails the test when a promise about the rows does not hold.
func CheckInvariants(tb testing.TB, db *store.DB) {
	tb.Helper()
	violations, err := db.FindViolations(context.Background())
	require.NoError(tb, err)
	require.Empty(tb, violations)
}

// EachEngine runs a test on each engine, in parallel.
func EachEngine(t *testing.T, test func(t *testing.T, db *store.DB)) {
	t.Helper()
	for _, e := range Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			test(t, e.Open(t))
		})
	}
}

// Program builds the real program, once per test binary, and returns its path.
func Program(tb testing.TB) string {
	tb.Helper()
	program, err := buildProgram()
	require.NoError(tb, err)
	return program
}

var programDir string // "" until the program is built

var buildProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "previewd-test-program-")
	if err != nil {
		return "", err
	}
	programDir = dir
	program := filepath.Join(dir, "previewd")
	cmd := exec.Command("go", "build", "-o", program, "github.com/previewd/previewd/cmd/previewd")
	cmd.Stderr = os.Stderr
	return program, cmd.Run()
})

// RemoveProgram removes what Program has built; TestMain calls it after all tests.
func RemoveProgram() {
	if programDir != "" {
		os.RemoveAll(programDir)
	}
}

// App is a server that runs for one test.
type App struct {
	*app.App
	Token string
}

// StartApp runs a server on a free port and an empty data folder. The test
// binary must be able to be a build's child: see MainWithChild.
func StartApp(tb testing.TB) *App {
	tb.Helper()
	data := filepath.Join(tb.TempDir(), "data")
	const token = "test-token-0123456789"
	a, err := app.New(context.Background(), app.Options{
		Config:  config.Config{Addr: "127.0.0.1:0", Data: data, ServiceToken: token},
		Version: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	require.NoError(tb, err)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- a.Run(ctx) }()
	tb.Cleanup(func() {
		CheckInvariants(tb, a.Store)
		stop()
		select {
		case err := <-stopped:
			require.NoError(tb, err)
		case <-time.After(20 * time.Second):
			tb.Error("the server does not stop")
		}
	})
	return &App{App: a, Token: token}
}

// MainWithChild is a TestMain for packages whose tests run builds: the test
// binary is the build's child when it is started as one.
func MainWithChild(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == app.BuildChildArg {
		os.Exit(app.BuildChild(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// Eventually calls check until it returns true, or fails the test.
func Eventually(tb testing.TB, what string, check func() bool) {
	tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !check() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited too long for: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

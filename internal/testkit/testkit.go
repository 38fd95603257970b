// Package testkit holds what tests share. Tests only import it.
package testkit

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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
	// Config names an empty database with all its tables, gone after the test.
	// The same name opened twice is the same database.
	Config func(tb testing.TB) store.Config
}

// Layouts returns whether a gateway is apart from its worker: both on each engine,
// with -short one on each.
func Layouts(e Engine) (far []bool) {
	if testing.Short() {
		return []bool{e.Name == "postgres"}
	}
	return []bool{false, true}
}

// Engines returns both engines; what is not here skips its tests, loudly.
func Engines() []Engine {
	return []Engine{
		{"sqlite", func(tb testing.TB) store.Config {
			return store.Config{Path: filepath.Join(tb.TempDir(), "test.db")}
		}},
		{"postgres", func(tb testing.TB) store.Config {
			return store.Config{URL: Postgres(tb).Database(tb)}
		}},
	}
}

// Open opens the database, closed at the end of the test, which checks every
// invariant first.
func Open(tb testing.TB, cfg store.Config) *store.DB {
	tb.Helper()
	db, err := store.Open(context.Background(), cfg)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		feedEvents(tb, db)
		CheckInvariants(tb, db)
		require.NoError(tb, db.Close())
	})
	return db
}

// feedEvents gives events their places, as a server's relay does. Most tests have
// none, and one that lasts longer than a minute would break the promise that
// events have their places by then.
func feedEvents(tb testing.TB, db *store.DB) {
	tb.Helper()
	for given := 1; given > 0; {
		var err error
		given, _, err = db.AssignFeed(context.Background(), "testkit", time.Minute, 1000)
		require.NoError(tb, err)
	}
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
	EachConfig(t, func(t *testing.T, cfg store.Config) { test(t, Open(t, cfg)) })
}

// EachConfig is EachEngine for tests that open the database themselves.
func EachConfig(t *testing.T, test func(t *testing.T, cfg store.Config)) {
	t.Helper()
	for _, e := range Engines() {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			test(t, e.Config(t))
		})
	}
}

// exits are what has to be undone when the test binary ends.
var exits struct {
	sync.Mutex
	undo []func()
}

func atExit(undo func()) {
	exits.Lock()
	defer exits.Unlock()
	exits.undo = append(exits.undo, undo)
}

// CleanUp stops and removes what tests have shared; TestMain calls it after all
// tests.
func CleanUp() {
	exits.Lock()
	defer exits.Unlock()
	for _, undo := range slices.Backward(exits.undo) {
		undo()
	}
	exits.undo = nil
}

// Main is a TestMain for packages whose tests use databases.
func Main(m *testing.M) {
	code := m.Run()
	CleanUp()
	os.Exit(code)
}

// Program builds the real program with the build tags given, each variant once
// per test binary, and returns its path.
func Program(tb testing.TB, tags ...string) string {
	tb.Helper()
	variant := strings.Join(tags, ",")
	build, _ := programs.LoadOrStore(variant, sync.OnceValues(func() (string, error) { return buildProgram(variant) }))
	program, err := build.(func() (string, error))()
	require.NoError(tb, err)
	return program
}

var programs sync.Map // from build tags to who builds

func buildProgram(tags string) (string, error) {
	dir, err := os.MkdirTemp("", "previewd-test-program-")
	if err != nil {
		return "", err
	}
	atExit(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "previewd")
	cmd := exec.Command("go", "build", "-tags", tags, "-o", program, "github.com/previewd/previewd/cmd/previewd")
	cmd.Stderr = os.Stderr
	return program, cmd.Run()
}

// App is a server that runs for one test.
type App struct {
	*app.App
	Token string
}

// StartApp runs a server on a free port, with a token of its own and, unless cfg
// names one, an empty data folder. The test binary must be able to be a build's child: see MainWithChild.
func StartApp(tb testing.TB, cfg config.Config) *App {
	tb.Helper()
	const token = "test-token-0123456789"
	cfg.Addr, cfg.ServiceToken = "127.0.0.1:0", token
	if cfg.Data == "" {
		cfg.Data = filepath.Join(tb.TempDir(), "data")
	}
	a, err := app.New(context.Background(), app.Options{
		Config: cfg, Version: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Patience: time.Minute,
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
		case <-time.After(time.Minute):
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
	if len(os.Args) > 1 && os.Args[1] == app.SandboxInitArg {
		os.Exit(app.SandboxInit())
	}
	if len(os.Args) > 1 && os.Args[1] == app.ContainerAgentArg {
		os.Exit(app.ContainerAgent())
	}
	Main(m)
}

// Eventually calls check until it returns true, or fails the test.
func Eventually(tb testing.TB, what string, check func() bool) {
	tb.Helper()
	deadline := time.Now().Add(time.Minute)
	for !check() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited too long for: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

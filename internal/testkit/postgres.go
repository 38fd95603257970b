package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/store"
)

// postgresURL names the server that tests use; without it they start one of
// the binaries on this machine.
const postgresURL = "PREVIEWD_TEST_POSTGRES_URL"

// PostgresServer is a server for tests. All its databases are theirs.
type PostgresServer struct {
	URL     string // of the database "postgres"
	Sockets string // folder of its socket; "" when it is not ours
	cmd     *exec.Cmd
	dir     string
}

var postgres struct {
	sync.Once
	server *PostgresServer
	err    error
}

// Postgres returns this test binary's server, started at the first call. Where
// there is none the test is skipped, and says what to install.
func Postgres(tb testing.TB) *PostgresServer {
	tb.Helper()
	postgres.Do(func() { postgres.server, postgres.err = startPostgres() })
	if errors.Is(postgres.err, errNoPostgres) {
		tb.Skipf("SKIPPED, NOT TESTED ON POSTGRESQL: %v", postgres.err)
	}
	require.NoError(tb, postgres.err)
	return postgres.server
}

var errNoPostgres = errors.New("no PostgreSQL binaries here: install Debian's package postgresql, or set " + postgresURL)

func startPostgres() (*PostgresServer, error) {
	if given := os.Getenv(postgresURL); given != "" {
		return &PostgresServer{URL: given}, nil
	}
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(clusterFolder(), "previewd-test-postgres-")
	if err != nil {
		return nil, err
	}
	s := &PostgresServer{dir: dir, Sockets: dir}
	if err := s.start(bin); err != nil {
		s.stop()
		return nil, err
	}
	atExit(s.stop)
	return s, nil
}

// clusterFolder is where clusters are made: in memory where there is room for many,
// since a database is three hundred files and a disk is slow to make and drop them.
// "" is the folder for temporary files.
func clusterFolder() string {
	const memory, tmpfs, enough = "/dev/shm", 0x01021994, 4 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err != nil || fs.Type != tmpfs || fs.Bavail*uint64(fs.Bsize) < enough {
		return ""
	}
	return memory
}

// postgresBin returns the folder of the newest server on this machine.
func postgresBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		path, err := exec.LookPath("postgres")
		if err != nil {
			return "", errNoPostgres
		}
		return filepath.Dir(path), nil
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return n
	}
	slices.SortFunc(found, func(a, b string) int { return version(b) - version(a) })
	return filepath.Dir(found[0]), nil
}

// start makes a cluster in the folder and runs it. PostgreSQL refuses to run as
// root, so root becomes the user that the package has made.
func (s *PostgresServer) start(bin string) error {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	if os.Getuid() == 0 {
		owner, err := user.Lookup("postgres")
		if err != nil {
			return fmt.Errorf("cannot run PostgreSQL as root, and there is no user postgres: %w", err)
		}
		uid, _ := strconv.Atoi(owner.Uid)
		gid, _ := strconv.Atoi(owner.Gid)
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.dir, uid, gid); err != nil {
			return err
		}
	}
	data := filepath.Join(s.dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
	initdb.SysProcAttr, initdb.Dir = attr, s.dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make a PostgreSQL cluster: %w\n%s", err, out)
	}
	port, err := FreePort()
	if err != nil {
		return err
	}
	s.URL = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres", port)
	var out bytes.Buffer
	s.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(port), "-k", s.dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "max_connections=400", "-c", "shared_buffers=128MB",
		"-c", "jit=off", // no query of a test is worth compiling
		"-c", "fsync=off") // what dies in tests are our processes, not the machine
	s.cmd.SysProcAttr, s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = attr, s.dir, &out, &out
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the server dies with the thread that started it: this one stays
		started <- s.cmd.Start()
		_ = s.cmd.Wait() // stop ends it
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("cannot start PostgreSQL: %w", err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := s.Exec(context.Background(), "SELECT 1")
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, out.String())
		}
	}
}

func (s *PostgresServer) stop() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Signal(syscall.SIGQUIT) // at once: nothing of it is needed any more
		for range 100 {
			if s.cmd.Process.Signal(syscall.Signal(0)) != nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	os.RemoveAll(s.dir)
}

// Exec runs a statement on the server's database "postgres".
func (s *PostgresServer) Exec(ctx context.Context, statement string, args ...any) error {
	conn, err := pgx.Connect(ctx, s.URL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement, args...)
	return err
}

// Durable makes the server sync its log at every commit from now on, as servers
// do: for benchmarks.
func (s *PostgresServer) Durable(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, s.Exec(context.Background(), "ALTER SYSTEM SET fsync = on"))
	require.NoError(tb, s.Exec(context.Background(), "SELECT pg_reload_conf()"))
}

var databases struct {
	sync.Mutex
	count    int
	template string
	fresh    content
	free     []string // as new, from tests that have ended
}

// Database makes a database with all tables and nothing of a test's in them, and
// returns its URL. It is a copy of one that was migrated once, or what a test
// before has left, made as new: both are faster than migrating each.
func (s *PostgresServer) Database(tb testing.TB) string {
	tb.Helper()
	databases.Lock()
	defer databases.Unlock()
	ctx := context.Background()
	if databases.template == "" {
		name := fmt.Sprintf("template_%d", os.Getpid())
		require.NoError(tb, s.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"))
		require.NoError(tb, s.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8'"))
		db, err := store.Open(ctx, store.Config{URL: s.named(name)})
		require.NoError(tb, err)
		require.NoError(tb, db.Close())
		databases.fresh, err = s.readContent(ctx, name)
		require.NoError(tb, err)
		databases.template = name
		atExit(func() {
			for _, name := range append(databases.free, name) {
				_ = s.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
			}
		})
	}
	databases.count++
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), databases.count)
	if n := len(databases.free); n > 0 {
		// Under a new name nobody finds it who was left over by the test before.
		require.NoError(tb, s.Exec(ctx, "ALTER DATABASE "+databases.free[n-1]+" RENAME TO "+name))
		databases.free = databases.free[:n-1]
	} else {
		require.NoError(tb, s.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+databases.template))
	}
	tb.Cleanup(func() { s.giveBack(tb, name) })
	return s.named(name)
}

// giveBack makes a database as new, or drops it where that cannot be.
func (s *PostgresServer) giveBack(tb testing.TB, name string) {
	tb.Helper()
	ctx, free := context.Background(), name+"_free"
	// A session that is ended is there for a moment longer.
	Eventually(tb, "nobody uses "+name, func() bool {
		err := s.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, name)
		return err == nil && s.Exec(ctx, "ALTER DATABASE "+name+" RENAME TO "+free) == nil
	})
	asNew, err := s.makeNew(ctx, free)
	require.NoError(tb, err)
	if !asNew {
		require.NoError(tb, s.Exec(ctx, "DROP DATABASE "+free))
		return
	}
	databases.Lock()
	defer databases.Unlock()
	databases.free = append(databases.free, free)
}

// CutOne ends one connection to a database, whatever it is in the middle of.
func (s *PostgresServer) CutOne(tb testing.TB, database string) {
	tb.Helper()
	u, err := url.Parse(database)
	require.NoError(tb, err)
	require.NoError(tb, s.Exec(context.Background(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = $1 AND backend_type = 'client backend' ORDER BY random() LIMIT 1`, strings.TrimPrefix(u.Path, "/")))
}

// Copy makes a copy of a database that nobody uses and returns its URL; the copy
// is dropped at the end of the test.
func (s *PostgresServer) Copy(tb testing.TB, database string) string {
	tb.Helper()
	u, err := url.Parse(database)
	require.NoError(tb, err)
	databases.Lock()
	databases.count++
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), databases.count)
	databases.Unlock()
	ctx, from := context.Background(), strings.TrimPrefix(u.Path, "/")
	require.NoError(tb, s.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, from))
	// A session that was ended is there for a moment longer.
	Eventually(tb, "the database is copied", func() bool { return s.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+from) == nil })
	tb.Cleanup(func() { require.NoError(tb, s.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")) })
	return s.named(name)
}

// EmptyDatabase makes a database without any tables.
func (s *PostgresServer) EmptyDatabase(tb testing.TB) string {
	tb.Helper()
	databases.Lock()
	databases.count++
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), databases.count)
	databases.Unlock()
	ctx := context.Background()
	require.NoError(tb, s.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8'"))
	tb.Cleanup(func() { require.NoError(tb, s.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")) })
	return s.named(name)
}

func (s *PostgresServer) named(database string) string {
	u, err := url.Parse(s.URL)
	if err != nil {
		return s.URL
	}
	u.Path = "/" + database
	return u.String()
}

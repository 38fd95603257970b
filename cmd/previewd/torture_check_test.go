package main_test

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// row is a build as the tables have it, read without the product's code.
type row struct {
	id, project, prompt string
	seq, epoch, attempt int64
	status              previewd.BuildStatus
	runner, class       string
	versions            int
	version, versionOf  int64         // its number, and the epoch that made it
	lastTry             time.Duration // from the last claim to the end
}

// database opens the scenario's database beside its servers.
func (c *torture) database() (db *sql.DB, done func()) { return c.open(c.store) }

// open opens a database beside its servers. PostgreSQL stays open, since a
// connection is dear; SQLite does not, since a server that is killed must leave
// nobody behind who knows what was in its shared memory.
func (c *torture) open(cfg store.Config) (db *sql.DB, done func()) {
	c.Helper()
	if cfg.URL != "" {
		if c.postgres[cfg.URL] == nil {
			db, err := sql.Open("pgx", cfg.URL)
			require.NoError(c, err)
			c.Cleanup(func() { db.Close() })
			if c.postgres == nil {
				c.postgres = map[string]*sql.DB{}
			}
			c.postgres[cfg.URL] = db
		}
		return c.postgres[cfg.URL], func() {}
	}
	db, err := sql.Open("sqlite", "file:"+cfg.Path+"?_pragma=busy_timeout(10000)")
	require.NoError(c, err)
	return db, func() { db.Close() }
}

func (c *torture) count(query string) int {
	c.Helper()
	return c.countIn(c.store, query)
}

func (c *torture) countIn(cfg store.Config, query string, args ...any) (n int) {
	c.Helper()
	db, done := c.open(cfg)
	defer done()
	require.NoError(c, db.QueryRow(query, args...).Scan(&n))
	return n
}

func (c *torture) rows() map[string]*row {
	c.Helper()
	db, done := c.database()
	defer done()
	found, err := db.Query(`
		SELECT b.id, b.project_id, b.prompt, b.seq, b.epoch, b.attempt, b.state, COALESCE(b.runner_id, ''), COALESCE(b.failure_class, ''),
			COUNT(v.id), COALESCE(MAX(v.number), 0), COALESCE(MAX(v.build_epoch), 0),
			1000 * COALESCE(b.finished_at - (SELECT MAX(e.at) FROM worker_events e WHERE e.build_id = b.id AND e.type = 'build.building'), 0)
		FROM worker_builds b LEFT JOIN worker_versions v ON v.build_id = b.id GROUP BY b.id`)
	require.NoError(c, err)
	defer found.Close()
	all := map[string]*row{}
	for found.Next() {
		b := &row{}
		require.NoError(c, found.Scan(&b.id, &b.project, &b.prompt, &b.seq, &b.epoch, &b.attempt, &b.status, &b.runner, &b.class,
			&b.versions, &b.version, &b.versionOf, (*int64)(&b.lastTry)))
		all[b.id] = b
	}
	require.NoError(c, found.Err())
	return all
}

const waiting = `SELECT COUNT(*) FROM worker_builds WHERE state IN ('queued', 'building', 'canceling')`

// quiet waits until no build waits or runs.
func (c *torture) quiet() {
	c.Helper()
	left := -1
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		n := c.count(waiting)
		if n == 0 {
			return
		}
		if n < left || left < 0 { // it moves
			left, deadline = n, time.Now().Add(60*time.Second)
		}
		if time.Now().After(deadline) {
			for _, b := range c.rows() {
				if !b.status.Terminal() {
					c.Logf("stuck: %+v", *b)
				}
			}
			c.Fatalf("%d builds are stuck (seed %d)", n, c.seed)
		}
	}
}

// keylessFor is how long an answer to a request without a key is sure to be
// remembered: the window less what a commit and its answer may take.
const keylessFor = 8 * time.Second

// check ends a scenario: it waits for quiet, ends the servers and compares what
// is there with the rules, and with what clients were told.
func (c *torture) check() map[string]*row {
	c.Helper()
	c.quiet()
	for _, n := range c.nodes {
		n.kill()
	}
	rows := c.rows()
	l := &c.ledger
	l.Lock()
	defer l.Unlock()
	for _, lie := range l.lied {
		c.Errorf("%s (seed %d)", lie, c.seed)
	}
	made := map[string]int{}
	for _, b := range rows {
		made[b.prompt]++
		if _, known := l.intents[b.prompt]; !known {
			c.Errorf("nobody was told of %+v", *b)
		}
		if (b.status == previewd.BuildCompleted) != (b.versions == 1) || b.versions > 1 || b.versions == 1 && b.versionOf != b.epoch {
			c.Errorf("build and versions disagree: %+v", *b)
		}
		if told := l.statuses[b.id]; told.Terminal() && told != b.status || told == previewd.BuildCanceling && b.status == previewd.BuildCompleted {
			c.Errorf("told %s of %+v", told, *b)
		}
	}
	require.Zero(c, c.count(`SELECT COUNT(*) FROM worker_events e JOIN worker_events f
		ON f.project_id = e.project_id AND f.build_id = e.build_id AND f.seq > e.seq AND f.build_epoch < e.build_epoch`), "events of a lost epoch")
	require.Equal(c, len(l.deleted), c.count(`SELECT COUNT(*) FROM worker_projects WHERE state = 'deleted'`), "deleted as told")
	late, again := c.compare(rows, made)
	c.checkActivated(rows)
	db, err := store.Open(context.Background(), c.store)
	require.NoError(c, err)
	defer db.Close()
	testkit.CheckInvariants(c, db)
	ends, epochs := map[previewd.BuildStatus]int{}, int64(0)
	for _, b := range rows {
		ends[b.status]++
		epochs += b.epoch
	}
	c.Logf("%s: %d intents answered, %d of them asked more than once, %d without a key came too late to count; %d projects (%d deleted), %d builds %v, claimed %d times, violations 0 unless said above",
		time.Since(c.began).Round(time.Second), len(l.intents), again, late, c.count(`SELECT COUNT(*) FROM worker_projects`), len(l.deleted), len(rows), ends, epochs)
	return rows
}

// compare holds each intent against what it has made: once, and as told.
func (c *torture) compare(rows map[string]*row, made map[string]int) (late, again int) {
	c.Helper()
	l := &c.ledger
	for _, prompt := range slices.Sorted(maps.Keys(l.intents)) {
		in := l.intents[prompt]
		if in.asked > 1 {
			again++
		}
		b := rows[in.build]
		switch n := made[prompt]; {
		case in.build == "" && n != 0:
			c.Errorf("%s was refused (%s) and has been made %d times", prompt, in.refused, n)
		case in.build == "":
		case b == nil:
			c.Errorf("%s was answered with build %s, which is lost", prompt, in.build)
		case b.prompt != prompt || b.project != in.project:
			c.Errorf("%s was answered with %+v", prompt, *b)
		case in.keyless && in.took > keylessFor:
			late++
		case n != 1:
			c.Errorf("%s was made %d times (asked %d times in %s, keyless %v)", prompt, n, in.asked, in.took, in.keyless)
		}
	}
	return late, again
}

func (c *torture) checkActivated(rows map[string]*row) {
	c.Helper()
	numbers := map[string]map[int64]bool{}
	for _, b := range rows {
		if numbers[b.project] == nil {
			numbers[b.project] = map[int64]bool{}
		}
		numbers[b.project][b.version] = true
	}
	for project, activated := range c.ledger.activated {
		for number := range activated {
			if !numbers[project][number] {
				c.Errorf("version %d of %s was activated and is lost", number, project)
			}
		}
	}
}

// givenUp says whether a build has been lost as often as the worker takes it up
// again: by 3 attempts, or by 25 claims when whole servers die.
func (b *row) givenUp() bool {
	return b.status == previewd.BuildFailed && b.class == string(previewd.FailureWorkerLost) && (b.attempt >= 3 || b.epoch >= 25)
}

// mayFail refuses failed builds but those that were given up.
func (c *torture) mayFail(rows map[string]*row, classes ...string) {
	c.Helper()
	for _, b := range rows {
		if b.status == previewd.BuildFailed && !b.givenUp() && !slices.Contains(classes, b.class) {
			c.Errorf("failed for no reason: %+v", *b)
		}
		if b.attempt > 3 {
			c.Errorf("more than 3 attempts: %+v", *b)
		}
	}
}

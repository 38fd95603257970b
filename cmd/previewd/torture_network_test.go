package main_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// When the reply to a COMMIT is lost, nobody guesses what became of it: what was
// asked for happens once. One server takes the requests, another builds; each
// reaches PostgreSQL, and half of the clients reach the first, through a network
// that breaks.
func TestDroppedCommitReply(t *testing.T) {
	t.Parallel()
	database := testkit.Postgres(t).Database(t)
	c := newTorture(t, store.Config{URL: database})
	at, err := url.Parse(database)
	require.NoError(t, err)

	asked, built := testkit.NewProxy(t, at.Host), testkit.NewProxy(t, at.Host)
	front := c.addNode([]string{"--builds=-1"})
	front.database = asked.DatabaseURL(t, database)
	front.start("")
	back := c.addNode([]string{"--lease", "3s"})
	back.database = built.DatabaseURL(t, database)
	back.start("")
	lossy := testkit.NewProxy(t, front.addr)
	clients := &load{torture: c, clients: c.clients(front.addr, lossy.Addr), rate: 2 * killWorkload, most: 150, builds: true, name: "drop"}
	clients.begin()
	cuts := 0
	for asked.Dropped.Load() < int64(*drops) {
		asked.DropCommits(1)
		c.waitUntil("something commits", 30*time.Second, func() bool { return asked.Dropped.Load() >= int64(*drops) || !asked.Armed() })
		switch cuts++; c.random.IntN(9) {
		case 0:
			built.DropCommits(1)
		case 1:
			asked.CutAfter(1 + c.random.Int64N(4000)) // in the middle of an answer
		case 2:
			asked.Cut(1)
		case 3, 4:
			lossy.CutAfter(1 + c.random.Int64N(3000))
		case 5:
			lossy.Cut(100)
		case 6:
			cuts--
			asked.Delay(time.Duration(c.random.Int64N(int64(5 * time.Millisecond))))
			lossy.Pause()
			time.Sleep(50 * time.Millisecond)
			lossy.Resume()
		default:
			cuts--
		}
		time.Sleep(time.Duration(c.random.Int64N(int64(60 * time.Millisecond))))
	}
	asked.Heal()
	built.Heal()
	lossy.Heal()
	clients.end()
	rows := c.check()
	// A build whose server loses the database is tried again, three times in all.
	c.mayFail(rows, string(previewd.FailureInfra))
	c.Logf("dropped %d replies to COMMIT of requests and %d of builds, and cut connections %d times", asked.Dropped.Load(), built.Dropped.Load(), cuts)
}

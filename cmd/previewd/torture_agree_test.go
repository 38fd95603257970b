package main_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

// made is a build as the tables of one side have it.
type made struct {
	project, build, prompt, status string
	deleted                        bool
}

func (c *apps) list(cfg store.Config, query string) map[string]made {
	c.Helper()
	db, done := c.open(cfg)
	defer done()
	found, err := db.Query(query)
	require.NoError(c, err)
	defer found.Close()
	all := map[string]made{}
	for found.Next() {
		var m made
		var deleted int
		require.NoError(c, found.Scan(&m.build, &m.project, &m.prompt, &m.status, &deleted))
		m.deleted = deleted == 1
		all[m.build] = m
	}
	require.NoError(c, found.Err())
	return all
}

// inWorker are the builds of projects that a gateway has asked for.
func (c *apps) inWorker() map[string]made {
	c.Helper()
	return c.list(c.store, `
		SELECT b.id, b.project_id, b.prompt, b.state, CASE p.state WHEN 'deleted' THEN 1 ELSE 0 END
		FROM worker_builds b JOIN worker_projects p ON p.id = b.project_id WHERE p.create_key LIKE 'int\_%' ESCAPE '\'`)
}

func (c *apps) inGateway() map[string]made {
	c.Helper()
	return c.list(c.users, `
		SELECT b.id, b.project_id, CASE b.seq WHEN 1 THEN p.prompt ELSE '' END, b.worker_status, CASE p.state WHEN 'deleted' THEN 1 ELSE 0 END
		FROM gateway_builds b JOIN gateway_projects p ON p.id = b.project_id`)
}

// unsettled says what is still on its way, "" for nothing.
func (c *apps) unsettled() string {
	c.Helper()
	var open []string
	look := func(cfg store.Config, what, query string) {
		if n := c.countIn(cfg, query); n > 0 {
			open = append(open, fmt.Sprint(n, " ", what))
		}
	}
	look(c.users, "intents are open", pendingIntents)
	look(c.store, "builds are not over", waiting)
	look(c.users, "builds are not known to be over", `SELECT COUNT(*) FROM gateway_builds WHERE finished_at IS NULL`)
	look(c.users, "projects are being deleted", `SELECT COUNT(*) FROM gateway_projects WHERE state = 'deleting'`)
	look(c.store, "events have no place", `SELECT COUNT(*) FROM worker_events WHERE feed_pos IS NULL`)
	if n := c.unapplied(); n > 0 {
		open = append(open, fmt.Sprint(n, " events are not applied"))
	}
	// Last, for one that is applied may have to wait.
	look(c.users, "events wait for their project", `SELECT COUNT(*) FROM gateway_parked_events WHERE state = 'parked'`)
	return strings.Join(open, ", ")
}

// unapplied is how many of the worker's events the gateway has not come to yet.
func (c *apps) unapplied() int {
	c.Helper()
	db, done := c.open(c.users)
	defer done()
	var cursor string
	require.NoError(c, db.QueryRow(`SELECT cursor FROM gateway_feed WHERE name = 'worker'`).Scan(&cursor))
	_, position, _ := strings.Cut(cursor, "-")
	applied, _ := strconv.Atoi(position) // "" before the first
	return c.countIn(c.store, `SELECT COALESCE(MAX(feed_pos), 0) FROM worker_events`) - applied
}

// settle waits until nothing is on its way any more, and returns how long.
func (c *apps) settle(limit time.Duration) time.Duration {
	c.Helper()
	began, last := time.Now(), "?"
	for deadline := began.Add(limit); ; time.Sleep(50 * time.Millisecond) {
		now := c.unsettled()
		if now == "" {
			break
		}
		if now != last { // it moves
			last = now
			deadline = time.Now().Add(limit)
		}
		if time.Now().After(deadline) {
			for _, n := range c.nodes {
				c.Log(n.said())
			}
			c.Fatalf("%s for %s (seed %d)", now, limit, c.seed)
		}
	}
	return time.Since(began)
}

// checkApps ends a scenario: it waits until all is quiet, ends the servers, and
// compares both databases with the rules, with each other and with what users
// were told.
func (c *apps) checkApps() {
	c.Helper()
	c.settle(90 * time.Second)
	for _, n := range c.nodes {
		n.kill()
	}
	for _, lie := range c.ledger.lied {
		c.Errorf("%s (seed %d)", lie, c.seed)
	}
	c.checkRules()
	theirs, ours := c.inWorker(), c.inGateway()
	c.checkBoth(theirs, ours)
	late, again := c.checkTold(theirs, ours)
	require.Equal(c, 0, c.countIn(c.users, `SELECT COUNT(*) FROM gateway_parked_events`), "events moved aside")
	require.Equal(c, 0, c.countIn(c.users, `SELECT COUNT(*) FROM gateway_projects WHERE attention <> ''`), "projects need attention")
	require.Equal(c, 0, c.countIn(c.users, `SELECT COUNT(*) FROM gateway_audit WHERE action = 'build.correct'`), "events were lost")
	c.Logf("%s: %d asked for, %d of them more than once, %d without a key came too late to count; %d builds here, %d there; billed %d micros; violations 0 unless said above",
		time.Since(c.began).Round(time.Second), len(c.told), again, late, len(ours), len(theirs),
		c.countIn(c.users, `SELECT COALESCE(SUM(balance_micros), 0) FROM gateway_billing_accounts WHERE account LIKE 'user:%'`))
}

// checkRules is what doctor does, of every database.
func (c *apps) checkRules() {
	c.Helper()
	ctx := context.Background()
	worker, err := store.Open(ctx, c.store)
	require.NoError(c, err)
	defer worker.Close()
	testkit.CheckInvariants(c, worker)
	users := worker
	if c.far() {
		users, err = store.Open(ctx, c.users)
		require.NoError(c, err)
		defer users.Close()
		testkit.CheckInvariants(c, users)
	}
	check, err := users.CheckAgreement(ctx, worker)
	require.NoError(c, err)
	require.Zero(c, check.Count, "%v", check)
}

// checkBoth compares the two sides: the same projects, the same builds, the same
// ends. What was taken back is there no more.
func (c *apps) checkBoth(theirs, ours map[string]made) {
	c.Helper()
	for id, b := range ours {
		switch t, found := theirs[id]; {
		case !found:
			c.Errorf("ghost: %+v is not in the worker (seed %d)", b, c.seed)
		case t.project != b.project || t.status != b.status || t.deleted != b.deleted || b.prompt != "" && t.prompt != b.prompt:
			c.Errorf("%+v here is %+v there (seed %d)", b, t, c.seed)
		}
	}
	for id, t := range theirs {
		if _, found := ours[id]; !found && !t.deleted {
			c.Errorf("orphan: %+v is not in the gateway (seed %d)", t, c.seed)
		}
	}
}

// checkTold holds each ask against what it has made: once, and as told.
func (c *apps) checkTold(theirs, ours map[string]made) (late, again int) {
	c.Helper()
	times, alive := map[string]int{}, map[string]int{}
	for _, t := range theirs {
		times[t.prompt]++
		if !t.deleted {
			alive[t.prompt]++
		}
	}
	for _, prompt := range slices.Sorted(maps.Keys(c.told)) {
		a := c.told[prompt]
		if a.asked > 1 {
			again++
		}
		if a.intent != "" && a.buildID == "" && !a.canceled && a.refused == "" {
			c.Errorf("%s was accepted as %s and nobody knows what became of it (seed %d)", prompt, a.intent, c.seed)
		}
		b, here := ours[a.buildID]
		switch n := times[prompt]; {
		case a.keyless && a.took > keylessFor && a.canceled:
			late++ // the first of its requests has made another
		case a.canceled && alive[prompt] != 0:
			c.Errorf("%s was taken back and is there: %+v (seed %d)", prompt, *a, c.seed)
		case a.canceled:
		case a.keyless && a.took > keylessFor && a.refused == previewd.CodeNameTaken:
			late++ // the first of its requests has the name
		case a.refused != "" && n != 0:
			c.Errorf("%s was refused (%s) and has been made %d times (seed %d)", prompt, a.refused, n, c.seed)
		case a.refused != "":
		case a.buildID != "" && (!here || b.project != a.projectID):
			c.Errorf("%s was answered with build %s of %s, which is lost: %+v (seed %d)", prompt, a.buildID, a.projectID, b, c.seed)
		case a.keyless && a.took > keylessFor:
			late++
		case n != 1:
			c.Errorf("%s was made %d times (asked %d times in %s, keyless %v; seed %d)", prompt, n, a.asked, a.took, a.keyless, c.seed)
		}
	}
	for id := range c.gone {
		for _, b := range ours {
			if b.project == id && !b.deleted {
				c.Errorf("project %s was deleted and is there (seed %d)", id, c.seed)
			}
		}
	}
	return late, again
}

// follow waits for the end of what was accepted, and writes it down.
func (c *apps) follow(gateways []*node, a *ask) {
	for over := time.Now().Add(patience + *unreconciled); a.intent != "" && a.buildID == ""; {
		got, _ := c.insistOn(gateways, request{user: a.user, method: http.MethodGet, path: "/api/intents/" + a.intent + "?wait=2s"})
		if got == nil {
			return
		}
		if got.status == http.StatusNotFound {
			c.tell(func() { a.refused = previewd.CodeInvalid }) // it could never have done: its request was answered so
			return
		}
		var in previewd.Intent
		if err := got.read(&in); err != nil || got.status != http.StatusOK {
			c.ledger.lie("intent %s was told of and reads %s", a.intent, got)
			return
		}
		switch in.State {
		case previewd.IntentConfirmed:
			c.tell(func() { a.projectID, a.buildID = in.ProjectID, in.BuildID })
		case previewd.IntentCanceled:
			c.tell(func() { a.canceled = true })
			return
		case previewd.IntentRejected:
			c.tell(func() { a.refused = in.LastError })
			return
		}
		if time.Now().After(over) {
			c.ledger.lie("intent %s is %s after %s", a.intent, in.State, patience)
			return
		}
	}
}

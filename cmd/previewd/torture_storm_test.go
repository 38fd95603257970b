package main_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/client"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/testkit"
)

const stormSize = 200

// storm is one kind of many equal requests at once, at two servers.
type storm struct {
	name     string
	key      func(round, i int) string // "" is none
	projects int                       // that it must make; without a key one more for each further window
	sessions int                       // that it may open at most
}

// Two hundred clients that ask for the same at once get one project when they
// have one key or none, and one each when each has its own.
func TestStorm(t *testing.T) {
	t.Parallel()
	c := newTorture(t, store.Config{URL: testkit.Postgres(t).Database(t)})
	for range 2 {
		c.addNode([]string{"--builds=-1", "--queue-per-user", "0", "--queue-total", "0"}).start("")
	}
	clients := c.clients()
	for _, s := range []storm{
		{"one key", func(round, _ int) string { return fmt.Sprintf("storm-one-key-%06d", round) }, 1, 19},
		{"no key", func(int, int) string { return "" }, 1, stormSize},
		{"a key each", func(round, i int) string { return fmt.Sprintf("storm-a-key-%06d-%06d", round, i) }, stormSize, stormSize},
	} {
		var took []time.Duration
		opened, asked := 0, 0
		for round := range *storms {
			began := time.Now()
			since := c.count(`SELECT (extract(epoch from clock_timestamp()) * 1000000)::bigint`)
			before := c.count(`SELECT COUNT(*) FROM worker_projects`)
			answers, tries := c.raise(clients, s, round)
			took = append(took, time.Since(began))
			asked += tries
			most := s.projects
			if s.key(0, 0) == "" {
				most += windowsIn(time.Since(began))
			}
			projects := c.count(`SELECT COUNT(*) FROM worker_projects`) - before
			require.Equal(c, projects, answers, "projects and answers of round %d of %s (seed %d)", round, s.name, c.seed)
			require.True(c, s.projects <= projects && projects <= most, "round %d of %s made %d (seed %d)", round, s.name, projects, c.seed)
			sessions := c.count(fmt.Sprintf(`SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()
				AND application_name = 'previewd' AND (extract(epoch from backend_start) * 1000000)::bigint >= %d`, since))
			require.LessOrEqual(c, sessions, s.sessions, "new sessions in %s", s.name)
			opened = max(opened, sessions)
		}
		slices.Sort(took)
		c.Logf("%d storms of %d creates with %s: %d projects each, %d requests in all; %s (median), %s (longest), at most %d new sessions",
			*storms, stormSize, s.name, s.projects, asked, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), opened)
	}
	for _, n := range c.nodes {
		n.kill()
	}
	db, err := store.Open(context.Background(), c.store)
	require.NoError(c, err)
	defer db.Close()
	testkit.CheckInvariants(c, db)
}

// windowsIn is how many windows for creates without a key can have closed meanwhile:
// an equal request after that rightly makes another project.
func windowsIn(took time.Duration) int { return int(took / (10 * time.Second)) }

// raise sends all requests at once. It returns how many projects they were answered
// with, and how many requests were sent: who is told to ask again does.
func (c *torture) raise(clients *clients, s storm, round int) (answers, sent int) {
	c.Helper()
	l := &load{torture: c, clients: clients}
	prompt := fmt.Sprintf("storm of %s %d", s.name, round)
	ids, tries := make([]string, stormSize), make([]int, stormSize)
	var ready, done sync.WaitGroup
	gate := make(chan struct{})
	for i := range stormSize {
		ready.Add(1)
		done.Go(func() {
			req := previewd.CreatePreviewRequest{
				UserID: "user-storm-" + s.name, Prompt: prompt, TemplateFiles: previewd.Files{"index.html": []byte("<h1>hi</h1>")},
				IdempotencyKey: s.key(round, i),
			}
			servers := clients.keyed
			if req.IdempotencyKey == "" {
				servers = clients.keyless
			}
			ready.Done()
			<-gate
			var err error
			tries[i], err = l.insist(l.randomOf(i), servers, func(server *client.Client) error {
				preview, err := server.CreatePreview(context.Background(), req)
				if err == nil {
					ids[i] = preview.ProjectID
				}
				return err
			})
			if err != nil {
				c.Errorf("%s: %v", prompt, err)
			}
		})
	}
	ready.Wait()
	close(gate)
	done.Wait()
	slices.Sort(ids)
	for _, n := range tries {
		sent += n
	}
	return len(slices.Compact(ids)), sent
}

package main_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Two hundred clicks at once on two gateways are one project, with a key as
// without.
func TestGatewayStorm(t *testing.T) {
	t.Parallel()
	c := newApps(t, postgresEngine(t), true)
	other := c.addGateway()
	c.startAll()
	both := []*node{c.gateway, other}
	for _, keyless := range []bool{false, true} {
		name := map[bool]string{false: "one-key", true: "no-key"}[keyless]
		var took []time.Duration
		asked := 0
		for round := range *gateStorms {
			began, prompt := time.Now(), fmt.Sprintf("storm-%s-%04d", name, round)
			ids, tries := c.stormOf(both, prompt, keyless)
			took = append(took, time.Since(began))
			asked += tries
			most := 1
			if keyless {
				most += windowsIn(time.Since(began))
			}
			require.True(c, 1 <= len(ids) && len(ids) <= most, "%s was answered with %v (seed %d)", prompt, ids, c.seed)
		}
		slices.Sort(took)
		c.Logf("%d storms of %d creates with %s at two gateways: one project each, %d requests in all; %s (median), %s (longest)",
			*gateStorms, stormSize, name, asked, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	}
	c.checkApps()
}

// stormOf sends all requests at once and returns the ids of the projects that
// they were answered with, and how many requests there were.
func (c *apps) stormOf(gateways []*node, prompt string, keyless bool) (ids []string, tries int) {
	c.Helper()
	asks := make([]*ask, stormSize)
	gate := make(chan struct{})
	var ready, done sync.WaitGroup
	r := request{user: 1, method: http.MethodPost, path: "/api/projects", body: pageOf(prompt, nil)}
	if !keyless {
		r.key = "torture-key-" + prompt
	}
	for i := range asks {
		ready.Add(1)
		done.Go(func() {
			a := &ask{user: 1, keyless: keyless, began: time.Now()}
			asks[i] = a
			ready.Done()
			<-gate
			got, n := c.insistOn([]*node{gateways[i%2]}, r)
			a.asked = n
			c.heard(prompt, a, got)
			c.follow(gateways, a)
		})
	}
	ready.Wait()
	close(gate)
	done.Wait()
	for _, a := range asks {
		if a.refused != "" || a.projectID == "" {
			c.Errorf("%s was answered %d %s (seed %d)", prompt, a.answered, a.refused, c.seed)
		}
		ids = append(ids, a.projectID)
		tries += a.asked
	}
	slices.Sort(ids)
	return slices.Compact(ids), tries
}

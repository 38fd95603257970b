package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/previewd/previewd/internal/fault"
)

const killWorkload = 20 // creates a second

// A server that dies at any named point loses nothing that it has answered,
// makes nothing twice and leaves nothing stuck.
func TestKilledAtEachPoint(t *testing.T) {
	onEachEngine(t, func(c *torture) {
		n := c.addNode(nil, "failpoint")
		plain := slices.Clone(n.flags)
		clients := &load{torture: c, clients: c.clients(), rate: killWorkload, most: 250, builds: true, name: "point"}
		n.start("")
		clients.begin()
		n.kill()
		points := fault.Points(fault.Worker)
		died := map[string]int{}
		for i := range *kills {
			if i%len(points) == 0 {
				c.random.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
			}
			point := points[i%len(points)]
			pass, failpoints := 1+c.random.IntN(4), ""
			n.flags = plain
			switch name, _, _ := strings.Cut(point, "."); name {
			case "prune", "reap": // once at each start
				pass = 1
				n.holdBuilds(point)
			case "heartbeat": // of builds that take longer than its beat
				failpoints = "step.after_commit=delay:300ms;"
				n.flags = append(plain, "--lease", "600ms")
			}
			n.run(fmt.Sprintf("%s%s=kill@%d", failpoints, point, pass))
			n.waitDead(fmt.Sprintf("%s@%d", point, pass))
			died[point]++
		}
		n.flags = plain
		n.start("")
		clients.end()
		c.mayFail(c.check())
		c.Logf("killed %d times at %d of %d points", *kills, len(died), len(points))
	})
}

// holdBuilds leaves builds of a runner that has died, for the next start to reap.
func (n *node) holdBuilds(point string) {
	n.Helper()
	if strings.HasPrefix(point, "prune.") || strings.HasPrefix(point, "reap.find.") {
		return // it is passed when there is nothing to do
	}
	n.run("runner.built=delay:10s")
	n.waitUntil("a build runs", 60*time.Second, func() bool {
		return n.count(`SELECT COUNT(*) FROM worker_builds WHERE state = 'building'`) > 0
	})
	n.kill()
}

// The same with kill -9 at random moments; on PostgreSQL either of two servers.
func TestKilledAtRandom(t *testing.T) {
	onEachEngine(t, func(c *torture) {
		c.addNode(nil).start("")
		if c.onPostgres() {
			c.addNode(nil).start("")
		}
		clients := &load{torture: c, clients: c.clients(), rate: killWorkload, most: 250, builds: true, name: "random"}
		clients.begin()
		for range *crashes {
			time.Sleep(50*time.Millisecond + time.Duration(c.random.Int64N(int64(1200*time.Millisecond))))
			n := c.nodes[c.random.IntN(len(c.nodes))]
			n.kill()
			if c.random.IntN(2) == 0 {
				n.start("")
			} else {
				n.run("") // and perhaps killed again while it starts
			}
		}
		for _, n := range c.nodes {
			n.kill()
			n.start("")
		}
		clients.end()
		c.mayFail(c.check())
		c.Logf("killed %d times", *crashes)
	})
}

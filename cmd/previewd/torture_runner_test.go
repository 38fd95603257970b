package main_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
)

// createSome creates projects at once and returns when all are answered.
func (l *load) createSome(n int) {
	l.Helper()
	var wg sync.WaitGroup
	for i := l.made; i < l.made+n; i++ {
		wg.Go(func() { l.create(l.randomOf(i), i) })
	}
	l.made += n
	wg.Wait()
}

// manyModules is a tree that takes the bundler a while and whose bundle is small:
// what comes after the child should not be where the time goes.
func manyModules() previewd.Files {
	files := previewd.Files{"index.html": []byte(`<div id="root"></div><script type="module" src="/src/main.ts"></script>`)}
	var main strings.Builder
	for i := range 40 {
		var module strings.Builder
		for j := range 100 {
			fmt.Fprintf(&module, "export function f%d_%d(n: number): string { return n > %d ? `${n}` : String(n * %d); }\n", i, j, j, i)
		}
		files[fmt.Sprintf("src/m%d.ts", i)] = []byte(module.String())
		fmt.Fprintf(&main, "import { f%d_0 } from './m%d';\nconsole.log(f%d_0(1));\n", i, i, i)
	}
	files["src/main.ts"] = []byte(main.String())
	return files
}

// A server that is killed in the middle of a build leaves no process and no
// file of it, and the build is built all the same. So is one whose child alone
// is killed: every fourth.
func TestKilledRunnerLeavesNothing(t *testing.T) {
	onEachEngine(t, func(c *torture) {
		n := c.addNode([]string{"--builds", "2"})
		n.start("")
		clients := &load{torture: c, clients: c.clients(), name: "mid", files: manyModules()}
		servers, children := 0, 0
		for wanted := (*midBuilds + 3) / 4; children < wanted; {
			clients.createSome(min(wanted-children, 10))
			children += n.killChildren()
			c.quiet()
		}
		for servers+children < *midBuilds {
			clients.createSome(2)
			if n.killInBuild() {
				servers++
				n.start("")
			}
			c.quiet()
		}
		n.requireNoWork()
		rows := c.check()
		c.mayFail(rows)
		for _, b := range rows {
			if b.status != previewd.BuildCompleted || b.attempt > 3 || b.epoch > 3 {
				c.Errorf("not built all the same: %+v", *b)
			}
		}
		c.Logf("killed %d servers and %d children in the middle of builds", servers, children)
	})
}

// requireNoWork requires that no file of a build is left.
func (n *node) requireNoWork() {
	n.Helper()
	left, err := filepath.Glob(filepath.Join(n.data, "work", "*"))
	require.NoError(n, err)
	require.Empty(n, left, "files of builds")
}

// killInBuild kills the server while it has children and waits until they are
// gone too. It reports whether there was one: they can be too quick.
func (n *node) killInBuild() bool {
	n.Helper()
	var pids []int
	n.waitUntil("a build has a child", 60*time.Second, func() bool {
		pids = n.children()
		return len(pids) > 0 || n.count(waiting) == 0
	})
	n.pauseInBuild()
	if pids = slices.DeleteFunc(pids, func(pid int) bool { return !isAlive(pid) }); len(pids) == 0 {
		return false
	}
	n.kill()
	n.waitUntil("the children are gone", 5*time.Second, func() bool { return !slices.ContainsFunc(pids, isAlive) })
	return true
}

// killChildren kills the first child of each build, until all builds have had
// one: their pauses before another attempt are then at the same time. It returns
// how many it has hit.
func (n *node) killChildren() (killed int) {
	n.Helper()
	met := map[string]bool{}
	n.waitUntil("each build has had a child", 60*time.Second, func() bool {
		for _, pid := range n.children() {
			source, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd") // "" when it has ended
			work := filepath.Base(filepath.Dir(source))                     // <build>-<epoch>
			if !strings.HasSuffix(work, "-1") || met[work] {
				continue
			}
			met[work] = true
			if n.pauseInBuild(); isAlive(pid) && syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed++
			}
		}
		return n.count(`SELECT COUNT(*) FROM worker_builds WHERE state = 'queued' AND epoch = 0 OR state = 'building' AND epoch = 1`) == 0
	})
	return killed
}

// pauseInBuild lets a child get to any point of its life.
func (n *node) pauseInBuild() {
	time.Sleep(time.Duration(n.random.Int64N(int64(40 * time.Millisecond))))
}

// slowBuild is what a try of a build takes at least where that matters.
const slowBuild = time.Second

// A process that has slept through its lease finds its builds taken, and what it
// goes on to say of them changes nothing.
func TestStoppedRunnerWritesNothing(t *testing.T) {
	onEachEngine(t, func(c *torture) {
		slow := "runner.built=delay:" + slowBuild.String() // so that it is stopped in the middle
		for range map[bool]int{false: 1, true: 2}[c.onPostgres()] {
			c.addNode([]string{"--lease", "2s", "--builds", "4"}, "failpoint").start(slow)
		}
		clients := &load{torture: c, clients: c.clients(), name: "stop"}
		taken, renewed := map[string]int64{}, 0
		var recovered []time.Duration
		for len(taken)+renewed < *stopped {
			clients.createSome(8)
			n := c.nodes[c.random.IntN(len(c.nodes))]
			id := n.runnerID()
			c.waitUntil("it has builds", 60*time.Second, func() bool {
				return c.count(`SELECT COUNT(*) FROM worker_builds WHERE state = 'building' AND runner_id = '`+id+`'`) > 0 ||
					c.count(waiting) == 0
			})
			time.Sleep(time.Duration(c.random.Int64N(int64(300 * time.Millisecond))))
			n.signal(syscall.SIGSTOP)
			slept := time.Now()
			time.Sleep(20 * time.Millisecond) // what it has sent arrives
			held := map[string]int64{}
			for _, b := range c.rows() {
				if b.status == previewd.BuildBuilding && b.runner == id {
					held[b.id] = b.epoch
				}
			}
			if c.onPostgres() {
				recovered = append(recovered, c.awaitTaken(held, slept)...)
				for id, epoch := range held {
					taken[id] = epoch
				}
			} else {
				time.Sleep(2500*time.Millisecond + time.Duration(c.random.Int64N(int64(time.Second))))
				renewed += len(held)
			}
			n.signal(syscall.SIGCONT)
			c.quiet()
			rows := c.rows()
			maps.DeleteFunc(taken, func(id string, _ int64) bool { return rows[id].givenUp() }) // by the worker, which wrote that
		}
		rows := c.check()
		c.mayFail(rows)
		for id, epoch := range taken {
			b := rows[id]
			// Who has it now needs so long; what ends it sooner comes from who had it.
			if b.status != previewd.BuildCompleted || b.versionOf <= epoch || b.lastTry < slowBuild {
				c.Errorf("a process that had lost epoch %d has written: %+v", epoch, *b)
			}
		}
		if slices.Sort(recovered); len(recovered) > 0 {
			c.Logf("%d builds taken from stopped processes, taken up again after %s (median), %s (longest)",
				len(taken), recovered[len(recovered)/2].Round(time.Millisecond), recovered[len(recovered)-1].Round(time.Millisecond))
		}
	})
}

// awaitTaken waits until other servers have claimed the builds, and returns
// after how long each.
func (c *torture) awaitTaken(held map[string]int64, since time.Time) (after []time.Duration) {
	c.Helper()
	open := map[string]int64{}
	for id, epoch := range held {
		open[id] = epoch
	}
	// A lease, a round of the reaper, the pause before another attempt, and the
	// time that PostgreSQL gives a transaction whose client has stopped; the rest
	// is for a machine with other things to do.
	c.waitUntil("others take the builds", 3*time.Minute, func() bool {
		rows := c.rows()
		for id, epoch := range open {
			if b := rows[id]; b.epoch > epoch {
				after = append(after, time.Since(since))
				delete(open, id)
			} else if b.status.Terminal() {
				delete(open, id) // it had asked for that before it was stopped
				delete(held, id)
			}
		}
		return len(open) == 0
	})
	if len(after) > 0 && slices.Max(after) > time.Minute {
		c.Errorf("taken up again only after %s", slices.Max(after))
	}
	return after
}

package main_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/testkit"
)

var (
	sandboxKills = flag.Int("sandbox-kills", 1, "how often TestKilledSandboxLeavesNothing kills a server whose builds run code, per engine")
	mixed        = flag.Int("mixed", 0, "how many builds of all kinds TestKilledSandboxLeavesNothing makes instead, per engine")
	mixedEvery   = flag.Duration("mixed-every", 10*time.Second, "how often it kills the server then")
)

// codeTree is made by its own code, which starts processes that would stay, and
// takes a while.
func codeTree(mark string) previewd.Files {
	return previewd.Files{
		"package.json": []byte(`{"name":"x","private":true,"scripts":{"build":"node build.js"}}`),
		"build.js": fmt.Appendf(nil, `const { spawn } = require('child_process'), fs = require('fs');
for (let i = 0; i < 3; i++) spawn('sleep', ['%s'], { detached: true, stdio: 'ignore' }).unref();
setTimeout(() => { fs.mkdirSync('dist'); fs.writeFileSync('dist/index.html', '<h1>made</h1>'); process.exit(0) }, 700);
`, mark),
	}
}

// A server that is killed while strangers' commands run leaves no process, no
// control group with one, no mount and no file of them, and all is built. With
// -mixed there are builds of all kinds, and it is killed all the time.
func TestKilledSandboxLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED with -short: it lays a toolchain out for each server")
	}
	probe := exec.Command(testkit.Program(t), "doctor", "sandbox", "--data", t.TempDir())
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no sandbox here: %s", out)
	}
	flags, more := []string{"--builds", "2"}, []kind(nil)
	if *mixed > 0 {
		registry, pack := fetchStarts(t)
		flags, more = []string{"--builds", "4", "--npm-registry", registry}, mixedKinds(t, pack)
	}
	onEachEngine(t, func(c *torture) {
		mark := strconv.Itoa(100_000 + c.random.IntN(800_000)) // seconds of sleep that nobody else has
		n := c.addNode(flags)
		n.env = []string{"PATH=" + os.Getenv("PATH")}
		kinds := append([]kind{{codeTree(mark), previewd.BuildCompleted}}, more...)
		clients := &load{torture: c, clients: c.clients(), name: "code"}
		for _, k := range kinds {
			clients.mix = append(clients.mix, k.files)
		}
		n.start("")
		dead := n.breakSandboxes(clients, func() bool { return len(commandsWith(c, mark)) > 0 })
		n.sweepGroups(clients, dead)
		require.Empty(c, commandsWith(c, mark))
		require.Empty(c, boxesLeft(c, dead))
		n.requireNoWork()
		rows := c.check()
		n.requireOnlyCaches()
		n.requireSound()
		ends := map[previewd.BuildStatus]int{}
		for _, b := range rows {
			number, err := strconv.Atoi(b.prompt[strings.LastIndexByte(b.prompt, '-')+1:])
			require.NoError(c, err)
			ends[b.status]++
			require.Equal(c, kinds[number%len(kinds)].ends, b.status, "%+v", *b)
			require.Contains(c, []string{"", string(previewd.FailureUser)}, b.class, "%+v", *b)
		}
		c.Logf("killed %d servers while builds ran, %d builds %v", len(dead), len(rows), ends)
	})
}

// breakSandboxes has clients make projects and kills the server in the middle, again
// and again. It returns the processes that are dead.
func (n *node) breakSandboxes(clients *load, running func() bool) (dead []int) {
	n.Helper()
	kill := func() {
		dead = append(dead, n.server.Process.Pid)
		n.kill()
		n.waitUntil("what it has run is gone", time.Minute, func() bool {
			return !running() && len(boxesLeft(n.torture, dead)) == 0 && len(n.working()) == 0
		})
		n.start("")
	}
	if *mixed > 0 {
		clients.createSome(*mixed)
		for n.count(waiting) > 0 {
			time.Sleep(*mixedEvery)
			// A machine may need longer for a build than its server lives: what has lost
			// many is let through, for a build is given up in the end.
			n.waitUntil("the builds that have lost many servers are done", 5*time.Minute, func() bool {
				return n.count(`SELECT COUNT(*) FROM worker_builds WHERE state IN ('queued', 'building') AND epoch > 4`) == 0
			})
			kill()
		}
		return dead
	}
	for len(dead) < *sandboxKills {
		clients.createSome(4)
		ran := false
		n.waitUntil("strangers' commands run, or have run", 5*time.Minute, func() bool {
			ran = running()
			return ran || n.count(waiting) == 0
		})
		if !ran {
			continue // they were too quick
		}
		time.Sleep(time.Duration(n.random.Int64N(int64(900 * time.Millisecond))))
		kill()
		n.quiet()
	}
	return dead
}

// commandsWith lists this machine's processes that have an argument.
func commandsWith(c *torture, argument string) (pids []string) {
	c.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(c, err)
	for _, path := range all {
		raw, _ := os.ReadFile(path)
		if bytes.Contains(raw, []byte("\x00"+argument+"\x00")) {
			pids = append(pids, path)
		}
	}
	return pids
}

// boxesLeft lists what boxes of servers that are dead have left: mounts, and control
// groups with processes.
func boxesLeft(c *torture, dead []int) (left []string) {
	c.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(c, err)
	if strings.Contains(string(mounts), " scratch ") {
		left = append(left, "a mount")
	}
	for _, pid := range dead {
		for _, dir := range groupsOf(c, strconv.Itoa(pid)) {
			if processes, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil && len(processes) > 0 {
				left = append(left, dir)
			}
		}
	}
	return left
}

// groupsOf lists the control groups that a server's boxes have, of either version.
func groupsOf(c *torture, pid string) (dirs []string) {
	c.Helper()
	for _, above := range []string{"", "*/", "*/*/", "*/*/*/"} {
		found, err := filepath.Glob("/sys/fs/cgroup/" + above + "previewd-" + pid + "-*")
		require.NoError(c, err)
		dirs = append(dirs, found...)
	}
	return dirs
}

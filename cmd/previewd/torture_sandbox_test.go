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

var sandboxKills = flag.Int("sandbox-kills", 1, "how often TestKilledSandboxLeavesNothing kills a server whose builds run code, per engine")

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
// control group with one, no mount and no file of them, and all is built.
func TestKilledSandboxLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED with -short: it lays a toolchain out for each server")
	}
	probe := exec.Command(testkit.Program(t), "doctor", "sandbox", "--data", t.TempDir())
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no sandbox here: %s", out)
	}
	onEachEngine(t, func(c *torture) {
		mark := strconv.Itoa(100_000 + c.random.IntN(800_000)) // seconds of sleep that nobody else has
		n := c.addNode([]string{"--builds", "2"})
		n.env = []string{"PATH=" + os.Getenv("PATH")}
		n.start("")
		clients := &load{torture: c, clients: c.clients(), name: "code", files: codeTree(mark)}
		running := func() bool { return len(commandsWith(c, mark)) > 0 }
		for range *sandboxKills {
			clients.createSome(4)
			n.waitUntil("strangers' commands run", 60*time.Second, running)
			time.Sleep(time.Duration(c.random.Int64N(int64(900 * time.Millisecond))))
			n.kill()
			n.waitUntil("they are gone", 5*time.Second, func() bool { return !running() && len(boxesLeft(c)) == 0 })
			n.start("")
			c.quiet()
		}
		require.False(c, running())
		require.Empty(c, boxesLeft(c))
		n.requireNoWork()
		rows := c.check()
		c.mayFail(rows)
		for _, b := range rows {
			require.Equal(c, previewd.BuildCompleted, b.status, "%+v", *b)
		}
		c.Logf("killed %d servers while strangers' commands ran, %d builds", *sandboxKills, len(rows))
	})
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

// boxesLeft lists what boxes of dead servers have left: mounts, and control groups
// with processes.
func boxesLeft(c *torture) (left []string) {
	c.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(c, err)
	if strings.Contains(string(mounts), " scratch ") {
		left = append(left, "a mount")
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/pids/previewd-*/cgroup.procs")
	require.NoError(c, err)
	for _, path := range groups {
		owner := strings.Split(filepath.Base(filepath.Dir(path)), "-")[1]
		if _, err := os.Stat("/proc/" + owner); err == nil {
			continue // another test's
		}
		if processes, err := os.ReadFile(path); err == nil && len(processes) > 0 {
			left = append(left, path)
		}
	}
	return left
}

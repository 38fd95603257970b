//go:build linux

package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/boxtest"
	"github.com/previewd/previewd/internal/sandbox"
	"github.com/previewd/previewd/internal/toolchain"
)

const roleOwner = "owner-of-a-box" // of a test's child

var tools struct {
	sync.Once
	dir string
	*toolchain.Toolchain
	err error
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case sandbox.InitArg:
			os.Exit(sandbox.Init())
		case roleOwner:
			ownBox(os.Args[2])
			os.Exit(0)
		case roleParser:
			parse(os.Args[2], os.Args[3])
			os.Exit(0)
		case roleGuest:
			runGuest(os.Args[2], os.Args[3], os.Args[4])
		}
	}
	code := m.Run()
	if tools.dir != "" {
		os.RemoveAll(tools.dir)
	}
	os.Exit(code)
}

// config is for a box of this machine's own programs.
func config(t testing.TB) sandbox.BoxConfig {
	t.Helper()
	tools.Do(func() {
		if tools.dir, tools.err = os.MkdirTemp("", "toolchain-"); tools.err == nil {
			tools.Toolchain, tools.err = toolchain.Prepare(t.Context(), tools.dir)
		}
	})
	if tools.err != nil {
		t.Skipf("SKIPPED: no toolchain: %v", tools.err)
	}
	return sandbox.BoxConfig{Root: tools.Root, Limits: sandbox.DefaultLimits(), Source: tarOf(t, nil)}
}

// open opens a box, or skips the test where there can be none.
func open(t testing.TB, cfg sandbox.BoxConfig) *sandbox.Box {
	t.Helper()
	b, err := sandbox.Open(t.Context(), cfg)
	if errors.Is(err, sandbox.ErrUnavailable) {
		t.Skipf("SKIPPED: %v", err)
	}
	require.NoError(t, err)
	t.Cleanup(b.Close)
	return b
}

// Short names of what tests of every kind of box share.
var (
	env, tarOf    = boxtest.Env, boxtest.Tar
	sh, node, run = boxtest.Sh, boxtest.Node, boxtest.Run
)

func TestProbe(t *testing.T) {
	cfg := config(t)
	r := sandbox.Probe(t.Context(), cfg)
	if !r.OK() && strings.Contains(r.Reason, "not available") {
		t.Skipf("SKIPPED: %s %s", r.Reason, r.Fix)
	}
	require.True(t, r.OK(), "%s", r.Reason)
	require.Greater(t, len(r.Checks), 15)
	t.Logf("a box starts in %s", r.Start)
}

func TestTasksRunOneAfterTheOther(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Source = tarOf(t, map[string]string{"a.txt": "a", "deep/er/b.txt": "b"})
	b := open(t, cfg)
	end, out := run(t, b, sh(`cat a.txt deep/er/b.txt; echo c > c.txt; (sleep 300 &) ; exit 3`))
	require.Equal(t, 3, end.Code)
	require.Equal(t, "ab", out)
	end, out = run(t, b, sh(`cat c.txt; cat /proc/[0-9]*/comm | grep -c sleep; kill -9 $$`))
	require.Equal(t, 128+9, end.Code)
	require.Equal(t, "c\n0\n", out, "nobody is left of the task before")
	end, out = run(t, b, []string{"nothing-of-this-name"})
	require.Equal(t, 127, end.Code)
	require.Contains(t, out, "not found")
	require.Positive(t, b.Usage().CPU)
	root, err := b.Output(t.Context(), "deep")
	require.NoError(t, err)
	defer root.Close()
	text, err := root.ReadFile("er/b.txt")
	require.NoError(t, err)
	require.Equal(t, "b", string(text))
	_, err = b.Run(t.Context(), sandbox.Task{Argv: sh("true"), Env: env, Output: io.Discard})
	require.Error(t, err, "it has ended")
}

// What is listened on inside is accepted outside, and there is no other way out.
func TestPortsAreTheOnlyWayOut(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.Ports = []int{4873}
	b := open(t, cfg)
	go func() {
		_ = http.Serve(b.Listeners()[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "mirror") }))
	}()
	host, err := startListener(t)
	require.NoError(t, err)
	_, out := run(t, b, node(`
		const net = require('net'), dgram = require('dgram'), dns = require('dns');
		const tcp = (h, p) => new Promise(ok => { const s = net.connect({host: h, port: p, timeout: 2000});
			s.on('connect', () => ok('connected')); s.on('error', e => ok(e.code)); s.on('timeout', () => ok('timeout')); });
		(async () => {
			console.log(await (await fetch('http://127.0.0.1:4873/')).text());
			console.log(await tcp('169.254.169.254', 80), await tcp('fd00:ec2::254', 80), await tcp('10.0.0.1', 80), await tcp('127.0.0.1', `+strconv.Itoa(host)+`));
			console.log(await new Promise(ok => dgram.createSocket('udp4').send('x', 53, '8.8.8.8', e => ok(e ? e.code : 'sent'))));
			console.log(await new Promise(ok => dns.lookup('example.com', e => ok(e ? e.code : 'found'))));
			console.log(Object.keys(require('os').networkInterfaces()).join());
			process.exit(0);
		})()`))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 5, out)
	require.Equal(t, "mirror", lines[0])
	for _, got := range strings.Fields(lines[1]) {
		require.Contains(t, []string{"ENETUNREACH", "ECONNREFUSED", "EACCES", "EADDRNOTAVAIL", "EAFNOSUPPORT"}, got)
	}
	require.Contains(t, []string{"ENETUNREACH", "EACCES"}, lines[2])
	require.NotEqual(t, "found", lines[3])
	require.Equal(t, "lo", lines[4])
}

// Nothing of the host can be seen or changed.
func TestHostIsHidden(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("s3cret"), 0o644))
	cfg := config(t)
	b := open(t, cfg)
	for name, script := range map[string]string{
		"File":       `cat ` + secret,
		"Environ":    `grep -l s3cret /proc/[0-9]*/environ`,
		"Init":       `cat /proc/1/environ /proc/1/maps; ls -l /proc/1/exe /proc/1/fd/3 /proc/1/root`,
		"Shadow":     `cat /etc/shadow`,
		"Docker":     `ls /var/run/docker.sock /run/docker.sock`,
		"WriteUsr":   `echo x > /usr/bin/x`,
		"WriteRoot":  `echo x > /x`,
		"WriteDev":   `echo x > /dev/x`,
		"Remount":    `mount -o remount,rw / || mount -t tmpfs x /tmp`,
		"Unshare":    `unshare -Ur true`,
		"Hostname":   `echo x > /proc/sys/kernel/hostname`,
		"Sysrq":      `echo h > /proc/sysrq-trigger`,
		"Kcore":      `head -c 1 /proc/kcore`,
		"Device":     `ls /dev/vda /dev/kvm /dev/mem /dev/kmsg`,
		"Sys":        `ls /sys/fs/cgroup`,
		"Setuid":     `find / -xdev -perm /6000 -type f | grep .`,
		"Fifo":       `mkfifo f && test -b f`,
		"NodDevice":  `node -e 'require("child_process").execFileSync("mknod", ["d", "b", "8", "0"])'`,
		"Link":       `ln /usr/bin/node n`,
		"OwnerFiles": `chown 0 /workspace || chmod u+s /usr/bin/node`,
	} {
		end, out := run(t, b, sh(script+" 2>/dev/null"))
		require.NotZero(t, end.Code, "%s: %s", name, out)
		require.NotContains(t, out, "s3cret", name)
	}
	_, out := run(t, b, sh(`ls /proc | grep '^[0-9]'; id; env; cat /proc/self/status | grep -E 'Cap|NoNewPrivs|Seccomp:'`))
	for _, want := range []string{"uid=1000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		require.Contains(t, out, want)
	}
}

// The bounds hold, one by one.
func TestBounds(t *testing.T) {
	t.Parallel()
	limits := sandbox.Limits{Memory: 384 << 20, Processes: 64, CPUs: 50, Disk: 96 << 20, Inodes: 20_000, FileSize: 64 << 20, OpenFiles: 1024}
	with := func(t *testing.T, argv []string) (sandbox.End, string) {
		t.Helper()
		t.Parallel()
		cfg := config(t)
		cfg.Limits = limits
		return run(t, open(t, cfg), argv)
	}
	t.Run("Memory", func(t *testing.T) {
		end, _ := with(t, node(`const a = []; for (;;) a.push(Buffer.alloc(8 << 20, 1))`))
		require.True(t, end.OutOfMemory)
		require.NotZero(t, end.Code)
	})
	t.Run("MemoryOfMany", func(t *testing.T) {
		end, _ := with(t, sh(`for i in 1 2 3; do node -e 'const a = []; for (;;) a.push(Buffer.alloc(8 << 20, 1))' & done; wait`))
		require.True(t, end.OutOfMemory)
	})
	t.Run("Processes", func(t *testing.T) {
		end, out := with(t, sh(`i=0; while [ $i -lt 200 ]; do sleep 300 & i=$((i+1)); done; echo all`))
		require.True(t, end.ProcessesBound, out)
		require.NotContains(t, out, "all")
	})
	t.Run("ForkBomb", func(t *testing.T) {
		end, _ := with(t, sh(`f() { f | f & }; f; sleep 1; exit 7`))
		require.True(t, end.ProcessesBound)
	})
	t.Run("Disk", func(t *testing.T) {
		_, out := with(t, node(`const fs = require('fs'); let sum = 0;
			for (const d of ['/workspace', '/tmp', '/home/build', '/dev/shm']) try { for (let i = 0; ; i++) { fs.writeFileSync(d + '/f' + i, Buffer.alloc(1 << 20, 1)); sum++ } } catch (e) { console.log(e.code) }
			console.log(sum)`))
		lines := strings.Fields(out)
		require.Len(t, lines, 5, out)
		require.Equal(t, []string{"ENOSPC", "ENOSPC", "ENOSPC", "ENOSPC"}, lines[:4])
		sum, err := strconv.Atoi(lines[4])
		require.NoError(t, err)
		require.InDelta(t, 95, sum, 2, "MiB, in all four places together")
	})
	t.Run("Inodes", func(t *testing.T) {
		_, out := with(t, node(`const fs = require('fs'); let i = 0; try { for (;; i++) fs.writeFileSync('/workspace/i' + i, '') } catch (e) { console.log(e.code, i) }`))
		require.Regexp(t, `^ENOSPC 199\d\d`, out)
	})
	t.Run("FileSize", func(t *testing.T) {
		end, _ := with(t, sh(`truncate -s 100G big 2>/dev/null || head -c 70000000 /dev/zero > big`))
		require.NotZero(t, end.Code)
	})
	t.Run("CPU", func(t *testing.T) {
		tries, used := 1, 1500
		if isUML() {
			tries = 5 // its clock counts what the machine does besides
		}
		t.Parallel()
		for ; tries > 0 && used >= 1300; tries-- {
			cfg := config(t)
			cfg.Limits = limits
			b := open(t, cfg)
			_, out := run(t, b, node(`const t = Date.now(); while (Date.now() - t < 1500); console.log(Math.round(process.cpuUsage().user / 1000))`))
			b.Close()
			var err error
			used, err = strconv.Atoi(strings.TrimSpace(out))
			require.NoError(t, err)
		}
		require.Less(t, used, 1300, "ms of CPU in 1500 ms with half a CPU")
	})
}

// What does not want to end is ended.
func TestStubbornTasksEnd(t *testing.T) {
	t.Parallel()
	for name, argv := range map[string][]string{
		"IgnoresSignals": sh(`trap '' TERM INT HUP QUIT; while :; do sleep 1; done`),
		"Spins":          node(`for (;;);`),
		"Forks":          sh(`while :; do sh -c 'sleep 60 &'; done`),
		"Writes":         node(`for (;;) require('fs').writeSync(1, 'x'.repeat(65536))`),
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, config(t))
			stopped := errors.New("stopped")
			ctx, stop := context.WithCancelCause(t.Context())
			begun := make(chan struct{})
			go func() {
				<-begun
				stop(stopped)
			}()
			time.AfterFunc(300*time.Millisecond, func() { close(begun) })
			_, err := b.Run(ctx, sandbox.Task{Argv: argv, Env: env, Output: io.Discard})
			require.ErrorIs(t, err, stopped)
			began := time.Now()
			b.Close()
			require.Less(t, time.Since(began), 30*time.Second)
			requireNothingLeft(t)
		})
	}
	t.Run("KillsAll", func(t *testing.T) {
		b := open(t, config(t))
		_, out := run(t, b, sh(`sleep 60 & kill -9 -1; echo alone`))
		require.Equal(t, "alone\n", out)
		_, out = run(t, b, sh(`for s in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 19 20 21 22 23 24 25 26 27 28 29 30 31 34 64; do kill -$s 1; done; echo alive`))
		require.Equal(t, "alive\n", out)
		_, out = run(t, b, sh(`echo still`))
		require.Equal(t, "still\n", out)
	})
}

// requireNothingLeft checks that boxes have left no mount and no control group of
// this process behind.
func requireNothingLeft(t *testing.T) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), " scratch ")
}

// The kernel's other doors are closed, those of the 32-bit interface too.
func TestSystemCallsAreFiltered(t *testing.T) {
	t.Parallel()
	program := boxtest.CallsProgram(t)
	cfg := config(t)
	cfg.Source = tarOf(t, map[string]string{"calls": program})
	b := open(t, cfg)
	end, text := run(t, b, sh(`chmod +x calls && ./calls`))
	require.NotContains(t, text, "allowed")
	require.Greater(t, strings.Count(text, "denied"), 15, text)
	require.Contains(t, text, "32-bit\n")
	if isUML() {
		return // it has no 32-bit interface: the numbers are those of the other
	}
	require.NotContains(t, text, "went through")
	require.Equal(t, 128+31, end.Code, "SIGSYS: %s", text)
}

// What a build leaves is read with care: nothing leads out of it.
func TestOutputLeadsNowhere(t *testing.T) {
	t.Parallel()
	b := open(t, config(t))
	run(t, b, sh(`mkdir dist; ln -s /etc/passwd dist/passwd; ln -s /proc/self/root/etc dist/etc; ln -s ../.. dist/up; ln -s /etc out; echo ok > dist/ok`))
	_, err := b.Output(t.Context(), "out")
	require.Error(t, err, "the folder itself is a link to the host")
	_, err = b.Output(t.Context(), "../..")
	require.Error(t, err)
	root, err := b.Output(t.Context(), "dist")
	require.NoError(t, err)
	defer root.Close()
	for _, name := range []string{"passwd", "etc/passwd", "up/up/etc/passwd"} {
		_, err := root.ReadFile(name)
		require.Error(t, err, name)
	}
	text, err := root.ReadFile("ok")
	require.NoError(t, err)
	require.Equal(t, "ok\n", string(text))
	require.NoError(t, fs.WalkDir(root.FS(), ".", func(string, fs.DirEntry, error) error { return nil }))
}

// What many boxes share shows through, and none of them can change it.
func TestModulesAreShared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "left-pad"), 0o755))
	shared := filepath.Join(dir, "left-pad", "index.js")
	require.NoError(t, os.WriteFile(shared, []byte("module.exports = 1\n"), 0o644))
	if os.Geteuid() == 0 {
		for _, path := range []string{dir, filepath.Dir(shared), shared} {
			require.NoError(t, os.Lchown(path, 200_001, 200_001))
		}
	}
	for range 2 {
		cfg := config(t)
		cfg.Modules = dir
		b := open(t, cfg)
		end, out := run(t, b, sh(`cat node_modules/left-pad/index.js && echo POISON > node_modules/left-pad/index.js && echo x > node_modules/new &&
			cat node_modules/left-pad/index.js && rm node_modules/left-pad/index.js && ls node_modules/left-pad node_modules`))
		require.Zero(t, end.Code, out)
		require.Equal(t, "module.exports = 1\nPOISON\nnode_modules:\nleft-pad\nnew\n\nnode_modules/left-pad:\n", out)
		if tmpfsHasAttributes(t) {
			end, out = run(t, b, sh(`rm -r node_modules/left-pad && ls node_modules`))
			require.Zero(t, end.Code, out)
			require.Equal(t, "new\n", out)
		}
		require.NoError(t, b.Unpack(t.Context(), tarOf(t, map[string]string{"later.txt": "later"})))
		_, out = run(t, b, sh(`cat later.txt`))
		require.Equal(t, "later", out)
	}
	text, err := os.ReadFile(shared)
	require.NoError(t, err)
	require.Equal(t, "module.exports = 1\n", string(text))
}

// tmpfsHasAttributes reports whether the kernel is 6.6 or newer: an overlay on an
// older one's tmpfs cannot note that a folder which it has changed is gone.
func tmpfsHasAttributes(t *testing.T) bool {
	t.Helper()
	raw, err := os.ReadFile("/proc/sys/kernel/osrelease")
	require.NoError(t, err)
	var major, minor int
	_, err = fmt.Sscanf(string(raw), "%d.%d", &major, &minor)
	require.NoError(t, err)
	return major > 6 || major == 6 && minor >= 6
}

// A first process that says nothing, or dies, keeps nobody waiting.
func TestSilentBoxIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, program := range map[string]string{"Silent": "yes", "Dies": "false"} {
		path, err := exec.LookPath(program)
		require.NoError(t, err)
		cfg := config(t)
		open(t, cfg).Close() // skips where there is none
		cfg.Executable, cfg.Source = path, tarOf(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err = sandbox.Open(ctx, cfg)
		require.Error(t, err, name)
		require.Less(t, time.Since(began), 10*time.Second, name)
	}
}

// A tree that would lay itself out elsewhere does not.
func TestSourceStaysInTheWorkspace(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"../up.txt", "/etc/abs.txt", "a/../../b.txt"} {
		cfg := config(t)
		cfg.Source = tarOf(t, map[string]string{name: "x"})
		b, err := sandbox.Open(t.Context(), cfg)
		if err == nil {
			b.Close()
		}
		require.Error(t, err, name)
	}
}

func BenchmarkStart(b *testing.B) {
	cfg := config(b)
	for b.Loop() {
		cfg.Source = tarOf(b, nil)
		box := open(b, cfg)
		box.Close()
	}
}

// startListener listens on the host's loopback and returns the port.
func startListener(t *testing.T) (port int, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port, nil
}

//go:build linux

package container_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/boxtest"
	"github.com/previewd/previewd/internal/sandbox"
)

// row logs one line of the table of attacks.
func row(t *testing.T, attack, outcome string, figure any) {
	t.Helper()
	t.Logf("| %s | %s | %s | %v |", strings.Split(t.Name(), "/")[1], attack, outcome, figure)
}

// Nothing of the host can be seen or changed.
func TestHostIsHidden(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		secret := filepath.Join(t.TempDir(), "secret")
		require.NoError(t, os.WriteFile(secret, []byte("s3cret"), 0o644))
		box := b.open(t)
		attacks := map[string]string{
			"a file of the host":                  `cat ` + secret,
			"environments":                        `grep -l s3cret /proc/[0-9]*/environ`,
			"the first process":                   `cat /proc/1/environ || cat /proc/1/maps || ls /proc/1/fd/3 || cat /proc/1/root/etc/passwd || head -c 1 /proc/1/mem`,
			"shadow":                              `cat /etc/shadow`,
			"docker.sock":                         `ls /var/run/docker.sock || ls /run/docker.sock`,
			"write to /usr":                       `echo x > /usr/bin/x`,
			"write to /":                          `echo x > /x`,
			"write to /dev":                       `echo x > /dev/x`,
			"write to the first process's folder": `echo x > /dev/previewd/x || echo x >> /dev/previewd/agent || chmod 777 /dev/previewd/agent`,
			"write to /sys":                       `echo x > /sys/fs/cgroup/x || echo 9 > /sys/fs/cgroup/pids/pids.max || mkdir /sys/fs/cgroup/pids/x || mkdir /sys/fs/cgroup/x`,
			"remount":                             `mount -o remount,rw / || mount -t tmpfs x /tmp`,
			"unshare":                             `unshare -Ur true`,
			"name of the host":                    `echo x > /proc/sys/kernel/hostname`,
			"sysrq":                               `echo h > /proc/sysrq-trigger`,
			"kernel memory":                       `head -c 1 /proc/kcore | grep -c .`,
			"devices":                             `ls /dev/vda || ls /dev/kvm || ls /dev/mem || ls /dev/kmsg || ls /sys/class/block/vda`,
			"setuid programs":                     `find / -xdev -perm /6000 -type f | grep .`,
			"a device of its own":                 `mknod d b 8 0 || node -e 'require("child_process").execFileSync("mknod", ["d", "b", "8", "0"])'`,
			"hard link to the root":               `ln /usr/bin/node n`,
			"owner of files":                      `chown 0 /workspace || chmod u+s /usr/bin/node`,
			"name servers of the host":            `grep nameserver /etc/resolv.conf`,
		}
		for name, script := range attacks {
			end, out := run(t, box, sh("("+script+") 2>/dev/null"))
			require.NotZero(t, end.Code, "%s: %s", name, out)
			require.NotContains(t, out, "s3cret", name)
		}
		row(t, "see or change the host", "nothing", fmt.Sprint(len(attacks), " ways"))
		_, out := run(t, box, sh(`id; env; grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; ls /proc | grep -c '^[0-9]'; node -e 'console.log(os.userInfo().username)'`))
		for _, want := range []string{"(build)", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "\nbuild\n"} {
			require.Contains(t, out, want)
		}
		require.NotContains(t, out, "uid=0")
		require.NotContains(t, out, "SECRET")
	})
}

// What is listened on inside is accepted outside, and there is no other way out.
func TestPortsAreTheOnlyWayOut(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		box := b.open(t, func(c *sandbox.BoxConfig) { c.Ports = []int{4873, 3128} })
		go func() {
			_ = http.Serve(box.Listeners()[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, strings.Repeat("mirror", 100_000))
			}))
		}()
		host, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { host.Close() })
		_, out := run(t, box, node(`
			const net = require('net'), dgram = require('dgram'), dns = require('dns');
			const tcp = (h, p) => new Promise(ok => { const s = net.connect({host: h, port: p, timeout: 2000});
				s.on('connect', () => ok('connected')); s.on('error', e => ok(e.code)); s.on('timeout', () => ok('timeout')); });
			(async () => {
				const texts = await Promise.all([...Array(20)].map(async () => (await (await fetch('http://127.0.0.1:4873/')).text()).length));
				console.log(texts.every(n => n === 600000));
				console.log(await tcp('169.254.169.254', 80), await tcp('fd00:ec2::254', 80), await tcp('10.0.0.1', 80), await tcp('172.17.0.1', 80), await tcp('127.0.0.1', `+strconv.Itoa(host.Addr().(*net.TCPAddr).Port)+`));
				console.log(await new Promise(ok => dgram.createSocket('udp4').send('x', 53, '8.8.8.8', e => ok(e ? e.code : 'sent'))));
				console.log(await new Promise(ok => dns.lookup('example.com', e => ok(e ? e.code : 'found'))));
				console.log(Object.keys(require('os').networkInterfaces()).join());
				process.exit(0);
			})()`))
		lines := strings.Split(strings.TrimSpace(out), "\n")
		require.Len(t, lines, 5, out)
		require.Equal(t, "true", lines[0])
		for _, got := range strings.Fields(lines[1]) {
			require.Contains(t, []string{"ENETUNREACH", "ECONNREFUSED", "EACCES", "EADDRNOTAVAIL", "EHOSTUNREACH"}, got)
		}
		require.Contains(t, []string{"ENETUNREACH", "EACCES", "EHOSTUNREACH"}, lines[2])
		require.NotEqual(t, "found", lines[3])
		require.Equal(t, "lo", lines[4])
		row(t, "reach the network: metadata, LAN, host, UDP, DNS", "refused", lines[1]+" "+lines[2]+" "+lines[3])
	})
}

// Whoever holds no secret is turned away from the first process's socket.
func TestTasksCannotSpeakForTheFirstProcess(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		box := b.open(t, func(c *sandbox.BoxConfig) { c.Ports = []int{4873} })
		go func() {
			for {
				conn, err := box.Listeners()[0].Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, "in")
				conn.Close()
			}
		}()
		end, out := run(t, box, node(`const net = require('net'); let gone = 0;
			for (let i = 0; i < 150; i++) { const s = net.connect('/dev/previewd/link/socket', () => s.write('x'.repeat(26) + 'p\0\0\0\0'));
				let heard = ''; s.on('data', d => heard += d); s.on('error', () => 0); s.on('close', () => { if (heard === '' && ++gone === 150) console.log('turned away') }) }`))
		require.Zero(t, end.Code)
		require.Equal(t, "turned away\n", out)
		row(t, "speak for the first process over its socket", "turned away", "150 connections")
		_, out = run(t, box, node(`require('net').connect(4873, '127.0.0.1').on('data', d => console.log(String(d)))`))
		require.Equal(t, "in\n", out)
	})
}

// The bounds hold, one by one.
func TestBounds(t *testing.T) {
	t.Parallel()
	limits := sandbox.Limits{Memory: 384 << 20, Processes: 64, CPUs: 200, Disk: 96 << 20, Inodes: 4_000, FileSize: 64 << 20, OpenFiles: 1024}
	each(t, func(t *testing.T, b *bench) {
		with := func(t *testing.T, argv []string) (sandbox.End, string) {
			t.Helper()
			return run(t, b.open(t, func(c *sandbox.BoxConfig) { c.Limits = limits }), argv)
		}
		for name, script := range map[string]string{
			"memory bomb":                `node -e 'const a = []; for (;;) a.push(Buffer.alloc(8 << 20, 1))'`,
			"memory bomb of 3 processes": `for i in 1 2 3; do node -e 'const a = []; for (;;) a.push(Buffer.alloc(8 << 20, 1))' & done; wait; exit 1`,
		} {
			if testing.Short() && name != "memory bomb" {
				continue
			}
			end, _ := with(t, sh(script))
			require.True(t, end.OutOfMemory, name)
			require.NotZero(t, end.Code, name)
			row(t, name, "killed, and said to be out of memory", fmt.Sprintf("384 MiB, code %d", end.Code))
		}
		end, out := with(t, sh(`i=0; while [ $i -lt 200 ]; do sleep 300 & i=$((i+1)); done; echo all`))
		require.True(t, end.ProcessesBound, out)
		require.NotContains(t, out, "all")
		row(t, "200 processes", "bound, and said", "64")
		_, out = with(t, node(`const fs = require('fs'); const sums = [];
			for (const d of ['/workspace', '/tmp', '/home/build', '/dev/shm']) { let sum = 0; try { for (let i = 0; ; i++) { fs.writeFileSync(d + '/f' + i, Buffer.alloc(1 << 20, 1)); sum++ } } catch (e) { console.log(e.code) } sums.push(sum) }
			console.log(sums.join(' '))`))
		lines := strings.Fields(out)
		require.Len(t, lines, 8, out)
		require.Equal(t, []string{"ENOSPC", "ENOSPC", "ENOSPC", "ENOSPC"}, lines[:4])
		wants := []int{96, 48, 48, 24} // Docker's file systems are apart
		if b.name != "docker" {
			wants = []int{95, 0, 0, 0}
		}
		for i, want := range wants {
			sum, err := strconv.Atoi(lines[4+i])
			require.NoError(t, err)
			require.InDelta(t, want, sum, 2, "MiB")
		}
		row(t, "fill the disk in 4 places", "ENOSPC", strings.Join(lines[4:], "+")+" MiB")
		_, out = with(t, node(`const fs = require('fs'); let i = 0; try { for (;; i++) fs.writeFileSync('/workspace/i' + i, '') } catch (e) { console.log(e.code, i) }`))
		require.Regexp(t, `^ENOSPC (39\d\d|4000)`, out)
		row(t, "files without end", strings.Fields(out)[0], strings.Fields(out)[1])
		if testing.Short() {
			return
		}
		end, _ = with(t, sh(`f() { f | f & }; f; sleep 1; exit 7`))
		// gVisor does not count what it refuses; a bomb that lasts a moment can be missed.
		require.True(t, end.ProcessesBound || b.name != "docker")
		row(t, "fork bomb", "bound", fmt.Sprintf("64, said: %v", end.ProcessesBound))
		end, _ = with(t, sh(`truncate -s 100G big 2>/dev/null || head -c 70000000 /dev/zero > big`))
		require.NotZero(t, end.Code)
		row(t, "sparse file of 100 GB", "killed", fmt.Sprintf("code %d", end.Code))
		limits := limits
		limits.CPUs = 50
		_, out = run(t, b.open(t, func(c *sandbox.BoxConfig) { c.Limits = limits }), node(`const t = Date.now(); while (Date.now() - t < 1500); console.log(Math.round(process.cpuUsage().user / 1000))`))
		used, err := strconv.Atoi(strings.TrimSpace(out))
		require.NoError(t, err)
		require.Less(t, used, 1600)
		row(t, "spin with half a CPU", "throttled", fmt.Sprintf("%d ms of 1500", used))
	})
}

// What does not want to end is ended.
func TestStubbornTasksEnd(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		for name, argv := range map[string][]string{
			"ignores signals": sh(`trap '' TERM INT HUP QUIT; echo on; while :; do sleep 1; done`),
			"spins":           node(`console.log('on'); for (;;);`),
			"forks":           sh(`echo on; while :; do sh -c 'sleep 60 &'; done`),
			"floods the log":  node(`for (;;) require('fs').writeSync(1, 'x'.repeat(65536))`),
		} {
			if testing.Short() && name != "ignores signals" {
				continue
			}
			box := b.open(t)
			stopped := errors.New("stopped")
			ctx, stop := context.WithCancelCause(t.Context())
			heard := &listener{first: func() { stop(stopped) }}
			_, err := box.Run(ctx, sandbox.Task{Argv: argv, Env: env, Output: heard})
			require.ErrorIs(t, err, stopped, name)
			began := time.Now()
			box.Close()
			took := time.Since(began)
			require.Less(t, took, 15*time.Second, name)
			row(t, name, "gone", fmt.Sprintf("%d ms", took.Milliseconds()))
		}
		box := b.open(t)
		_, out := run(t, box, sh(`sleep 60 & kill -9 -1; echo alone`))
		require.Equal(t, "alone\n", out)
		_, out = run(t, box, sh(`for s in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 19 20 21 22 23 24 25 26 27 28 29 30 31 34 64; do kill -$s 1; done 2>/dev/null; echo alive`))
		require.Equal(t, "alive\n", out)
		_, out = run(t, box, sh(`for t in /proc/1/task/*; do kill -9 ${t##*/}; done 2>/dev/null; echo alive`))
		require.Equal(t, "alive\n", out)
		_, out = run(t, box, sh(`echo still`))
		require.Equal(t, "still\n", out)
		row(t, "kill everything, and the first process", "only itself", "31 signals")
	})
}

// listener tells of the first words.
type listener struct{ first func() }

func (l *listener) Write(p []byte) (int, error) {
	l.first()
	return len(p), nil
}

// The kernel's other doors are closed, those of the 32-bit interface too.
func TestSystemCallsAreFiltered(t *testing.T) {
	t.Parallel()
	program := boxtest.CallsProgram(t)
	each(t, func(t *testing.T, b *bench) {
		box := b.open(t, func(c *sandbox.BoxConfig) { c.Source = tarOf(t, map[string]string{"calls": program}) })
		end, text := run(t, box, sh(`chmod +x calls && ./calls`))
		require.NotContains(t, text, "allowed")
		require.Greater(t, strings.Count(text, "denied"), 15, text)
		require.Contains(t, text, "32-bit\n")
		row(t, "system calls", "denied", strings.Count(text, "denied"))
		if b.name == "docker" {
			require.NotContains(t, text, "went through")
			require.Equal(t, 128+31, end.Code, "SIGSYS: %s", text)
			row(t, "int 0x80", "killed", "SIGSYS")
			return
		}
		// gVisor has no 32-bit interface at all.
		require.Equal(t, 2, strings.Count(text, "went through: -38"), text)
		row(t, "int 0x80", "ENOSYS", 38)
	})
}

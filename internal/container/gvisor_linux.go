package container

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/previewd/previewd/internal/sandbox"
)

// gvisorBackend runs gVisor's runsc over bundles of its own.
type gvisorBackend struct{ Config }

// ociConfig is the part of the OCI runtime specification that is used here.
type (
	ociMount struct {
		Destination string   `json:"destination"`
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		Options     []string `json:"options,omitempty"`
	}
	ociLimit struct {
		Type string `json:"type"`
		Hard int64  `json:"hard"`
		Soft int64  `json:"soft"`
	}
)

func (g *gvisorBackend) start(_ context.Context, s *spec) (machine, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: gVisor needs a server that is root", sandbox.ErrUnavailable)
	}
	runsc, err := exec.LookPath(cmp.Or(g.Runsc, "runsc"))
	if err != nil {
		return nil, fmt.Errorf("%w: cannot find gVisor's program: %w", sandbox.ErrUnavailable, err)
	}
	if runsc, err = filepath.Abs(runsc); err != nil {
		return nil, err
	}
	if err := g.writeBundle(s); err != nil {
		return nil, err
	}
	bounds := ownLimits(s.Limits)
	m := &gvisorMachine{ended: make(chan struct{}), bounds: bounds, words: sandbox.HeadBuffer{Limit: 4 << 10}}
	if m.group, err = sandbox.NewGroup(bounds); err != nil {
		return nil, err
	}
	// Its sockets lie there, and their paths are bounded.
	if m.folder, err = os.MkdirTemp("", g.folderPrefix()); err == nil {
		err = m.start(s, runsc)
	}
	if err != nil {
		m.group.Close()
		os.RemoveAll(m.folder)
		return nil, fmt.Errorf("%w: %w", sandbox.ErrUnavailable, err)
	}
	return m, nil
}

// start starts runsc in its group. Its helper has a network namespace that nothing
// has to be mounted for: a mount would outlive a server that is killed. The kernel
// kills it, and it its children, with the thread that owns it.
func (m *gvisorMachine) start(s *spec, runsc string) error {
	cmd := exec.CommandContext(context.Background(), s.Executable, AgentArg, launchArg,
		runsc, "--root="+m.folder, "--network=none", "--platform=systrap", "--host-uds=open", "--gofer-network-namespace=new", "--ignore-cgroups", "--overlay2=none",
		"--gvisor-marker-file", "--host-settings=ignore", "run", "--bundle="+s.dir, "box-"+rand.Text())
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = []string{}, "/", &m.words, &m.words
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	gate, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	started := make(chan error)
	go func() {
		// The kernel ties the death signal to the thread that started it.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			m.state = cmd.ProcessState
			close(m.ended)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	m.process = cmd.Process
	if err := m.group.Add(cmd.Process.Pid); err != nil {
		gate.Close()
		return err
	}
	_, err = io.WriteString(gate, "\n")
	return errors.Join(err, gate.Close())
}

// rootCapabilities are what the first process needs as gVisor's root: to start
// tasks as their user and end them, and to mount what they write in.
var rootCapabilities = []string{"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL"}

// writeBundle writes what runsc makes the container of.
func (g *gvisorBackend) writeBundle(s *spec) error {
	binds, err := s.mounts()
	if err != nil {
		return err
	}
	mounts := []ociMount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=65536"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"},
	}
	for at, from := range binds {
		mounts = append(mounts, ociMount{at, "bind", from, []string{"ro", "rbind", "nosuid", "nodev"}})
	}
	l := s.Limits
	var limits []ociLimit
	for name, limit := range map[string]int64{"RLIMIT_CORE": 0, "RLIMIT_FSIZE": l.FileSize, "RLIMIT_NOFILE": l.OpenFiles, "RLIMIT_MEMLOCK": 64 << 10} {
		limits = append(limits, ociLimit{name, limit, limit})
	}
	raw, err := json.Marshal(map[string]any{
		"ociVersion": "1.0.2",
		"process": map[string]any{
			"user": map[string]any{"uid": 0, "gid": 0}, "args": []string{agentPath, AgentArg}, "cwd": "/", "noNewPrivileges": true, "rlimits": limits,
			"capabilities": map[string]any{"bounding": rootCapabilities, "effective": rootCapabilities, "permitted": rootCapabilities},
		},
		"root": map[string]any{"path": s.Root, "readonly": true}, "hostname": "build", "mounts": mounts,
		"linux": map[string]any{
			"namespaces": []map[string]string{{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}},
			"resources":  map[string]any{"memory": map[string]any{"limit": l.Memory}, "pids": map[string]any{"limit": l.Processes}},
		},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "config.json"), raw, 0o600)
}

// folderPrefix begins the names of this server's folders for runsc.
func (g *gvisorBackend) folderPrefix() string {
	sum := sha256.Sum256([]byte(g.Owner))
	return fmt.Sprintf("previewd-runsc-%x-", sum[:6])
}

// sweep removes folders. What ran in them has died with its owner.
func (g *gvisorBackend) sweep(context.Context) error {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), g.folderPrefix()+"*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func (g *gvisorBackend) fix(reason string) string {
	switch {
	case strings.Contains(reason, "cannot find gVisor's program"):
		return "Install runsc (CGO_ENABLED=0 go install gvisor.dev/gvisor/runsc@latest), and name it with --runsc. Debian's is too old."
	case strings.Contains(reason, "control group"):
		return "Run previewd where it can make control groups for memory, pids and cpu."
	case strings.Contains(reason, "that is root"):
		return "Run previewd as root, or take --runner sandbox."
	}
	return agentFix(reason)
}

type gvisorMachine struct {
	group   *sandbox.Group
	bounds  sandbox.Limits
	folder  string // runsc's
	state   *os.ProcessState
	process *os.Process
	ended   chan struct{}
	words   sandbox.HeadBuffer

	mu    sync.Mutex
	over  bool
	oom   bool
	final sandbox.Usage
}

func (m *gvisorMachine) dead() <-chan struct{} { return m.ended }

func (m *gvisorMachine) end() {
	_ = m.process.Kill()
	<-m.ended
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over, m.oom, m.final = true, m.group.OutOfMemory(), m.group.Usage()
	m.group.Close()
	os.RemoveAll(m.folder)
}

func (m *gvisorMachine) outOfMemory() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.oom || !m.over && m.group.OutOfMemory()
}

func (m *gvisorMachine) usage() sandbox.Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return m.final
	}
	return m.group.Usage()
}

func (m *gvisorMachine) check(context.Context, sandbox.Limits) []sandbox.Check {
	return []sandbox.Check{m.group.Check(m.bounds)}
}

// said is read once it has ended.
func (m *gvisorMachine) said() string {
	if !isClosed(m.ended) {
		return ""
	}
	return strings.TrimSpace(m.state.String() + " " + m.words.String())
}

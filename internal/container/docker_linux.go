package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/previewd/previewd/internal/sandbox"
)

// labelOwner is on containers, with the name of the server that has made them.
const labelOwner = "previewd.runner"

// dockerBackend makes containers of a Docker Engine.
type dockerBackend struct {
	Config
	engine *engine

	mu     sync.Mutex
	images map[string]bool // of the toolchains whose image is there
}

type dockerMount struct {
	Type, Source, Target string
	ReadOnly             bool
}

type dockerUlimit struct {
	Name       string
	Soft, Hard int64
}

type dockerHostConfig struct {
	NetworkMode, IpcMode, Runtime string
	Memory, MemorySwap, PidsLimit int64
	NanoCPUs, ShmSize             int64
	CPUShares                     int64 `json:"CpuShares"`
	CapDrop, CapAdd, SecurityOpt  []string
	MaskedPaths                   []string
	ReadonlyRootfs                bool
	Init                          bool // false: the engine's own first process would be in the way of ours
	Tmpfs                         map[string]string
	Mounts                        []dockerMount
	Ulimits                       []dockerUlimit
	LogConfig                     map[string]string
}

// maskedPaths are Docker's own, and what tells of the machine's devices.
var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
	"/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices", "/sys/class", "/sys/block", "/sys/bus", "/sys/dev", "/sys/kernel",
	"/sys/module", "/sys/power", "/sys/hypervisor",
}

// start starts a container.
func (d *dockerBackend) start(ctx context.Context, s *spec) (machine, error) {
	host, err := d.hostConfig(s)
	if err != nil {
		return nil, err
	}
	image, err := d.image(ctx, s.Root)
	if err != nil {
		return nil, err
	}
	m := &dockerMachine{engine: d.engine, gvisor: d.gvisor(), ended: make(chan struct{})}
	m.id, err = d.create(ctx, s, image.name, host)
	if isStatus(err, http.StatusNotFound) && !image.once {
		// Somebody has removed the image since it was last looked for.
		d.forget(s.Root)
		if image, err = d.image(ctx, s.Root); err == nil {
			m.id, err = d.create(ctx, s, image.name, host)
		}
	}
	if image.once {
		m.image = image.name
	}
	if err != nil {
		m.removeImage()
		return nil, fmt.Errorf("%w: %w", sandbox.ErrUnavailable, err)
	}
	// A call that is given up half-way would leave a container that nobody knows.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTime)
	defer cancel()
	if err := d.engine.call(ctx, http.MethodPost, "/containers/"+m.id+"/start", nil, nil); err != nil {
		close(m.ended)
		m.end()
		return nil, fmt.Errorf("%w: %w", sandbox.ErrUnavailable, err)
	}
	if m.gvisor {
		m.group, _ = sandbox.GroupOf(m.inspect().Pid)
	}
	go func() {
		defer close(m.ended)
		m.await()
	}()
	return m, nil
}

// create makes a container, which does not run yet.
func (d *dockerBackend) create(ctx context.Context, s *spec, image string, host *dockerHostConfig) (id string, err error) {
	var made struct {
		ID string `json:"Id"`
	}
	agent := fmt.Sprintf("%d:%d", s.agentUID, s.agentUID)
	// As with start: nothing is given up half-way.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTime)
	defer cancel()
	err = d.engine.call(ctx, http.MethodPost, "/containers/create", map[string]any{
		"Image": image, "Entrypoint": []string{agentPath, AgentArg}, "User": agent,
		"Hostname": "build", "Labels": map[string]string{labelOwner: d.Owner}, "HostConfig": host,
	}, &made)
	return made.ID, err
}

func (d *dockerBackend) hostConfig(s *spec) (*dockerHostConfig, error) {
	profile, err := sandbox.SyscallProfile()
	if err != nil {
		return nil, err
	}
	filter, err := json.Marshal(profile)
	if err != nil {
		return nil, err
	}
	mounts, err := s.mounts()
	if err != nil {
		return nil, err
	}
	l := s.Limits
	c := &dockerHostConfig{
		NetworkMode: "none", IpcMode: "private", Runtime: d.Runtime,
		Memory: l.Memory, MemorySwap: l.Memory, PidsLimit: l.Processes, NanoCPUs: int64(l.CPUs) * 10_000_000, CPUShares: 256, ShmSize: shmSize(l),
		CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges", "seccomp=" + string(filter)}, MaskedPaths: maskedPaths,
		ReadonlyRootfs: true, Tmpfs: map[string]string{}, LogConfig: map[string]string{"Type": "none"},
	}
	if d.gvisor() {
		d.leaveToAgent(c, l)
	} else {
		for dir, options := range s.scratch() {
			c.Tmpfs[dir] = "rw,exec,nosuid,nodev," + options
		}
	}
	for inside, outside := range mounts {
		c.Mounts = append(c.Mounts, dockerMount{Type: "bind", Source: outside, Target: inside, ReadOnly: true})
	}
	for name, limit := range map[string]int64{
		"core": 0, "fsize": l.FileSize, "nofile": l.OpenFiles, "memlock": 64 << 10, "msgqueue": 0, "sigpending": 1024,
	} {
		c.Ulimits = append(c.Ulimits, dockerUlimit{name, limit, limit})
	}
	return c, nil
}

// leaveToAgent changes what is different with gVisor: its kernel bounds and filters
// what the first process has it do, and the host sees more of it than the build.
func (d *dockerBackend) leaveToAgent(c *dockerHostConfig, l sandbox.Limits) {
	own := ownLimits(l)
	c.Memory, c.MemorySwap, c.PidsLimit = own.Memory, own.Memory, own.Processes
	c.CapAdd, c.SecurityOpt = rootCapabilities, []string{"no-new-privileges", "seccomp=unconfined"}
}

// sweep removes what a server of this name has left behind, and the images of
// toolchains that are gone.
func (d *dockerBackend) sweep(ctx context.Context) error {
	ids, err := d.engine.containers(ctx, labelOwner+"="+d.Owner)
	for _, id := range ids {
		err = errors.Join(err, d.engine.remove(ctx, id))
	}
	return errors.Join(err, d.sweepImages(ctx))
}

func (d *dockerBackend) fix(reason string) string {
	switch {
	case strings.Contains(reason, "cannot reach the Docker Engine"):
		return "Start the Docker Engine, name its socket with --docker-socket, and let the server's user open it."
	case strings.Contains(strings.ToLower(reason), "unknown runtime") || strings.Contains(reason, "unknown or invalid runtime name"):
		return "Add the runtime to the engine's daemon.json, or leave out --docker-runtime."
	case d.gvisor() && strings.Contains(reason, "has died"):
		return `Let gVisor's containers reach sockets: "runtimeArgs": ["--host-uds=open"] of the runtime in the engine's daemon.json. And build the program with CGO_ENABLED=0.`
	case strings.Contains(reason, "bind source path does not exist"):
		return "The engine must see the server's own folders: run it on the same machine, and the server in no container."
	}
	return agentFix(reason)
}

type dockerMachine struct {
	engine *engine
	id     string
	image  string // that goes with it; "" for one that stays
	gvisor bool
	group  *sandbox.Group // gVisor's; nil where it cannot be seen
	killed atomic.Bool    // by us
	ended  chan struct{}
	state  dockerState // once it has
}

type dockerState struct {
	OOMKilled bool
	ExitCode  int
	Pid       int
	Error     string
}

// await waits until the container has ended, and asks what of.
func (m *dockerMachine) await() {
	_ = m.engine.call(context.Background(), http.MethodPost, "/containers/"+m.id+"/wait", nil, nil)
	m.state = m.inspect()
}

func (m *dockerMachine) inspect() dockerState {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	var info struct{ State dockerState }
	if err := m.engine.call(ctx, http.MethodGet, "/containers/"+m.id+"/json", nil, &info); err != nil {
		info.State.Error = err.Error()
	}
	return info.State
}

func (m *dockerMachine) dead() <-chan struct{} { return m.ended }

// endTime is what the engine may take to end a container.
const endTime = 30 * time.Second

// end kills the container, lets it be asked what it died of, and removes it.
func (m *dockerMachine) end() {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	if !isClosed(m.ended) {
		m.killed.Store(true)
		_ = m.engine.call(ctx, http.MethodPost, "/containers/"+m.id+"/kill", nil, nil) // it may have ended
		select {
		case <-m.ended:
		case <-ctx.Done():
		}
	}
	// However long the kill took.
	rest, enough := context.WithTimeout(context.Background(), endTime)
	defer enough()
	_ = m.engine.remove(rest, m.id) // or the sweep at the next start
	m.removeImage()
}

// outOfMemory reads what gVisor shows nothing of inside from the machine's own
// group; once it is dead only the kernel can have killed it but us.
func (m *dockerMachine) outOfMemory() bool {
	if !isClosed(m.ended) {
		return m.group != nil && m.group.OutOfMemory()
	}
	return m.state.OOMKilled || m.group != nil && m.state.ExitCode == 128+9 && !m.killed.Load()
}

func (m *dockerMachine) usage() (u sandbox.Usage) {
	if m.group != nil {
		u = m.group.Usage()
	}
	return u
}

func (m *dockerMachine) said() string {
	if !isClosed(m.ended) {
		return ""
	}
	return fmt.Sprintf("code %d %s", m.state.ExitCode, m.state.Error)
}

// check asks the engine what it has set.
func (m *dockerMachine) check(ctx context.Context, l sandbox.Limits) []sandbox.Check {
	var info struct {
		HostConfig struct {
			Memory, MemorySwap, PidsLimit int64
			NetworkMode                   string
			ReadonlyRootfs, Privileged    bool
		}
	}
	err := m.engine.call(ctx, http.MethodGet, "/containers/"+m.id+"/json", nil, &info)
	c := info.HostConfig
	if m.gvisor {
		l = ownLimits(l)
	}
	return []sandbox.Check{{
		Name: "memory and processes are bounded",
		OK:   err == nil && c.Memory == l.Memory && c.PidsLimit == l.Processes && c.NetworkMode == "none" && c.ReadonlyRootfs && !c.Privileged,
		Got:  fmt.Sprintf("%d bytes, %d processes", c.Memory, c.PidsLimit),
	}}
}

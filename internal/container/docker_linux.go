package container

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/previewd/previewd/internal/sandbox"
)

// labelOwner is on containers, with the name of the server that has made them.
const labelOwner = "previewd.runner"

const imageRepository = "previewd-toolchain"

// dockerBackend makes containers of a Docker Engine.
type dockerBackend struct {
	Config
	engine *engine

	mu     sync.Mutex
	images map[string]string // of the root file systems that are there
}

// image returns the image of a root file system, which is named after what is in
// it, and makes it if it is not there.
func (d *dockerBackend) image(ctx context.Context, root string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	tag := filepath.Base(root)
	name := imageRepository + ":" + tag
	if d.images[root] != "" {
		return name, nil
	}
	there, err := d.engine.hasImage(ctx, name)
	if err != nil {
		return "", err
	}
	if !there {
		read, write := io.Pipe()
		go func() { write.CloseWithError(packRoot(write, root)) }()
		err = d.engine.importImage(ctx, imageRepository, tag, read)
		read.Close()
		if err != nil {
			return "", err
		}
	}
	d.images[root] = name
	return name, nil
}

// packRoot writes a root file system as a tar in which all is root's.
func packRoot(w io.Writer, root string) error {
	archive := tar.NewWriter(w)
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, name)
		if err != nil || below == "." {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		header := &tar.Header{Name: filepath.ToSlash(below), Mode: int64(info.Mode().Perm()), ModTime: time.Unix(0, 0)}
		switch entry.Type() {
		case fs.ModeDir:
			header.Typeflag = tar.TypeDir
			header.Name += "/"
		case fs.ModeSymlink:
			header.Typeflag = tar.TypeSymlink
			header.Linkname, err = os.Readlink(name)
		case 0:
			header.Typeflag, header.Size = tar.TypeReg, info.Size()
		default:
			return nil
		}
		if err == nil {
			err = archive.WriteHeader(header)
		}
		if err != nil || header.Typeflag != tar.TypeReg {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(archive, f)
		return err
	})
	return errors.Join(err, archive.Close())
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
	image, err := d.image(ctx, s.Root)
	if err != nil {
		return nil, err
	}
	host, err := d.hostConfig(s)
	if err != nil {
		return nil, err
	}
	var made struct {
		ID string `json:"Id"`
	}
	agent := fmt.Sprintf("%d:%d", s.agentUID, s.agentUID)
	// A call that is given up half-way would leave a container that nobody knows.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTime)
	defer cancel()
	err = d.engine.call(ctx, http.MethodPost, "/containers/create", map[string]any{
		"Image": image, "Entrypoint": []string{agentPath, AgentArg}, "User": agent,
		"Hostname": "build", "Labels": map[string]string{labelOwner: d.Owner}, "HostConfig": host,
	}, &made)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", sandbox.ErrUnavailable, err)
	}
	m := &dockerMachine{engine: d.engine, id: made.ID, gvisor: d.gvisor(), ended: make(chan struct{})}
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

// sweep removes what a server of this name has left behind.
func (d *dockerBackend) sweep(ctx context.Context) error {
	ids, err := d.engine.containers(ctx, labelOwner+"="+d.Owner)
	for _, id := range ids {
		err = errors.Join(err, d.engine.remove(ctx, id))
	}
	return err
}

func (d *dockerBackend) fix(reason string) string {
	switch {
	case strings.Contains(reason, "cannot reach the Docker Engine"):
		return "Start the Docker Engine, name its socket with --docker-socket, and let the server's user open it."
	case strings.Contains(strings.ToLower(reason), "unknown runtime") || strings.Contains(reason, "unknown or invalid runtime name"):
		return "Add the runtime to the engine's daemon.json, or leave out --docker-runtime."
	case strings.Contains(reason, "bind source path does not exist"):
		return "The engine must see the server's own folders: run it on the same machine, and the server in no container."
	}
	return agentFix(reason)
}

type dockerMachine struct {
	engine *engine
	id     string
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
	_ = m.engine.remove(ctx, m.id) // or the sweep at the next start
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
func (m *dockerMachine) check(l sandbox.Limits) []sandbox.Check {
	var info struct {
		HostConfig struct {
			Memory, MemorySwap, PidsLimit int64
			NetworkMode                   string
			ReadonlyRootfs, Privileged    bool
		}
	}
	err := m.engine.call(context.Background(), http.MethodGet, "/containers/"+m.id+"/json", nil, &info)
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

package sandbox

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// group is the control group of a box: one folder in version 2 of the kernel's
// interface, one for each controller in version 1. A nil group bounds nothing.
type group struct {
	v2   bool
	dirs map[string]string // by controller; "" in version 2
}

const cgroupRoot = "/sys/fs/cgroup"

var groupCount atomic.Int64

// newGroup makes a group with limits below the one that this process is in.
func newGroup(limits Limits) (g *group, err error) {
	parent, err := ownGroups()
	if err != nil {
		return nil, fmt.Errorf("cannot bound what builds take, for want of a control group: %w", err)
	}
	g = &group{v2: parent[""] != "", dirs: map[string]string{}}
	// Two servers in containers may have the same number.
	name := fmt.Sprintf("previewd-%d-%d-%s", os.Getpid(), groupCount.Add(1), rand.Text()[:8])
	for controller, parent := range parent {
		dir := filepath.Join(parent, name)
		if err = os.Mkdir(dir, 0o755); err != nil {
			break
		}
		g.dirs[controller] = dir
	}
	if err == nil {
		err = g.limit(limits)
	}
	if err != nil {
		g.remove()
		return nil, fmt.Errorf("cannot bound what builds take in a control group: %w", err)
	}
	return g, nil
}

func (g *group) limit(l Limits) error {
	if g.v2 {
		return errors.Join(
			g.write("", "memory.max", l.Memory), g.writeIfThere("", "memory.swap.max", 0), g.write("", "memory.oom.group", 1),
			g.write("", "pids.max", l.Processes), g.writeText("", "cpu.max", fmt.Sprintf("%d 100000", l.CPUs*1000)))
	}
	return errors.Join(
		g.write("memory", "memory.limit_in_bytes", l.Memory), g.writeIfThere("memory", "memory.memsw.limit_in_bytes", l.Memory),
		g.writeIfThere("memory", "memory.kmem.tcp.limit_in_bytes", l.Memory/8),
		g.write("pids", "pids.max", l.Processes),
		g.write("cpu", "cpu.cfs_period_us", 100_000), g.write("cpu", "cpu.cfs_quota_us", int64(l.CPUs)*1000), g.write("cpu", "cpu.shares", 256))
}

func (g *group) write(controller, file string, value int64) error {
	return g.writeText(controller, file, strconv.FormatInt(value, 10))
}

func (g *group) writeText(controller, file, value string) error {
	return os.WriteFile(filepath.Join(g.dirs[controller], file), []byte(value), 0o600)
}

// writeIfThere is write for what a kernel without swap has not.
func (g *group) writeIfThere(controller, file string, value int64) error {
	if err := g.write(controller, file, value); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// own are this process's groups; finding them may move it, so it is done once.
var own struct {
	once   sync.Once
	groups map[string]string
	err    error
}

// ownGroups returns the folders in which groups can be made: "" in version 2,
// else memory, pids, cpu and cpuacct.
func ownGroups() (map[string]string, error) {
	own.once.Do(func() { own.groups, own.err = findOwnGroups() })
	return own.groups, own.err
}

func findOwnGroups() (map[string]string, error) {
	raw, err := os.ReadFile("/proc/self/cgroup") // cgroups(7): number:controllers:path
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			paths[controller] = parts[2]
		}
	}
	controllers, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err == nil && strings.Contains(string(controllers), "memory") {
		dir, err := delegated(filepath.Join(cgroupRoot, paths[""]))
		return map[string]string{"": dir}, err
	}
	groups := map[string]string{}
	for _, controller := range []string{"memory", "pids", "cpu", "cpuacct"} {
		dir := filepath.Join(cgroupRoot, controller, paths[controller])
		if _, err := os.Stat(dir); err != nil {
			dir = filepath.Join(cgroupRoot, controller) // in a container that sees no further
		}
		groups[controller] = dir
	}
	return groups, sweepGroups(groups)
}

// delegated has a group of version 2 give its controllers to the groups below.
// Only a group without processes can, so this one moves into one of its own.
func delegated(dir string) (string, error) {
	give := func() error {
		return os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory +pids +cpu"), 0o600)
	}
	if give() != nil {
		leaf := filepath.Join(dir, "previewd")
		if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0o600); err != nil {
			return "", err
		}
		if err := give(); err != nil {
			return "", err
		}
	}
	return dir, sweepGroups(map[string]string{"": dir})
}

// sweepGroups removes what processes that were killed have left behind. Their
// boxes have died with them.
func sweepGroups(parents map[string]string) error {
	for _, dir := range parents {
		left, err := filepath.Glob(filepath.Join(dir, "previewd-*"))
		if err != nil {
			return err
		}
		for _, group := range left {
			// One with processes stays, and one that another server has just made and
			// is about to use.
			if info, err := os.Stat(group); err == nil && time.Since(info.ModTime()) > time.Minute {
				_ = unix.Rmdir(group)
			}
		}
	}
	return nil
}

// add puts a process into the group, and so all that it will start.
func (g *group) add(pid int) error {
	for controller := range g.dirs {
		if err := g.write(controller, "cgroup.procs", int64(pid)); err != nil {
			return fmt.Errorf("cannot put a build into its control group: %w", err)
		}
	}
	return nil
}

// groupEvents count what the bounds have done.
type groupEvents struct{ killed, refused int64 }

func (g *group) events() (e groupEvents) {
	switch {
	case g == nil:
	case g.v2:
		e.killed, e.refused = g.field("", "memory.events", "oom_kill"), g.field("", "pids.events", "max")
	default:
		e.killed, e.refused = g.field("memory", "memory.oom_control", "oom_kill"), g.field("pids", "pids.events", "max")
	}
	return e
}

// field reads a number of a file of names with numbers; name "" is a file of one
// number.
func (g *group) field(controller, file, name string) int64 {
	raw, _ := os.ReadFile(filepath.Join(g.dirs[controller], file))
	for line := range strings.Lines(string(raw)) {
		words := strings.Fields(line)
		if name == "" || len(words) == 2 && words[0] == name {
			n, _ := strconv.ParseInt(words[len(words)-1], 10, 64)
			return n
		}
	}
	return 0
}

func (g *group) usage() Usage {
	switch {
	case g == nil:
		return Usage{}
	case g.v2:
		return Usage{
			CPU:    time.Duration(g.field("", "cpu.stat", "usage_usec")) * time.Microsecond,
			Memory: g.field("", "memory.peak", ""),
		}
	}
	return Usage{CPU: time.Duration(g.field("cpuacct", "cpuacct.usage", "")), Memory: g.field("memory", "memory.max_usage_in_bytes", "")}
}

// check tells whether the bounds are as they were set.
func (g *group) check(l Limits) Check {
	if g == nil {
		return Check{Name: "memory and processes are bounded", OK: true, Got: "no, and that was allowed"}
	}
	memory, pids := g.field("memory", "memory.limit_in_bytes", ""), g.field("pids", "pids.max", "")
	if g.v2 {
		memory, pids = g.field("", "memory.max", ""), g.field("", "pids.max", "")
	}
	return Check{
		Name: "memory and processes are bounded", OK: memory <= l.Memory && memory > 0 && pids == l.Processes,
		Got: fmt.Sprintf("%d bytes, %d processes", memory, pids),
	}
}

// remove removes the group. Its processes are dead, and leave it within
// milliseconds.
func (g *group) remove() {
	if g == nil {
		return
	}
	for _, dir := range g.dirs {
		for wait := time.Millisecond; wait < time.Second; wait *= 2 {
			if err := unix.Rmdir(dir); err == nil || errors.Is(err, unix.ENOENT) {
				break
			}
			time.Sleep(wait)
		}
	}
}

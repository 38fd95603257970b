package sandbox

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
			g.write("", "pids.max", l.Processes), g.limitCPU(l))
	}
	return errors.Join(
		g.write("memory", "memory.limit_in_bytes", l.Memory), g.writeIfThere("memory", "memory.memsw.limit_in_bytes", l.Memory),
		g.writeIfThere("memory", "memory.kmem.tcp.limit_in_bytes", l.Memory/8),
		g.write("pids", "pids.max", l.Processes), g.limitCPU(l))
}

// limitCPU bounds the CPU, and lets everything else on the machine go first.
func (g *group) limitCPU(l Limits) error {
	switch {
	case l.CPUs == 0:
		return nil
	case g.v2:
		return errors.Join(g.writeText("", "cpu.max", fmt.Sprintf("%d 100000", l.CPUs*1000)), g.write("", "cpu.weight", 25)) // of 100, as 256 of 1024 below
	}
	return errors.Join(
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

// own are this process's groups; finding them may move it, so it is done once. What
// has kept it from finding them may have gone the next time.
var own struct {
	sync.Mutex
	groups map[string]string
}

// ownGroups returns the folders in which groups can be made: "" in version 2,
// else memory, pids, cpu and cpuacct.
func ownGroups() (map[string]string, error) {
	own.Lock()
	defer own.Unlock()
	if own.groups == nil {
		groups, err := findOwnGroups()
		if err != nil {
			return nil, err
		}
		own.groups = groups
	}
	return own.groups, nil
}

func findOwnGroups() (map[string]string, error) {
	paths, err := groupPaths("self")
	if err != nil {
		return nil, err
	}
	controllers, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err == nil && strings.Contains(string(controllers), "memory") {
		// In a container the path can lead out of what is mounted.
		dir, err := delegated(filepath.Join(cgroupRoot, filepath.Clean("/"+paths[""])))
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

// delegated returns the group of version 2 below which groups can be made: this
// process's own, or else the nearest above that has its controllers given away, as
// when a server is started by hand beside a shell, or by another server.
func delegated(own string) (string, error) {
	failed := giveControllers(own)
	for dir := own; failed != nil && dir != cgroupRoot; {
		dir = filepath.Dir(dir)
		if unix.Access(dir, unix.W_OK) != nil {
			continue
		}
		// At the top it takes nothing from anybody.
		if givesControllers(dir) || dir == cgroupRoot && writeControllers(dir) == nil {
			own, failed = dir, nil
		}
	}
	if failed != nil {
		return "", failed
	}
	return own, sweepGroups(map[string]string{"": own})
}

func writeControllers(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory +pids +cpu"), 0o600)
}

func givesControllers(dir string) bool {
	raw, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	given := strings.Fields(string(raw))
	return err == nil && slices.Contains(given, "memory") && slices.Contains(given, "pids") && slices.Contains(given, "cpu")
}

// giveControllers has a group give its controllers to the groups below. Only one
// without processes can, so those of this server move into one of their own; it
// takes nobody else's along.
func giveControllers(dir string) error {
	err := writeControllers(dir)
	leaf := filepath.Join(dir, "previewd")
	for range 10 { // a child may be born meanwhile
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		members, readErr := groupMembers(dir)
		if readErr != nil {
			return readErr
		}
		if i := slices.IndexFunc(members, func(pid int) bool { return !isOwn(pid) }); i >= 0 {
			return fmt.Errorf("process %d is in %s, and none of this server's: %w", members[i], dir, err)
		}
		if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		// This process goes first, and then all that it starts is born there.
		for _, pid := range append([]int{os.Getpid()}, members...) {
			moved := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600)
			if moved != nil && !errors.Is(moved, unix.ESRCH) {
				return moved
			}
		}
		err = writeControllers(dir)
	}
	return err
}

// groupMembers returns the processes in a group; 0 is one that cannot be seen
// from here.
func groupMembers(dir string) (pids []int, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for line := range strings.Lines(string(raw)) {
		pid, _ := strconv.Atoi(strings.TrimSpace(line))
		pids = append(pids, pid)
	}
	return pids, err
}

// isOwn reports whether a process is this one, comes from it, or is over.
func isOwn(pid int) bool {
	for pid > 1 {
		if pid == os.Getpid() {
			return true
		}
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
		}
		// pid (name) state parent …; the name can hold anything.
		fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
		pid, _ = strconv.Atoi(fields[1])
	}
	return pid == os.Getpid()
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
	if g == nil {
		return nil
	}
	for controller := range g.dirs {
		if err := g.write(controller, "cgroup.procs", int64(pid)); err != nil {
			return fmt.Errorf("cannot put a build into its control group: %w", err)
		}
	}
	return nil
}

// GroupEvents count what the bounds of a group have done.
type GroupEvents struct {
	Killed  int64 // processes, for their memory
	Refused int64 // starts of processes
}

func (g *group) events() (e GroupEvents) {
	switch {
	case g == nil:
	case g.v2:
		e.Killed, e.Refused = g.field("", "memory.events", "oom_kill"), g.field("", "pids.events", "max")
	default:
		e.Killed, e.Refused = g.field("memory", "memory.oom_control", "oom_kill"), g.field("pids", "pids.events", "max")
	}
	return e
}

// pids returns the controller of processes.
func (g *group) pids() string {
	if g.v2 {
		return ""
	}
	return "pids"
}

// field reads a number of a file of names with numbers; name "" is a file of one
// number. It is 0 where there is none.
func (g *group) field(controller, file, name string) int64 {
	raw, _ := os.ReadFile(filepath.Join(g.dirs[controller], file))
	for line := range strings.Lines(string(raw)) {
		words := strings.Fields(line)
		if len(words) == 1 && name == "" || len(words) == 2 && words[0] == name {
			n, _ := strconv.ParseInt(words[len(words)-1], 10, 64)
			return n
		}
	}
	return 0
}

func (g *group) outOfMemory() bool { return g.events().Killed > 0 }

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
	memory, pids := g.field("memory", "memory.limit_in_bytes", ""), g.field(g.pids(), "pids.max", "")
	if g.v2 {
		memory = g.field("", "memory.max", "")
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

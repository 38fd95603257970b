package sandbox

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Group bounds what a box takes that somebody else's program makes.
type Group struct{ group *group }

// NewGroup makes one. It returns an error that wraps ErrUnavailable where it
// cannot.
func NewGroup(limits Limits) (*Group, error) {
	g, err := newGroup(limits)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return &Group{g}, nil
}

// GroupOf returns the group that somebody else has put a process into, to look at.
func GroupOf(pid int) (*Group, error) {
	paths, err := groupPaths(pid)
	if err != nil {
		return nil, err
	}
	if path, ok := paths["memory"]; ok {
		return &Group{&group{dirs: map[string]string{
			"memory": filepath.Join(cgroupRoot, "memory", path), "cpuacct": filepath.Join(cgroupRoot, "cpuacct", paths["cpuacct"]),
		}}}, nil
	}
	return &Group{&group{v2: true, dirs: map[string]string{"": filepath.Join(cgroupRoot, paths[""])}}}, nil
}

// groupPaths returns the groups that a process is in, by controller: cgroups(7).
func groupPaths(pid int) (map[string]string, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
			for controller := range strings.SplitSeq(parts[1], ",") {
				paths[controller] = parts[2]
			}
		}
	}
	return paths, nil
}

// Add puts a process into the group, and so all that it will start.
func (g *Group) Add(pid int) error { return g.group.add(pid) }

// OutOfMemory reports whether the kernel has killed a process for its memory.
func (g *Group) OutOfMemory() bool { return g.group.events().killed > 0 }

// Usage returns what the group has taken.
func (g *Group) Usage() Usage { return g.group.usage() }

// Check tells whether the bounds are as they were set.
func (g *Group) Check(l Limits) Check { return g.group.check(l) }

// Close kills all that is in the group and removes it.
func (g *Group) Close() {
	dir := cmp.Or(g.group.dirs[""], g.group.dirs["pids"])
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		raw, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		pids := strings.Fields(string(raw))
		for _, pid := range pids {
			if n, err := strconv.Atoi(pid); err == nil {
				_ = unix.Kill(n, unix.SIGKILL)
			}
		}
		if len(pids) == 0 {
			break
		}
	}
	g.group.remove()
}

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
	paths, err := groupPaths(strconv.Itoa(pid))
	if err != nil {
		return nil, err
	}
	_, v1 := paths["memory"]
	return &Group{groupAt(paths, !v1)}, nil
}

// GroupInside returns the group of the container that this process runs in, to look
// at. Not every runtime shows one, and all counts are 0 then.
func GroupInside() *Group {
	_, err := os.Stat(filepath.Join(cgroupRoot, "memory.events"))
	return &Group{groupAt(nil, err == nil)}
}

// groupAt returns the group with these paths, by controller.
func groupAt(paths map[string]string, v2 bool) *group {
	if v2 {
		return &group{v2: true, dirs: map[string]string{"": filepath.Join(cgroupRoot, paths[""])}}
	}
	g := &group{dirs: map[string]string{}}
	for _, controller := range []string{"memory", "pids", "cpuacct"} {
		g.dirs[controller] = filepath.Join(cgroupRoot, controller, paths[controller])
	}
	return g
}

// groupPaths returns the groups that a process is in, by controller. Its name in
// /proc is a number, or self.
func groupPaths(process string) (map[string]string, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", process, "cgroup")) // cgroups(7): number:controllers:path
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
func (g *Group) OutOfMemory() bool { return g.group.outOfMemory() }

// Events count what the bounds of the group have done so far.
func (g *Group) Events() GroupEvents { return g.group.events() }

// Processes returns how many are in the group.
func (g *Group) Processes() int64 { return g.group.field(g.group.pids(), "pids.current", "") }

// MaxProcesses returns how many may be, 0 where nobody says, and whether Events count
// how often one more was refused.
func (g *Group) MaxProcesses() (most int64, counted bool) {
	_, err := os.Stat(filepath.Join(g.group.dirs[g.group.pids()], "pids.events"))
	return g.group.field(g.group.pids(), "pids.max", ""), err == nil
}

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

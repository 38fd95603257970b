package container

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/previewd/previewd/internal/sandbox"
)

// counters are what the kernel counts for the container, as it is shown inside.
// Not every runtime shows them.
type counters struct{ v2 bool }

const groupDir = "/sys/fs/cgroup/"

type counted struct{ killed, refused int64 }

func newCounters() *counters {
	_, err := os.Stat(groupDir + "memory.events")
	return &counters{v2: err == nil}
}

func (c *counters) events() counted {
	if c.v2 {
		return counted{number("memory.events", "oom_kill"), number("pids.events", "max")}
	}
	return counted{number("memory/memory.oom_control", "oom_kill"), number("pids/pids.events", "max")}
}

func (c *counters) usage() sandbox.Usage {
	if c.v2 {
		return sandbox.Usage{CPU: time.Duration(number("cpu.stat", "usage_usec")) * time.Microsecond, Memory: number("memory.peak", "")}
	}
	return sandbox.Usage{CPU: time.Duration(number("cpuacct/cpuacct.usage", "")), Memory: number("memory/memory.max_usage_in_bytes", "")}
}

// number reads a number of a file of names with numbers; name "" is a file of one
// number. It is 0 where there is none.
func number(file, name string) int64 {
	raw, _ := os.ReadFile(groupDir + file)
	for line := range strings.Lines(string(raw)) {
		words := strings.Fields(line)
		if len(words) == 1 && name == "" || len(words) == 2 && words[0] == name {
			n, _ := strconv.ParseInt(words[len(words)-1], 10, 64)
			return n
		}
	}
	return 0
}

// watch begins to look whether the bound on processes is met, or nearly so, where
// the kernel does not count how often it was: gVisor's. The result ends that and
// tells. It may miss what lasts a moment.
func (c *counters) watch() (met func() bool) {
	bound := number("pids/pids.max", "")
	if _, err := os.Stat(groupDir + "pids/pids.events"); err == nil || bound == 0 {
		return func() bool { return false }
	}
	stop, seen := make(chan struct{}), make(chan bool)
	go func() {
		every := time.NewTicker(5 * time.Millisecond)
		defer every.Stop()
		full := false
		for {
			select {
			case <-stop:
				seen <- full
				return
			case <-every.C:
				full = full || number("pids/pids.current", "") >= bound-bound/16
			}
		}
	}()
	return func() bool {
		close(stop)
		return <-seen
	}
}

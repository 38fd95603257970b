package runner

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/previewd/previewd"
)

var (
	heapFull = regexp.MustCompile(`(?m)^.*JavaScript heap out of memory`)
	diskFull = regexp.MustCompile(`(?m)^.*(?:[Nn]o space left on device|\bEDQUOT\b|[Dd]isk quota exceeded)`)
)

func (d *diagnosis) memory() *previewd.Failure {
	found := d.find(heapFull)
	if found == nil {
		return nil
	}
	return d.fail(previewd.FailOOM, d.command()+" ran out of memory: the heap of Node.js is full.",
		"Build less at once: split large modules, leave source maps out, or send data along instead of computing it.", found["rest"])
}

func (d *diagnosis) disk() *previewd.Failure {
	found := d.find(diskFull)
	if found == nil {
		return nil
	}
	return d.fail(previewd.FailDiskLimit, d.command()+" has filled the disk space that a build may use.",
		"Remove packages that are not needed, and let the build write less.", found["rest"])
}

func (d *diagnosis) unreachableRegistry() *previewd.Failure {
	if !d.unreachable {
		return nil
	}
	f := d.unexplained()
	f.Code, f.Message = previewd.FailRegistryUnreachable, "The package registry could not be reached while packages were installed."
	f.Hint = "It is not your source's fault. Try again later."
	return f
}

var (
	hostFailures = []*regexp.Regexp{
		regexp.MustCompile(`(?m)^.*\b(?:ENOTFOUND|EAI_AGAIN) (?P<host>[\w.-]+)`),
		regexp.MustCompile(`(?m)^.*\bENETUNREACH (?P<host>[\w.:-]+)`),
		regexp.MustCompile(`(?m)^.*[Cc]ould not resolve host: (?P<host>[\w.-]+)`),
		regexp.MustCompile(`(?m)^.*so Next\.js can reach (?P<host>[\w.-]*\w)`),
		regexp.MustCompile("(?m)^.*Failed to fetch `?[^`\n]{1,100}`? from (?P<host>Google Fonts)"),
	}
	noHost = regexp.MustCompile(`\b(?:ENETUNREACH|EAI_AGAIN|ENOTFOUND)\b`)
)

// offline tells of a command whose output says that it wanted the network.
func (d *diagnosis) offline() *previewd.Failure {
	if found := d.find(hostFailures...); found != nil {
		return d.blocked(found["host"], found["rest"])
	}
	if found := d.find(noHost); found != nil {
		return d.blocked(d.deniedHosts(), found["rest"])
	}
	return nil
}

// denial tells of a command that was not let to a host, when nothing tells better
// why it failed.
func (d *diagnosis) denial() *previewd.Failure {
	if len(d.denied) == 0 {
		return nil
	}
	return d.blocked(d.deniedHosts(), d.unexplained().Excerpt)
}

func (d *diagnosis) deniedHosts() string {
	hosts := slices.Clone(d.denied[:min(3, len(d.denied))])
	for i, host := range hosts {
		hosts[i] = clip(host, 200)
	}
	return strings.Join(hosts, ", ")
}

func (d *diagnosis) blocked(host, rest string) *previewd.Failure {
	if host == "" {
		host = "a host"
	}
	message := fmt.Sprintf("%s wanted to reach %s, but builds have no network.", d.command(), host)
	hint := "Send what is fetched along as files, or fetch it in the browser."
	if script, ok := d.script(); ok {
		message = fmt.Sprintf("The install script of %s wanted to reach %s, but builds have no network.", script.name, host)
		hint = "Use a version of the package that brings its files along, or another package."
	}
	return d.fail(previewd.FailNetworkBlocked, message, hint, rest)
}

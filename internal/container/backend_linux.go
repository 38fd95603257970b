package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/previewd/previewd/internal/sandbox"
)

// maker makes containers.
type maker interface {
	start(ctx context.Context, s *spec) (machine, error)
	sweep(ctx context.Context) error
	fix(reason string) string
}

// Backend makes boxes of containers.
type Backend struct {
	Config
	maker
}

// New returns what makes boxes as configured. Whether it can, Probe tells.
func New(cfg Config) (*Backend, error) {
	b := &Backend{Config: cfg}
	switch cfg.Kind {
	case Docker:
		b.maker = &dockerBackend{Config: cfg, engine: newEngine(cfg.Socket), images: map[string]bool{}}
	case GVisor:
		b.maker = &gvisorBackend{Config: cfg}
	default:
		return nil, fmt.Errorf("no containers of the kind %q", cfg.Kind)
	}
	return b, nil
}

// Sweep ends and removes what an earlier process of the same owner has left.
func (b *Backend) Sweep(ctx context.Context) error { return b.sweep(ctx) }

// Probe opens a box and has it check itself.
func (b *Backend) Probe(ctx context.Context, cfg sandbox.BoxConfig) sandbox.Report {
	refused := func(err error) sandbox.Report {
		return sandbox.Report{Level: sandbox.LevelProcess, Reason: err.Error(), Fix: b.fix(err.Error())}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // the first time an image is made
	defer cancel()
	hidden, err := os.CreateTemp("", "previewd-probe-")
	if err != nil {
		return refused(err)
	}
	defer os.Remove(hidden.Name())
	defer hidden.Close()
	began := time.Now()
	cfg.Source = strings.NewReader("")
	box, err := b.Open(ctx, cfg)
	if err != nil {
		return refused(err)
	}
	defer box.Close()
	report := sandbox.Report{Level: sandbox.LevelNamespace, Start: time.Since(began)}
	defer context.AfterFunc(ctx, box.stop)()
	if _, err := box.link.ask(request{Op: opProbe, Hidden: hidden.Name()}); err != nil {
		return refused(err)
	}
	answer, err := box.link.answer()
	if err != nil {
		return refused(box.broken(ctx, err))
	}
	if answer.GVisor {
		report.Level = sandbox.LevelGVisor
	}
	checks := slices.Concat(answer.Checks, box.machine.check(ctx, cfg.Limits))
	if b.gvisor() {
		checks = append(checks, sandbox.Check{Name: "the kernel is gVisor's", OK: answer.GVisor})
	}
	report.Judge("container", checks)
	return report
}

// agentFix tells of a program that cannot run in the toolchain's root.
func agentFix(reason string) string {
	if strings.Contains(reason, agentPath) || strings.Contains(reason, "has died") {
		return "The program itself is the container's first process: build it with CGO_ENABLED=0, so that it needs no libraries."
	}
	return ""
}

// identity is what is in etc/passwd and etc/group of a container.
const (
	identityUsers  = "root:x:0:0:root:/:/bin/sh\nbuild:x:%[1]d:%[1]d:build:/home/build:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	identityGroups = "root:x:0:\nbuild:x:%d:\nnogroup:x:65534:\n"
)

// mounts lists what a container has of the host, by where it has it: read-only.
func (s *spec) mounts() (map[string]string, error) {
	executable, err := filepath.EvalSymlinks(s.Executable)
	if err != nil {
		return nil, fmt.Errorf("cannot find the program: %w", err)
	}
	passwd, group := filepath.Join(s.dir, "passwd"), filepath.Join(s.dir, "group")
	err = errors.Join(
		os.WriteFile(passwd, fmt.Appendf(nil, identityUsers, s.uid), 0o644), os.WriteFile(group, fmt.Appendf(nil, identityGroups, s.uid), 0o644))
	if err != nil {
		return nil, err
	}
	mounts := map[string]string{agentPath: executable, linkDir: s.linkDir(), "/etc/passwd": passwd, "/etc/group": group}
	// An engine puts files of its own there, which tell of the host's network.
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		if _, err := os.Stat(s.Root + name); err == nil {
			mounts[name] = s.Root + name
		}
	}
	if s.Modules != "" {
		mounts[modulesDir] = s.Modules
	}
	return mounts, nil
}

// scratch lists what is written in, with the options of each file system. The
// bound on the workspace's is the build's; each of the others has a part as large
// of its own, for containers cannot have one that shows in several places.
func (s *spec) scratch() map[string]string {
	option := func(part int64) string {
		return fmt.Sprintf("size=%d,nr_inodes=%d,mode=755,uid=%d,gid=%d", s.Limits.Disk/part, s.Limits.Inodes/part, s.uid, s.uid)
	}
	return map[string]string{sandbox.Workspace: option(1), sandbox.Home: option(2), sandbox.TempDir: option(2)}
}

func shmSize(l sandbox.Limits) int64 { return min(64<<20, l.Disk/4) }

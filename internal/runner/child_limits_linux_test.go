package runner

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/sandbox"
)

// A child of a build has no network but a loopback of its own, and its memory is
// bounded: this test's own program plays it.
func TestChildrenAreApart(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	ours, err := os.Readlink("/proc/self/ns/net")
	require.NoError(t, err)
	limits := childLimits
	limits.Memory = 64 << 20
	run := func(script string) (sandbox.Exit, string) {
		t.Helper()
		out := &sandbox.HeadBuffer{Limit: 1 << 10}
		exit, err := sandbox.Run(context.WithoutCancel(t.Context()), sandbox.Command{
			Path: "/bin/sh", Args: []string{"-c", "cat >/dev/null; " + script}, Stdin: strings.NewReader("its request"), Dir: "/", Stdout: out, Stderr: out, Limits: &limits, Env: []string{"PATH=/usr/bin:/bin"},
		})
		require.NoError(t, err)
		return exit, strings.TrimSpace(out.String())
	}
	exit, theirs := run("readlink /proc/self/ns/net")
	require.Zero(t, exit.Code, theirs)
	if ours == theirs {
		t.Skip("SKIPPED: this kernel lets the user of the test have no namespaces")
	}
	exit, said := run("cat /proc/net/dev /proc/net/route | grep -c 'eth\\|veth\\|docker'; exec 3<>/dev/tcp/127.0.0.1/" + strings.Split(listener.Addr().String(), ":")[1])
	require.NotZero(t, exit.Code, said)
	require.True(t, strings.HasPrefix(said, "0"), said)

	exit, said = run("grep -q previewd- /proc/self/cgroup || exit 3; x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}")
	if exit.Code == 3 {
		t.Skip("SKIPPED: there are no control groups to be had: " + said)
	}
	require.NotZero(t, exit.Code, said)
	require.True(t, exit.OutOfMemory, said)
}

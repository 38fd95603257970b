//go:build linux

package container_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/container"
	"github.com/previewd/previewd/internal/sandbox"
)

const roleOwner = "owner-of-a-box" // of a test's child

// ownerSpec is what that child makes its box of.
type ownerSpec struct {
	Config container.Config
	Box    sandbox.BoxConfig
}

// A box dies with its owner, whatever that dies of, and the next one of its name
// removes what is left.
func TestBoxDiesWithItsOwner(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b *bench) {
		cfg := b.config(t)
		cfg.Source = nil
		raw, err := json.Marshal(ownerSpec{b.Config, cfg})
		require.NoError(t, err)
		owner := exec.Command("/proc/self/exe", roleOwner, string(raw))
		out, err := owner.StdoutPipe()
		require.NoError(t, err)
		owner.Stderr = t.Output()
		require.NoError(t, owner.Start())
		t.Cleanup(func() {
			_ = owner.Process.Kill()
			_ = owner.Wait()
		})
		line := make([]byte, 6)
		_, err = io.ReadFull(out, line)
		require.NoError(t, err)
		require.Equal(t, "alive\n", string(line))
		mark := "previewd-container-" + strconv.Itoa(owner.Process.Pid)
		if b.name == "docker" {
			require.NotEmpty(t, processesWith(t, mark))
		}
		inside := b.containers(t)
		if b.Kind == container.Docker {
			require.Len(t, inside, 1)
		} else {
			require.NotEmpty(t, processesWith(t, cfg.WorkDir))
		}
		began := time.Now()
		require.NoError(t, owner.Process.Signal(syscall.SIGKILL))
		_ = owner.Wait()
		for len(processesWith(t, mark))+len(processesWith(t, cfg.WorkDir)) > 0 || b.running(t) > 0 {
			require.Less(t, time.Since(began), 20*time.Second, "left: %v %v, %d containers", processesWith(t, mark), processesWith(t, cfg.WorkDir), b.running(t))
			time.Sleep(20 * time.Millisecond)
		}
		row(t, "owner killed", "nothing runs on", fmt.Sprintf("%d ms", time.Since(began).Milliseconds()))
		require.NoError(t, b.Sweep(t.Context()))
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		require.NotContains(t, string(mounts), "previewd-runsc-", "a mount is left")
		require.Empty(t, b.containers(t))
	})
}

// ownBox is the test's child: it says when its box is alive, and waits.
func ownBox(args []string) {
	var s ownerSpec
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	backend, err := container.New(s.Config)
	if err == nil {
		s.Box.Source = bytes.NewReader(make([]byte, 1024))
		var box *container.Box
		if box, err = backend.Open(context.Background(), s.Box); err == nil {
			mark := "previewd-container-" + strconv.Itoa(os.Getpid())
			_, err = box.Run(context.Background(), sandbox.Task{
				Argv: sh("sleep 301 & sleep 302 & sh -c 'sleep 303 & sleep 303' & echo alive; while :; do sleep 304; done # " + mark), Env: append(env, "MARK="+mark), Output: os.Stdout,
			})
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// engineContainers asks the engine itself.
func (b *bench) engineContainers(t *testing.T, all bool) (ids []string) {
	t.Helper()
	if b.Kind != container.Docker {
		return nil
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", b.Socket)
	}}}
	r, err := client.Get("http://docker/containers/json?all=" + strconv.FormatBool(all))
	require.NoError(t, err)
	defer r.Body.Close()
	var list []struct {
		ID     string
		Labels map[string]string
	}
	require.NoError(t, json.NewDecoder(r.Body).Decode(&list))
	for _, c := range list {
		if c.Labels["previewd.runner"] == b.Owner {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func (b *bench) containers(t *testing.T) []string { return b.engineContainers(t, true) }
func (b *bench) running(t *testing.T) int         { return len(b.engineContainers(t, false)) }

// processesWith lists this machine's processes that have a text in their
// environment or command.
func processesWith(t *testing.T, text string) (pids []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, dir := range all {
		for _, file := range []string{"environ", "cmdline"} {
			raw, _ := os.ReadFile(filepath.Join(dir, file))
			if bytes.Contains(raw, []byte(text)) {
				pids = append(pids, filepath.Base(dir))
				break
			}
		}
	}
	return pids
}

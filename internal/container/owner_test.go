//go:build linux

package container_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/boxtest"
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
		owner := boxtest.StartOwner(t, roleOwner, string(raw))
		mark := boxtest.OwnerMark(owner.Process.Pid)
		if b.name == "docker" {
			require.NotEmpty(t, boxtest.ProcessesWith(t, mark))
		}
		inside := b.containers(t)
		if b.Kind == container.Docker {
			require.Len(t, inside, 1)
		} else {
			require.NotEmpty(t, boxtest.ProcessesWith(t, cfg.WorkDir))
		}
		began := time.Now()
		require.NoError(t, owner.Process.Signal(syscall.SIGKILL))
		_ = owner.Wait()
		for len(boxtest.ProcessesWith(t, mark))+len(boxtest.ProcessesWith(t, cfg.WorkDir)) > 0 || b.running(t) > 0 {
			require.Less(t, time.Since(began), 20*time.Second, "left: %v %v, %d containers", boxtest.ProcessesWith(t, mark), boxtest.ProcessesWith(t, cfg.WorkDir), b.running(t))
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
		s.Box.Source = strings.NewReader("")
		var box *container.Box
		if box, err = backend.Open(context.Background(), s.Box); err == nil {
			_, err = box.Run(context.Background(), boxtest.Stay(os.Getpid()))
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

package npm_test

import (
	"crypto/rand"
	"net/http"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/npm"
)

func TestAFullDiskLeavesNothing(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{Fresh: always})
	if err := syscall.Mount("tmpfs", f.dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("SKIPPED: cannot mount a small tmpfs (root may): %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(f.dir, syscall.MNT_DETACH)) })
	f.origin.publish(t, "left", release{version: "1.0.0"})
	f.ok("/left")
	f.ok("/left/-/left-1.0.0.tgz")
	kept := f.cached()

	big := make([]byte, 300<<10)
	_, _ = rand.Read(big)
	f.origin.files["/big/-/big-1.tgz"] = big
	f.origin.docs["big"] = object{"name": "big", "readme": big}
	require.Equal(t, npm.Unreachable, f.not(http.StatusBadGateway, "/big/-/big-1.tgz"))
	require.Equal(t, npm.Unreachable, f.not(http.StatusBadGateway, "/big"))
	require.Equal(t, kept, f.cached())
	require.NoError(t, os.WriteFile(f.dir+"/tmp-fill", big[:200<<10], 0o600), "the room is free again")
	f.ok("/left/-/left-1.0.0.tgz")
}

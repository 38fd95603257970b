package npm_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/npm"
)

// The server's own wishes follow the rules that builds' do.
func TestReleases(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{MinAge: time.Hour, Block: []string{"right"}})
	f.origin.publish(t, "left", release{version: "1.0.0", age: 2 * time.Hour}, release{version: "1.0.1", age: time.Minute})
	f.origin.publish(t, "right", release{version: "1.0.0", age: 2 * time.Hour})
	f.origin.docs["left"]["versions"].(object)["1.0.0"].(object)["engines"] = object{"node": ">=18"}
	list, err := f.mirror.Releases(t.Context(), "left")
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, []string{"1.0.0", ">=18"}, []string{list[0].Version, list[0].Node})
	for _, name := range []string{"right", "nowhere"} {
		none, err := f.mirror.Releases(t.Context(), name)
		require.NoError(t, err)
		require.Empty(t, none)
	}

	for range 2 {
		file, err := f.mirror.Open(t.Context(), list[0])
		require.NoError(t, err)
		text, err := io.ReadAll(file)
		require.NoError(t, err)
		require.NoError(t, file.Close())
		require.Equal(t, f.origin.files["/left/-/left-1.0.0.tgz"], text)
		f.origin.answerWith(unavailable)
	}
	other := list[0]
	other.Integrity = integrity([]byte("other"))
	_, err = f.mirror.Open(t.Context(), other)
	require.ErrorContains(t, err, "is another")
	_, err = f.mirror.Releases(t.Context(), "middle")
	require.ErrorIs(t, err, npm.ErrUnreachable)
}

// Who does not wait any more is let go although the registry says nothing.
func TestReleasesOfASilentRegistry(t *testing.T) {
	t.Parallel()
	f := setup(t, npm.Config{})
	arrived, proceed := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(proceed) })
	f.origin.answerWith(func(http.ResponseWriter, *http.Request) { close(arrived); <-proceed })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := f.mirror.Releases(ctx, "left")
		done <- err
	}()
	<-arrived
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.True(t, slices.Contains(f.origin.asked(), "/left"))
}

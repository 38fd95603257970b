package npm

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1000))
	}))
	t.Cleanup(server.Close)
	base, err := url.Parse(server.URL)
	require.NoError(t, err)
	r := registry{base, newClient()}
	var got bytes.Buffer
	_, err = r.get(request{path: "/left", limit: 1000}, &got)
	require.NoError(t, err)
	require.Equal(t, 1000, got.Len())
	_, err = r.get(request{path: "/left", limit: 999}, &got)
	require.ErrorIs(t, err, errTooBig)
}

func TestABuildFetchesSoMuch(t *testing.T) {
	t.Parallel()
	v := &View{seen: map[string]bool{}, fetched: make([]Fetch, maxFetched-1)}
	require.True(t, v.remember("/last", Fetch{}))
	require.False(t, v.remember("/more", Fetch{}))
	require.True(t, v.remember("/last", Fetch{}), "again")
}

package app_test

import (
	"bytes"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/config"
)

const canary = "hunter2-hunter2-canary"

// No answer repeats a value, however wrong the request is that brings it, and none
// is found in what is kept of requests.
func TestValuesAreNotRepeated(t *testing.T) {
	t.Parallel()
	var s *server
	_ = t.TempDir() // outlives the server
	t.Cleanup(func() {
		raw, err := os.ReadFile(s.Config.DatabasePath())
		require.NoError(t, err)
		require.True(t, bytes.Contains(raw, []byte("invalid_request")), "refusals are kept")
		require.False(t, bytes.Contains(raw, []byte(canary)))
	})
	s = startWith(t, config.Config{Builds: -1})
	p := s.create(`{"userId":"u","templateFiles":{"index.html":"x"}}`)
	path := "/v1/projects/" + p.ProjectID + "/env/"
	status, _, text := s.call(http.MethodPut, path+"TOKEN", `{"value":"`+canary+`","secret":true}`)
	require.Equal(t, http.StatusOK, status, text)
	require.NotContains(t, text, canary)
	for _, bad := range []struct{ name, body string }{
		{"PATH", `{"value":"` + canary + `"}`}, {"A-B", `{"value":"` + canary + `"}`}, {"A", `{"value":"` + canary + `\q"}`},
		{"A", `{"value":"` + canary + `","secret":"` + canary + `"}`}, {"A", `{"value":["` + canary + `"]}`}, {"A", `{"value":{"` + canary + `":1}}`},
		{"A", `{"value":"` + canary + `","scopes":["` + canary + `"]}`}, {"A", `{"value":"` + canary + `","value":"x"}`}, {"A", `{"value":"` + canary},
		{"A", `{"value":"` + canary + `\u0000"}`}, {"A", `{"value":"` + canary + `\ud800"}`}, {"A", `"` + canary + `"`}, {"A", canary},
		{"A", `{"value":"` + strings.Repeat(canary, 2000) + `"}`}, {"A", "{\"value\":\"" + canary + "\xff\"}"}, {"A", `{"value":"` + canary + `","secret":true} x`},
	} {
		status, _, text := s.call(http.MethodPut, path+bad.name, bad.body)
		require.GreaterOrEqual(t, status, 400, bad.body)
		require.Less(t, status, 500, text)
		require.NotContains(t, text, canary, bad.body)
	}
	_, _, text = s.call(http.MethodGet, "/v1/projects/"+p.ProjectID+"/env", "")
	require.Contains(t, text, `"name":"TOKEN"`)
	require.NotContains(t, text, canary)

	info, err := os.Stat(s.Config.SecretsKeyPath())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

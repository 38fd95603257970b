package app_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/testkit"
)

// What is no token of the issuer's for a user gets nothing, and no key is looked
// for at a token's word.
func TestBadUserTokens(t *testing.T) {
	t.Parallel()
	f := startNear(t)
	key := f.issuer.Key()
	header := map[string]any{"alg": key.Alg, "kid": key.ID, "typ": "JWT"}
	changed := func(change func(map[string]any)) string { return f.issuer.Token(ann, change) }
	require.Equal(t, http.StatusOK, f.ask(f.token(ann), http.MethodGet, "/api/projects", "").status)
	good := f.token(ann)
	for name, token := range map[string]string{
		"None":         testkit.Base64URL([]byte(`{"alg":"none"}`)) + "." + testkit.Base64URL([]byte(`{"sub":"`+ann+`"}`)) + ".",
		"HS256":        testkit.SignHS256(t, []byte("guess"), map[string]any{"alg": "HS256", "kid": key.ID}, f.issuer.Claims(ann)),
		"Crit":         key.Sign(t, map[string]any{"alg": key.Alg, "kid": key.ID, "crit": []string{"x"}, "x": 1}, f.issuer.Claims(ann)),
		"JKU":          testkit.NewIssuer(t).Key().Sign(t, map[string]any{"alg": "ES256", "kid": key.ID, "jku": f.issuer.JWKSURL}, f.issuer.Claims(ann)),
		"Unsigned":     good[:len(good)-10],
		"Tampered":     good + "A",
		"Expired":      changed(func(c map[string]any) { c["exp"] = time.Now().Add(-2 * time.Minute).Unix() }),
		"NotYet":       changed(func(c map[string]any) { c["nbf"] = time.Now().Add(2 * time.Minute).Unix() }),
		"WithoutEnd":   changed(func(c map[string]any) { delete(c, "exp") }),
		"Issuer":       changed(func(c map[string]any) { c["iss"] = "https://elsewhere.test" }),
		"Audience":     changed(func(c map[string]any) { c["aud"] = "another" }),
		"AnonKey":      changed(func(c map[string]any) { c["role"] = "anon" }),
		"ServiceRole":  changed(func(c map[string]any) { c["role"] = "service_role" }),
		"NoUUID":       changed(func(c map[string]any) { c["sub"] = "ann" }),
		"NoSubject":    changed(func(c map[string]any) { delete(c, "sub") }),
		"Large":        changed(func(c map[string]any) { c["x"] = strings.Repeat("x", 8<<10) }),
		"NoJSON":       key.Sign(t, header, []byte("hello")),
		"ServiceToken": f.Token,
	} {
		r := f.ask(token, http.MethodGet, "/api/projects", "")
		require.Equal(t, http.StatusUnauthorized, r.status, "%s: %s", name, r.body)
		require.Equal(t, "Bearer", r.header.Get("Www-Authenticate"), name)
		require.NotContains(t, r.body, token, name)
	}
	before, began := f.issuer.Requests.Load(), time.Now()
	for range 300 { // ids of keys that nobody has
		header["kid"] = testkit.Base64URL([]byte(time.Now().String()))
		r := f.ask(key.Sign(t, header, f.issuer.Claims(ann)), http.MethodGet, "/api/projects", "")
		require.Equal(t, http.StatusUnauthorized, r.status)
	}
	require.LessOrEqual(t, f.issuer.Requests.Load()-before, 1+int64(time.Since(began)/time.Minute), "the issuer is asked once a minute")
}

// While the issuer is away its known keys are good, and who was never known is
// told to come back.
func TestIssuerIsAway(t *testing.T) {
	t.Parallel()
	f := startNear(t)
	f.issuer.SetDown(true)
	r := f.ask(f.token(ann), http.MethodGet, "/api/projects", "")
	require.Equal(t, http.StatusServiceUnavailable, r.status, "nobody knows the keys yet: %s", r.body)
	require.NotEmpty(t, r.header.Get("Retry-After"))
	require.Contains(t, r.body, `"retryable":true`)

	known := startNear(t)
	require.Equal(t, http.StatusOK, known.ask(known.token(ann), http.MethodGet, "/api/projects", "").status)
	known.issuer.SetDown(true)
	require.Equal(t, http.StatusOK, known.ask(known.token(bob), http.MethodGet, "/api/projects", "").status)
}

// Who is denied loses the API and every open stream within seconds, in all
// processes, and has it back when the denial is taken back.
func TestDeniedUserIsShutOut(t *testing.T) {
	eachLayout(t, func(t *testing.T, f *front) {
		token, admin := f.token(ann), f.token(eve)
		made := f.make(token)
		auth := []string{"Authorization", "Bearer " + token}
		streams := []*testkit.Events{
			testkit.FollowEvents(t, f.Config.BaseURL+"/api/events", auth...),
			testkit.FollowEvents(t, f.Config.BaseURL+"/api/projects/"+made.Project.ID+"/events", auth...),
		}
		for _, s := range streams {
			require.Equal(t, "snapshot", s.Take(1)[0].Type)
		}
		other := testkit.FollowEvents(t, f.Config.BaseURL+"/api/events", "Authorization", "Bearer "+f.token(bob))
		began := time.Now()
		r := f.ask(admin, http.MethodPost, "/api/admin/denied", `{"kind":"user","subject":"`+ann+`","reason":"test"}`)
		require.Equal(t, http.StatusNoContent, r.status, r.body)
		testkit.Eventually(t, "the API refuses", func() bool {
			return f.ask(token, http.MethodGet, "/api/projects", "").status == http.StatusUnauthorized
		})
		for _, s := range streams {
			frames := s.Rest()
			require.Equal(t, "end", frames[len(frames)-1].Type)
		}
		require.Less(t, time.Since(began), time.Minute, "six, on a machine that is not busy")
		require.Equal(t, http.StatusNoContent, f.ask(admin, http.MethodDelete, "/api/admin/denied/user/"+ann, "").status)
		testkit.Eventually(t, "the API answers", func() bool {
			return f.ask(token, http.MethodGet, "/api/projects", "").status == http.StatusOK
		})
		require.Equal(t, "snapshot", other.Take(1)[0].Type)
	})
}

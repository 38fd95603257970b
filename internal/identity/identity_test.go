package identity_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/identity"
	"github.com/previewd/previewd/internal/testkit"
)

func TestGoodTokens(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"ES256", "ES384", "RS256", "EdDSA"} {
		t.Run("Supabase"+alg, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.issuer.Rotate(alg)
			user := f.good(f.issuer.Token(strings.ToUpper(userID), set("jti", "token-1"), set("session_id", "s1")))
			require.Equal(t, &previewd.User{
				ID: userID, SessionID: "s1", Expires: f.clock.Now().Add(time.Hour),
			}, user)
		})
		t.Run("OIDC"+alg, func(t *testing.T) {
			t.Parallel()
			f := setup(t, oidc)
			f.issuer.Rotate(alg)
			user := f.good(f.issuer.Token("auth0|Ann", set("aud", []string{"other", "previewd"}), without("role"),
				without("session_id"), set("sid", "s2"), set("exp", float64(f.clock.Now().Unix())+0.5)))
			require.Equal(t, "auth0|Ann", user.ID, "as it is: upper case too")
			require.Equal(t, "s2", user.SessionID)
			require.Equal(t, f.clock.Now().Add(time.Second/2), user.Expires)
		})
	}
	t.Run("HS256", func(t *testing.T) {
		t.Parallel()
		f := setup(t, func(c *identity.Config) { c.HS256Secret, c.JWKSURL = secret, "" })
		require.Equal(t, userID, f.good(testkit.SignHS256(t, []byte(secret), claims{"alg": "HS256"}, f.issuer.Claims(userID))).ID)
		require.Equal(t, previewd.CodeUnauthorized, f.code(f.issuer.Token(userID)), "no keys are configured")
	})
	t.Run("HS256BesideKeys", func(t *testing.T) {
		t.Parallel()
		f := setup(t, func(c *identity.Config) { c.HS256Secret = secret })
		f.issuer.SetDown(true)
		header := claims{"alg": "HS256", "kid": "whatever", "typ": "JWT"}
		f.good(testkit.SignHS256(t, []byte(secret), header, f.issuer.Claims(userID)))
		require.Zero(t, f.issuer.Requests.Load(), "the keys do not matter to it")
	})
	t.Run("OnlyKeyWithoutID", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		key := f.issuer.Key()
		f.good(key.Sign(t, claims{"alg": key.Alg}, f.issuer.Claims(userID)))
	})
	t.Run("HeaderOfNoConcern", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		key := f.issuer.Key()
		f.good(key.Sign(t, claims{"alg": key.Alg, "kid": key.ID, "typ": "at+JWT", "x5c": []string{"x"}, "new": 1}, f.issuer.Claims(userID)))
	})
	t.Run("ClocksDiffer", func(t *testing.T) {
		t.Parallel()
		f := setup(t)
		now := f.clock.Now().Unix()
		f.good(f.issuer.Token(userID, set("exp", now-59), set("nbf", now+60), set("iat", now+60)))
	})
}

func TestOperator(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path string
		claim      string
		value      any
		want       bool
	}{
		{"Role", "app_metadata.role", "app_metadata", claims{"role": "operator"}, true},
		{"List", "app_metadata.roles", "app_metadata", claims{"roles": []string{"x", "operator"}}, true},
		{"Top", "groups", "groups", []string{"operator"}, true},
		{"NameWithDots", "https://example.com/roles", "https://example.com/roles", []string{"operator"}, true},
		{"OtherRole", "app_metadata.role", "app_metadata", claims{"role": "operators"}, false},
		{"OtherCase", "app_metadata.role", "app_metadata", claims{"Role": "operator"}, false},
		{"UsersOwn", "app_metadata.role", "user_metadata", claims{"role": "operator"}, false},
		{"NoObject", "app_metadata.role", "app_metadata", "operator", false},
		{"Null", "app_metadata.role", "app_metadata", nil, false},
		{"Deeper", "app_metadata.role", "app_metadata", claims{"role": claims{"operator": "operator"}}, false},
		{"NullInList", "groups", "groups", []any{nil, "x"}, false},
		{"NumberInList", "groups", "groups", []any{"operator", 1}, false},
		{"NotAsked", "", "role", "operator", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, oidc, func(cfg *identity.Config) {
				if cfg.OperatorClaim = c.path; c.path != "" {
					cfg.OperatorValue = "operator"
				}
			})
			require.Equal(t, c.want, f.good(f.issuer.Token("ann", set("aud", "previewd"), set(c.claim, c.value))).Operator)
		})
	}
}

func TestLocalToken(t *testing.T) {
	t.Parallel()
	const token = "pvu_0123456789abcdef"
	f := setup(t, func(c *identity.Config) {
		c.JWKSURL, c.LocalToken, c.LocalUser = "", token, previewd.User{ID: "local", Operator: true}
	})
	require.Equal(t, &previewd.User{ID: "local", Operator: true}, f.good(token))
	for _, bad := range []string{"", token[1:], token + "x", strings.ToUpper(token)} {
		require.Equal(t, previewd.CodeUnauthorized, f.code(bad), bad)
	}
}

func TestDenied(t *testing.T) {
	t.Parallel()
	asked, broken := 0, error(nil)
	f := setup(t, func(c *identity.Config) {
		c.Denied = func(_ context.Context, user, session string) (bool, error) {
			asked++
			return user == userID && session == "stolen", broken
		}
	})
	f.good(f.issuer.Token(userID))
	require.Equal(t, previewd.CodeUnauthorized, f.code(f.issuer.Token(userID, set("session_id", "stolen"))))
	require.Equal(t, 2, asked)
	f.code(f.issuer.Token(userID, set("exp", 1)))
	require.Equal(t, 2, asked, "only of whom a good token speaks for")
	broken = errors.New("the list cannot be read")
	_, err := f.Verify(t.Context(), f.issuer.Token(userID))
	require.Equal(t, previewd.CodeUnavailable, previewd.ErrorCode(err), "fails closed")
	require.ErrorIs(t, err, broken)
}

func TestConfigsThatAreRefused(t *testing.T) {
	t.Parallel()
	good := identity.Config{Issuer: "https://issuer.test", JWKSURL: "https://issuer.test/jwks"}
	_, err := identity.New(good)
	require.NoError(t, err)
	for name, change := range map[string]func(*identity.Config){
		"Nothing":         func(c *identity.Config) { c.JWKSURL = "" },
		"NoIssuer":        func(c *identity.Config) { c.Issuer = "" },
		"NoAudience":      func(c *identity.Config) { c.Provider = identity.OIDC },
		"OtherProvider":   func(c *identity.Config) { c.Provider = "x" },
		"PlainHTTP":       func(c *identity.Config) { c.JWKSURL = "http://issuer.test/jwks" },
		"AlmostLoopback":  func(c *identity.Config) { c.JWKSURL = "http://localhost.issuer.test/jwks" },
		"PasswordInURL":   func(c *identity.Config) { c.JWKSURL = "https://a:b@issuer.test/jwks" },
		"NoURL":           func(c *identity.Config) { c.JWKSURL = "issuer.test" },
		"ShortSecret":     func(c *identity.Config) { c.HS256Secret = "short" },
		"PublicSecret":    func(c *identity.Config) { c.HS256Secret = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQ" },
		"ShortLocal":      func(c *identity.Config) { c.LocalToken, c.LocalUser.ID = "short", "x" },
		"LocalNobody":     func(c *identity.Config) { c.LocalToken = "0123456789abcdef" },
		"OperatorByUser":  func(c *identity.Config) { c.OperatorClaim, c.OperatorValue = "user_metadata.role", "x" },
		"OperatorNoValue": func(c *identity.Config) { c.OperatorClaim = "role" },
	} {
		cfg := good
		change(&cfg)
		_, err := identity.New(cfg)
		require.Error(t, err, name)
	}
	for _, loopback := range []string{"http://localhost:1/jwks", "http://127.0.0.1/jwks", "http://[::1]:1/jwks"} {
		cfg := good
		cfg.JWKSURL = loopback
		_, err := identity.New(cfg)
		require.NoError(t, err, loopback)
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{"ES256", "RS256", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			f := setup(b)
			f.issuer.Rotate(alg)
			token := f.issuer.Token(userID)
			for b.Loop() {
				f.good(token)
			}
		})
	}
}

package identity_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/identity"
	"github.com/previewd/previewd/internal/testkit"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Nothing is taken but what was signed, to the byte. The keys are the same in
// every process, or the seeds would be good in one only.
func FuzzVerify(f *testing.F) {
	key := &testkit.IssuerKey{ID: "k", Alg: "EdDSA", Secret: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))}
	set, err := json.Marshal(claims{"keys": []any{key.JWK()}})
	require.NoError(f, err)
	now := time.Unix(1_800_000_000, 0)
	v, err := identity.New(identity.Config{
		Issuer: "https://issuer.test", JWKSURL: "https://issuer.test/jwks", HS256Secret: secret, Log: quiet,
		Now: func() time.Time { return now },
		HTTP: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			_, err := w.Write(set)
			return w.Result(), err
		})},
	})
	require.NoError(f, err)
	good := claims{"iss": "https://issuer.test", "aud": "authenticated", "sub": userID, "role": "authenticated", "exp": now.Unix() + 60}
	header := claims{"alg": "EdDSA", "kid": "k"}
	token, shared := key.Sign(f, header, good), testkit.SignHS256(f, []byte(secret), claims{"alg": "HS256"}, good)
	signed := map[string]bool{token: true, shared: true}
	for one := range signed {
		_, err := v.Verify(context.Background(), one)
		require.NoError(f, err)
		f.Add(one)
	}
	for _, payload := range []string{`{}`, `null`, `{"exp":1e400}`, `{"sub":"a","sub":"b"}`, `{"aud":[[[[`, `{"aud":{}}`} {
		f.Add(key.Sign(f, header, []byte(payload)))
	}
	for _, bad := range []string{"", "..", "a.b.c", "a.b.c.d.e", token + "=", token + "\n", strings.ToUpper(token), strings.Repeat("e30.", 3)} {
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, token string) {
		user, err := v.Verify(t.Context(), token)
		if err == nil {
			require.True(t, signed[token], token)
			require.Equal(t, userID, user.ID)
			return
		}
		require.Nil(t, user)
		require.Equal(t, previewd.CodeUnauthorized, previewd.ErrorCode(err))
	})
}

// What an issuer signs can be anything: claims are read without a panic, and only
// by the rules.
func FuzzClaims(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	v, err := identity.New(identity.Config{
		Issuer: "i", HS256Secret: secret, OperatorClaim: "a.b", OperatorValue: "op", Now: func() time.Time { return now },
	})
	require.NoError(f, err)
	for _, seed := range []string{
		`{"iss":"i","aud":"authenticated","sub":"` + userID + `","role":"authenticated","exp":1800000060}`,
		`{"iss":"i","aud":["authenticated"],"sub":"` + userID + `","role":"authenticated","exp":1.80000006e9,"a":{"b":["op"]},"jti":"x"}`,
		`{}`, `null`, `[]`, `{"exp":1e400}`, `{"a":{"b":null}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		user, err := v.Verify(t.Context(), testkit.SignHS256(t, []byte(secret), claims{"alg": "HS256"}, payload))
		if err != nil {
			require.Equal(t, previewd.CodeUnauthorized, previewd.ErrorCode(err))
			return
		}
		var c claims
		require.NoError(t, json.Unmarshal(payload, &c))
		require.True(t, previewd.IsID(user.ID) && strings.EqualFold(c["sub"].(string), user.ID))
		require.Equal(t, "i", c["iss"])
		require.Equal(t, "authenticated", c["role"])
		require.Greater(t, c["exp"], float64(now.Unix()-60))
	})
}

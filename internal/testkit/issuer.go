package testkit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Issuer signs users' tokens of Supabase's shape and publishes its keys, until
// the test ends.
type Issuer struct {
	URL     string           // what tokens name as their issuer
	JWKSURL string           // where the keys are
	Now     func() time.Time // default time.Now; set before the first token

	Requests atomic.Int64 // for keys, also while it is down

	tb      testing.TB
	mu      sync.Mutex
	keys    []*IssuerKey
	made    int
	down    bool
	headers http.Header
	body    []byte // instead of the keys
}

// IssuerKey is one key of an issuer. Secret is an *ecdsa.PrivateKey, an
// *rsa.PrivateKey or an ed25519.PrivateKey.
type IssuerKey struct {
	ID     string
	Alg    string
	Secret crypto.Signer
}

// NewIssuer starts an issuer with one ES256 key.
func NewIssuer(tb testing.TB) *Issuer {
	tb.Helper()
	i := NewUnstartedIssuer(tb)
	server := httptest.NewServer(i)
	tb.Cleanup(server.Close)
	i.URL, i.JWKSURL = server.URL+"/auth/v1", server.URL+"/auth/v1/.well-known/jwks.json"
	return i
}

// NewUnstartedIssuer returns an issuer without a server, which the test gives it:
// it is a handler.
func NewUnstartedIssuer(tb testing.TB) *Issuer {
	tb.Helper()
	i := &Issuer{
		URL: "https://issuer.test/auth/v1", JWKSURL: "https://issuer.test/auth/v1/.well-known/jwks.json",
		tb: tb, Now: time.Now, headers: http.Header{"Cache-Control": {"public, max-age=600"}},
	}
	i.Rotate("ES256")
	return i
}

// Rotate makes a key that signs from now on; the older ones stay published. alg
// is ES256, ES384, RS256 or EdDSA.
func (i *Issuer) Rotate(alg string) *IssuerKey {
	i.tb.Helper()
	key := &IssuerKey{Alg: alg}
	var err error
	switch alg {
	case "ES256":
		key.Secret, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		key.Secret, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "RS256":
		key.Secret, err = rsa.GenerateKey(rand.Reader, 2048)
	case "EdDSA":
		_, key.Secret, err = ed25519.GenerateKey(rand.Reader)
	default:
		i.tb.Fatalf("no key for %s", alg)
	}
	require.NoError(i.tb, err)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.made++
	key.ID = fmt.Sprintf("key-%d-%s", i.made, alg)
	i.keys = append(i.keys, key)
	return key
}

// Retire publishes only the newest key from now on.
func (i *Issuer) Retire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = i.keys[len(i.keys)-1:]
}

// Key returns the newest key, which signs.
func (i *Issuer) Key() *IssuerKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[len(i.keys)-1]
}

// SetDown makes the issuer answer 503 instead of its keys, or its keys again.
func (i *Issuer) SetDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// SetHeader sets a header of the answers with keys.
func (i *Issuer) SetHeader(name, value string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.headers.Set(name, value)
}

// SetBody publishes this instead of the keys; nil publishes the keys again.
func (i *Issuer) SetBody(body []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.body = body
}

// ServeHTTP answers with the keys, whatever the path.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	i.Requests.Add(1)
	i.mu.Lock()
	down, body := i.down, i.body
	if body == nil {
		body = i.jwks()
	}
	for name, values := range i.headers {
		w.Header()[name] = values
	}
	i.mu.Unlock()
	if down {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write(body)
}

func (i *Issuer) jwks() []byte {
	list := make([]map[string]any, len(i.keys))
	for n, key := range i.keys {
		list[n] = key.JWK()
	}
	raw, err := json.Marshal(map[string]any{"keys": list})
	require.NoError(i.tb, err)
	return raw
}

// JWK returns the public key as it is published (RFC 7517).
func (k *IssuerKey) JWK() map[string]any {
	jwk := map[string]any{"kid": k.ID, "alg": k.Alg, "use": "sig"}
	switch public := k.Secret.Public().(type) {
	case *ecdsa.PublicKey:
		point, _ := public.Bytes() // fails for curves that Rotate does not make
		half := len(point) / 2
		jwk["kty"], jwk["crv"] = "EC", public.Curve.Params().Name
		jwk["x"], jwk["y"] = Base64URL(point[1:half+1]), Base64URL(point[half+1:])
	case *rsa.PublicKey:
		jwk["kty"], jwk["n"], jwk["e"] = "RSA", Base64URL(public.N.Bytes()), Base64URL(big.NewInt(int64(public.E)).Bytes())
	case ed25519.PublicKey:
		jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", Base64URL(public)
	}
	return jwk
}

// Claims are those of a good token for an hour.
func (i *Issuer) Claims(sub string) map[string]any {
	now := i.Now()
	return map[string]any{
		"iss": i.URL, "aud": "authenticated", "sub": sub, "role": "authenticated", "session_id": "session-of-" + sub,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
}

// Token returns a good token for the user, with its claims changed.
func (i *Issuer) Token(sub string, change ...func(map[string]any)) string {
	i.tb.Helper()
	claims := i.Claims(sub)
	for _, c := range change {
		c(claims)
	}
	key := i.Key()
	return key.Sign(i.tb, map[string]any{"alg": key.Alg, "kid": key.ID, "typ": "JWT"}, claims)
}

// Sign returns a token with this header and payload, whatever they say, signed
// as the key does. What is no []byte is written as JSON.
func (k *IssuerKey) Sign(tb testing.TB, header, payload any) string {
	tb.Helper()
	input := Base64URL(jsonOf(tb, header)) + "." + Base64URL(jsonOf(tb, payload))
	digest := sha256.Sum256([]byte(input))
	longer := sha512.Sum384([]byte(input))
	switch secret := k.Secret.(type) {
	case *ecdsa.PrivateKey:
		hashed := digest[:]
		if k.Alg == "ES384" {
			hashed = longer[:]
		}
		r, s, err := ecdsa.Sign(rand.Reader, secret, hashed)
		require.NoError(tb, err)
		size := (secret.Curve.Params().BitSize + 7) / 8
		return input + "." + Base64URL(append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...))
	case *rsa.PrivateKey:
		signature, err := rsa.SignPKCS1v15(rand.Reader, secret, crypto.SHA256, digest[:])
		require.NoError(tb, err)
		return input + "." + Base64URL(signature)
	case ed25519.PrivateKey:
		return input + "." + Base64URL(ed25519.Sign(secret, []byte(input)))
	}
	tb.Fatalf("cannot sign with %T", k.Secret)
	return ""
}

// SignHS256 returns a token with this header and payload, signed with a secret.
func SignHS256(tb testing.TB, secret []byte, header, payload any) string {
	tb.Helper()
	input := Base64URL(jsonOf(tb, header)) + "." + Base64URL(jsonOf(tb, payload))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input))
	return input + "." + Base64URL(mac.Sum(nil))
}

func jsonOf(tb testing.TB, v any) []byte {
	tb.Helper()
	if raw, ok := v.([]byte); ok {
		return raw
	}
	raw, err := json.Marshal(v)
	require.NoError(tb, err)
	return raw
}

// Base64URL is the encoding of tokens.
func Base64URL(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

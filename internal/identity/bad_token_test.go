package identity_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/identity"
	"github.com/previewd/previewd/internal/testkit"
)

// badCase makes one bad token. header starts as that of a good token.
type badCase struct {
	name string
	make func(b *badMaker) string
}

// badMaker has what attackers have, and more.
type badMaker struct {
	*fixture
	key      *testkit.IssuerKey // signs; its tokens are good
	rsa      *testkit.IssuerKey // published too
	attacker *testkit.IssuerKey // of another issuer
	jku      string             // where the attacker publishes its key
}

func (b *badMaker) header(change ...func(claims)) claims {
	h := claims{"alg": b.key.Alg, "kid": b.key.ID, "typ": "JWT"}
	for _, c := range change {
		c(h)
	}
	return h
}

func (b *badMaker) headed(change ...func(claims)) string {
	return b.key.Sign(b.tb, b.header(change...), b.issuer.Claims(userID))
}

func (b *badMaker) payload(raw string) string {
	return b.key.Sign(b.tb, b.header(), []byte(raw))
}

// raw returns good claims as JSON with a piece exchanged.
func (b *badMaker) raw(change func([]byte) []byte) string {
	raw, err := json.Marshal(b.issuer.Claims(userID))
	require.NoError(b.tb, err)
	changed := change(raw)
	require.NotEqual(b.tb, string(raw), string(changed))
	return b.payload(string(changed))
}

func (b *badMaker) claim(change ...func(claims)) string { return b.issuer.Token(userID, change...) }

// unsigned is a token without a signature, or with one that says nothing.
func (b *badMaker) unsigned(alg, signature string) string {
	head, err := json.Marshal(b.header(set("alg", alg)))
	require.NoError(b.tb, err)
	body, err := json.Marshal(b.issuer.Claims(userID))
	require.NoError(b.tb, err)
	return testkit.Base64URL(head) + "." + testkit.Base64URL(body) + "." + signature
}

func (b *badMaker) pem() []byte {
	der, err := x509.MarshalPKIXPublicKey(b.rsa.Secret.Public())
	require.NoError(b.tb, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func (b *badMaker) jwk(key *testkit.IssuerKey) []byte {
	raw, err := json.Marshal(key.JWK())
	require.NoError(b.tb, err)
	return raw
}

func (b *badMaker) hs256(key []byte) string {
	return testkit.SignHS256(b.tb, key, b.header(set("alg", "HS256"), set("kid", b.rsa.ID)), b.issuer.Claims(userID))
}

// part returns a good token with one of its parts changed.
func (b *badMaker) part(n int, change func(string) string) string {
	parts := strings.Split(b.claim(), ".")
	parts[n] = change(parts[n])
	return strings.Join(parts, ".")
}

func (b *badMaker) reencoded(n int, old, changed string) string {
	return b.part(n, func(part string) string {
		raw, err := base64.RawURLEncoding.DecodeString(part)
		require.NoError(b.tb, err)
		return testkit.Base64URL(bytes.Replace(raw, []byte(old), []byte(changed), 1))
	})
}

func replace(old, changed string) func([]byte) []byte {
	return func(raw []byte) []byte { return bytes.Replace(raw, []byte(old), []byte(changed), 1) }
}

// What is wrong with the signature, or with whose it is.
var badSignatures = []badCase{
	{"AlgNone", func(b *badMaker) string { return b.unsigned("none", "") }},
	{"AlgNoneCapital", func(b *badMaker) string { return b.unsigned("None", "") }},
	{"AlgNoneUpper", func(b *badMaker) string { return b.unsigned("NONE", "") }},
	{"AlgNoneSigned", func(b *badMaker) string { return b.unsigned("none", "AAAA") }},
	{"AlgNoneBySignedHeader", func(b *badMaker) string { return b.headed(set("alg", "none")) }},
	{"AlgMissing", func(b *badMaker) string { return b.headed(without("alg")) }},
	{"AlgEmpty", func(b *badMaker) string { return b.headed(set("alg", "")) }},
	{"AlgNoString", func(b *badMaker) string { return b.headed(set("alg", 1)) }},
	{"AlgLowerCase", func(b *badMaker) string { return b.headed(set("alg", "es256")) }},
	{"AlgOfAnotherKind", func(b *badMaker) string { return b.headed(set("alg", "RS256")) }},
	{"AlgES384WithP256Key", func(b *badMaker) string { return b.headed(set("alg", "ES384")) }},
	{"AlgPS256WithKeyForRS256", func(b *badMaker) string {
		return b.rsa.Sign(b.tb, b.header(set("alg", "PS256"), set("kid", b.rsa.ID)), b.issuer.Claims(userID))
	}},
	{"HS256WithPublicPEM", func(b *badMaker) string { return b.hs256(b.pem()) }},
	{"HS256WithPublicDER", func(b *badMaker) string {
		block, _ := pem.Decode(b.pem())
		return b.hs256(block.Bytes)
	}},
	{"HS256WithJWK", func(b *badMaker) string { return b.hs256(b.jwk(b.rsa)) }},
	{"HS256WithEmptySecret", func(b *badMaker) string { return b.hs256(nil) }},
	{"HS256WithPublishedSecret", func(b *badMaker) string { return b.hs256([]byte("published")) }},
	{"HS384WithTheSecret", func(b *badMaker) string {
		return testkit.SignHS256(b.tb, []byte(secret), b.header(set("alg", "HS384")), b.issuer.Claims(userID))
	}},
	{"KeyOfAnotherIssuer", func(b *badMaker) string { return b.attacker.Sign(b.tb, b.header(), b.issuer.Claims(userID)) }},
	{"KeyUnknown", func(b *badMaker) string { return b.headed(set("kid", "unknown")) }},
	{"KeyMissingAmongSeveral", func(b *badMaker) string { return b.headed(without("kid")) }},
	{"KeyNoString", func(b *badMaker) string { return b.headed(set("kid", []string{b.key.ID})) }},
	{"KeyOfTraversal", func(b *badMaker) string { return b.headed(set("kid", "../../"+b.key.ID)) }},
	{"KeyForEncryption", func(b *badMaker) string { return b.headed(set("kid", "for-encryption")) }},
	{"KeyPublishedWhole", func(b *badMaker) string { return b.headed(set("kid", "published-whole")) }},
	{"KeyForSigningOnly", func(b *badMaker) string { return b.headed(set("kid", "for-signing")) }},
	{"Critical", func(b *badMaker) string { return b.headed(set("crit", []string{"exp"})) }},
	{"CriticalEmpty", func(b *badMaker) string { return b.headed(set("crit", []string{})) }},
	{"B64", func(b *badMaker) string { return b.headed(set("b64", true)) }},
	{"EmbeddedKey", func(b *badMaker) string {
		return b.attacker.Sign(b.tb, b.header(set("jwk", b.attacker.JWK())), b.issuer.Claims(userID))
	}},
	{"EmbeddedKeyOnly", func(b *badMaker) string {
		return b.attacker.Sign(b.tb, b.header(set("jwk", b.attacker.JWK()), without("kid")), b.issuer.Claims(userID))
	}},
	{"KeysFromElsewhere", func(b *badMaker) string {
		return b.attacker.Sign(b.tb, b.header(set("jku", b.jku), set("kid", b.attacker.ID)), b.issuer.Claims(userID))
	}},
	{"CertificateFromElsewhere", func(b *badMaker) string {
		return b.attacker.Sign(b.tb, b.header(set("x5u", b.jku), set("kid", b.attacker.ID)), b.issuer.Claims(userID))
	}},
	{"CertificateEmbedded", func(b *badMaker) string {
		return b.attacker.Sign(b.tb, b.header(set("x5c", []string{base64.StdEncoding.EncodeToString(b.jwk(b.attacker))})), b.issuer.Claims(userID))
	}},
	{"LogoutToken", func(b *badMaker) string { return b.headed(set("typ", "logout+jwt")) }},
	{"DuplicateHeader", func(b *badMaker) string {
		return b.key.Sign(b.tb, []byte(`{"alg":"ES256","alg":"ES256","kid":"`+b.key.ID+`"}`), b.issuer.Claims(userID))
	}},
	{"HeaderNoObject", func(b *badMaker) string { return b.key.Sign(b.tb, []byte(`["ES256"]`), b.issuer.Claims(userID)) }},
	{"HeaderNull", func(b *badMaker) string { return b.key.Sign(b.tb, []byte(`null`), b.issuer.Claims(userID)) }},
}

// What is wrong with the form.
var badForms = []badCase{
	{"Empty", func(*badMaker) string { return "" }},
	{"NoToken", func(*badMaker) string { return "hello" }},
	{"DotsOnly", func(*badMaker) string { return ".." }},
	{"TwoParts", func(b *badMaker) string { token := b.claim(); return token[:strings.LastIndexByte(token, '.')] }},
	{"FourParts", func(b *badMaker) string { return b.claim() + ".AAAA" }},
	{"FiveParts", func(b *badMaker) string { return b.claim() + ".AAAA.AAAA" }},
	{"DotMoved", func(b *badMaker) string {
		parts := strings.Split(b.claim(), ".")
		return parts[0] + parts[1][:4] + "." + parts[1][4:] + "." + parts[2]
	}},
	{"Truncated", func(b *badMaker) string { token := b.claim(); return token[:len(token)-8] }},
	{"SignatureEmpty", func(b *badMaker) string { return b.part(2, func(string) string { return "" }) }},
	{"SignatureZero", func(b *badMaker) string {
		return b.part(2, func(string) string { return testkit.Base64URL(make([]byte, 64)) })
	}},
	{"SignatureChanged", func(b *badMaker) string {
		return b.part(2, func(s string) string {
			return string(s[0]^1) + s[1:]
		})
	}},
	{"PayloadChanged", func(b *badMaker) string { return b.reencoded(1, userID, "01930f4e-5a7b-7c3d-8e9f-0a1b2c3d4e50") }},
	{"HeaderChanged", func(b *badMaker) string { return b.reencoded(0, `"JWT"`, `"jwt"`) }},
	{"PaddedSignature", func(b *badMaker) string { return b.claim() + "==" }},
	{"PaddedPayload", func(b *badMaker) string { return b.part(1, func(s string) string { return s + "=" }) }},
	{"StandardAlphabet", func(b *badMaker) string {
		for {
			if token := b.claim(); strings.ContainsAny(token, "-_") {
				return strings.NewReplacer("-", "+", "_", "/").Replace(token)
			}
		}
	}},
	{"BitsLeftOver", func(b *badMaker) string { // 64 bytes leave four bits of the last character
		return b.part(2, func(s string) string { return s[:len(s)-1] + string(s[len(s)-1]+1) })
	}},
	{"TrailingGarbage", func(b *badMaker) string { return b.claim() + "garbage" }},
	{"TrailingLineEnd", func(b *badMaker) string { return b.claim() + "\n" }},
	{"LineEndInside", func(b *badMaker) string { return b.part(2, func(s string) string { return s[:10] + "\r\n" + s[10:] }) }},
	{"LeadingSpace", func(b *badMaker) string { return " " + b.claim() }},
	{"WithScheme", func(b *badMaker) string { return "Bearer " + b.claim() }},
	{"Oversize", func(b *badMaker) string { return b.claim(set("filler", strings.Repeat("x", 8<<10))) }},
	{"JSONSerialization", func(b *badMaker) string {
		parts := strings.Split(b.claim(), ".")
		return `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`
	}},
}

// What is wrong with claims that the issuer signed.
var badClaims = []badCase{
	{"NoJSON", func(b *badMaker) string { return b.payload("hello") }},
	{"NoObject", func(b *badMaker) string { return b.payload(`["sub"]`) }},
	{"JSONWithMoreBehind", func(b *badMaker) string { return b.raw(func(raw []byte) []byte { return append(raw, "{}"...) }) }},
	{"DuplicateClaim", func(b *badMaker) string { return b.raw(replace(`{`, `{"sub":"`+userID+`",`)) }},
	{"DuplicateDeepInside", func(b *badMaker) string { return b.raw(replace(`{`, `{"app_metadata":{"role":"a","role":"b"},`)) }},
	{"NoUTF8", func(b *badMaker) string { return b.raw(replace(`{`, "{\"x\":\"\xff\",")) }},
	{"Expired", func(b *badMaker) string { return b.claim(set("exp", b.clock.Now().Unix()-60)) }},
	{"ExpMissing", func(b *badMaker) string { return b.claim(without("exp")) }},
	{"ExpNull", func(b *badMaker) string { return b.claim(set("exp", nil)) }},
	{"ExpString", func(b *badMaker) string { return b.claim(set("exp", "4102444800")) }},
	{"ExpHuge", func(b *badMaker) string { return b.claim(set("exp", json.RawMessage("1e400"))) }},
	{"ExpPastTime", func(b *badMaker) string { return b.claim(set("exp", json.RawMessage("9223372036854775807"))) }},
	{"ExpNegative", func(b *badMaker) string { return b.claim(set("exp", json.RawMessage("-1"))) }},
	{"ExpList", func(b *badMaker) string { return b.claim(set("exp", []int{4102444800})) }},
	{"NotYetValid", func(b *badMaker) string { return b.claim(set("nbf", b.clock.Now().Unix()+61)) }},
	{"NbfString", func(b *badMaker) string { return b.claim(set("nbf", "0")) }},
	{"IssuedLater", func(b *badMaker) string { return b.claim(set("iat", b.clock.Now().Unix()+61)) }},
	{"OtherIssuer", func(b *badMaker) string { return b.claim(set("iss", "https://other.test/auth/v1")) }},
	{"IssuerWithSlash", func(b *badMaker) string { return b.claim(set("iss", b.issuer.URL+"/")) }},
	{"IssuerMissing", func(b *badMaker) string { return b.claim(without("iss")) }},
	{"IssuerList", func(b *badMaker) string { return b.claim(set("iss", []string{b.issuer.URL})) }},
	{"OtherAudience", func(b *badMaker) string { return b.claim(set("aud", "other")) }},
	{"AudienceListWithoutUs", func(b *badMaker) string { return b.claim(set("aud", []string{"a", "b"})) }},
	{"AudienceMixedList", func(b *badMaker) string { return b.claim(set("aud", []any{"authenticated", 1})) }},
	{"AudienceMissing", func(b *badMaker) string { return b.claim(without("aud")) }},
	{"AudienceObject", func(b *badMaker) string { return b.claim(set("aud", claims{"authenticated": true})) }},
	{"SessionNoString", func(b *badMaker) string { return b.claim(set("session_id", 1)) }},
	{"TokenIDNoString", func(b *badMaker) string { return b.claim(set("jti", 1)) }},
	{"SubMissing", func(b *badMaker) string { return b.claim(without("sub")) }},
	{"SubEmpty", func(b *badMaker) string { return b.claim(set("sub", "")) }},
	{"SubNumber", func(b *badMaker) string { return b.claim(set("sub", 1)) }},
	{"SubNull", func(b *badMaker) string { return b.claim(set("sub", nil)) }},
	{"SubWithSpace", func(b *badMaker) string { return b.claim(set("sub", userID+" ")) }},
	{"DeniedUser", func(b *badMaker) string { return b.claim(set("sub", deniedID)) }},
}

// What Supabase's tokens must have and others need not.
var badForSupabase = []badCase{
	{"AnonKey", func(b *badMaker) string { // as Supabase gives it to every page
		return b.payload(`{"iss":"supabase","ref":"abcdefghijklmnopqrst","role":"anon","iat":1700000000,"exp":2015360000}`)
	}},
	{"ServiceRoleKey", func(b *badMaker) string {
		return b.payload(`{"iss":"supabase","ref":"abcdefghijklmnopqrst","role":"service_role","iat":1700000000,"exp":2015360000}`)
	}},
	{"AnonKeyInFull", func(b *badMaker) string { return b.claim(set("role", "anon")) }},
	{"ServiceRoleKeyInFull", func(b *badMaker) string { return b.claim(set("role", "service_role")) }},
	{"RoleMissing", func(b *badMaker) string { return b.claim(without("role")) }},
	{"RoleInCapitals", func(b *badMaker) string { return b.claim(set("role", "Authenticated")) }},
	{"RoleList", func(b *badMaker) string { return b.claim(set("role", []string{"authenticated"})) }},
	{"SubNoUUID", func(b *badMaker) string { return b.claim(set("sub", "ann")) }},
	{"SubUUIDWithoutDashes", func(b *badMaker) string { return b.claim(set("sub", strings.ReplaceAll(userID, "-", ""))) }},
	{"SubUUIDInBraces", func(b *badMaker) string { return b.claim(set("sub", "{"+userID+"}")) }},
}

// What others' subjects must not be.
var badForOIDC = []badCase{
	{"SubTooLong", func(b *badMaker) string { return b.claim(set("sub", strings.Repeat("a", 129))) }},
	{"SubWithControl", func(b *badMaker) string { return b.claim(set("sub", "ann\x00")) }},
	{"SubNotASCII", func(b *badMaker) string { return b.claim(set("sub", "änn")) }},
}

const deniedID = "01930f4e-5a7b-7c3d-8e9f-000000000000"

func TestBadTokens(t *testing.T) {
	t.Parallel()
	both := len(badSignatures) + len(badForms) + len(badClaims)
	t.Run("Supabase", func(t *testing.T) {
		t.Parallel()
		t.Logf("%d tokens", both+len(badForSupabase))
		runBad(t, func(*identity.Config) {}, badSignatures, badForms, badClaims, badForSupabase)
	})
	t.Run("OIDC", func(t *testing.T) {
		t.Parallel()
		t.Logf("%d tokens", both+len(badForOIDC))
		runBad(t, func(c *identity.Config) { c.Provider, c.Audience = identity.OIDC, "authenticated" },
			badSignatures, badForms, badClaims, badForOIDC)
	})
	t.Run("WithHS256On", func(t *testing.T) {
		t.Parallel()
		runBad(t, func(c *identity.Config) { c.HS256Secret = secret }, badSignatures, badForms, badClaims)
	})
}

func runBad(t *testing.T, change func(*identity.Config), lists ...[]badCase) {
	t.Helper()
	b := &badMaker{}
	b.fixture = setup(t, change, func(c *identity.Config) { c.Denied = denies(deniedID) })
	b.rsa, b.key = b.issuer.Rotate("RS256"), b.issuer.Rotate("ES256")
	elsewhere, requests := testkit.NewIssuer(t), atomic.Int64{}
	b.attacker = elsewhere.Key()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	t.Cleanup(server.Close)
	b.jku = server.URL
	b.publishTraps()
	b.good(b.claim())
	messages := map[string]bool{}
	for _, list := range lists {
		for _, c := range list {
			token := c.make(b)
			user, err := b.Verify(t.Context(), token)
			require.Equal(t, previewd.CodeUnauthorized, previewd.ErrorCode(err), "%s: %s", c.name, token)
			require.Nil(t, user, c.name)
			var e *previewd.Error
			require.ErrorAs(t, err, &e)
			require.Error(t, e.Err, "%s: the log is told", c.name)
			messages[e.Message+e.Details] = true
		}
	}
	require.Len(t, messages, 1, "nobody is told what was wrong")
	require.Zero(t, requests.Load(), "nobody asks where a token says")
	require.Zero(t, elsewhere.Requests.Load())
	b.good(b.claim())
}

// publishTraps publishes, beside the issuer's keys, some that must not be used.
func (b *badMaker) publishTraps() {
	whole, encryption, signing := b.key.JWK(), b.key.JWK(), b.key.JWK()
	whole["kid"], whole["d"] = "published-whole", testkit.Base64URL(bytes.Repeat([]byte{1}, 32))
	encryption["kid"], encryption["use"] = "for-encryption", "enc"
	signing["kid"], signing["key_ops"] = "for-signing", []string{"sign"}
	symmetric := claims{"kty": "oct", "kid": b.rsa.ID, "alg": "HS256", "k": testkit.Base64URL([]byte("published"))}
	keys := []claims{symmetric, {"kty": "unheard of", "kid": "x"}, whole, encryption, signing, b.rsa.JWK(), b.key.JWK()}
	raw, err := json.Marshal(claims{"keys": keys})
	require.NoError(b.tb, err)
	b.issuer.SetBody(raw)
}

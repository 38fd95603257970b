package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v3/jwk"
)

// maxKeys bounds what one issuer may publish at a time.
const maxKeys = 100

// publicKey is one of the issuer's, with all that it may be used for.
type publicKey struct {
	kid  string
	algs []string
	key  any
}

// keySet is what the issuer published at a time.
type keySet []publicKey

var (
	rsaAlgs   = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	ed25519Of = []string{"EdDSA", "Ed25519"}
	curveAlgs = map[elliptic.Curve][]string{
		elliptic.P256(): {"ES256"}, elliptic.P384(): {"ES384"}, elliptic.P521(): {"ES512"},
	}
)

// isKeyPair reports whether tokens of this algorithm are signed with a key pair.
func isKeyPair(alg string) bool {
	if slices.Contains(rsaAlgs, alg) || slices.Contains(ed25519Of, alg) {
		return true
	}
	for _, algs := range curveAlgs {
		if slices.Contains(algs, alg) {
			return true
		}
	}
	return false
}

// parseKeySet reads a JWK set (RFC 7517 §5). Keys that are not for checking
// signatures of the kinds above are left out, and so are secrets: whoever
// fetches the set could sign with those.
func parseKeySet(raw []byte) (keySet, error) {
	var set struct {
		Keys *[]jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, fmt.Errorf("cannot read the keys: %w", err)
	}
	switch {
	case set.Keys == nil:
		return nil, fmt.Errorf("cannot read the keys: there is no member %q", "keys")
	case len(*set.Keys) > maxKeys:
		return nil, fmt.Errorf("cannot take %d keys: at most %d", len(*set.Keys), maxKeys)
	}
	keys := keySet{}
	for _, one := range *set.Keys {
		if key, ok := parseKey(one); ok {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

func parseKey(raw []byte) (publicKey, bool) {
	parsed, err := jwk.ParseKey(raw)
	if err != nil {
		return publicKey{}, false
	}
	if private, err := jwk.IsPrivateKey(parsed); err != nil || private { // err: it is symmetric
		return publicKey{}, false
	}
	if use, ok := parsed.KeyUsage(); ok && use != "sig" {
		return publicKey{}, false
	}
	if ops, ok := parsed.KeyOps(); ok && !slices.Contains(ops, jwk.KeyOpVerify) {
		return publicKey{}, false
	}
	var key publicKey
	key.kid, _ = parsed.KeyID()
	if jwk.Export(parsed, &key.key) != nil {
		return publicKey{}, false
	}
	key.algs = algsOf(key.key)
	if alg, ok := parsed.Algorithm(); ok {
		if !slices.Contains(key.algs, alg.String()) {
			return publicKey{}, false
		}
		key.algs = []string{alg.String()}
	}
	return key, len(key.algs) > 0
}

// algsOf returns what a key of this kind can check; none for a weak key, and for
// one so large that checking would be work.
func algsOf(key any) []string {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits >= 2048 && bits <= 8192 && key.E >= 3 && key.E%2 == 1 {
			return rsaAlgs
		}
	case *ecdsa.PublicKey:
		return curveAlgs[key.Curve]
	case ed25519.PublicKey:
		return ed25519Of
	}
	return nil
}

// find returns the key of this id. A token that names none gets the only key,
// if there is one. known says that the id is the issuer's, be the key fit for
// the algorithm or not.
func (s keySet) find(kid, alg string) (key any, known bool) {
	if kid == "" {
		if len(s) == 1 && slices.Contains(s[0].algs, alg) {
			return s[0].key, true
		}
		return nil, len(s) > 0
	}
	for _, one := range s {
		if one.kid == kid {
			known = true
			if slices.Contains(one.algs, alg) {
				return one.key, true
			}
		}
	}
	return nil, known
}

package identity

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"
)

// maxToken is the longest token that is looked at, in bytes.
const maxToken = 8 << 10

const algHS256 = "HS256"

// signed is a token whose form is right; nobody has vouched for it yet.
type signed struct {
	compact string
	alg     string
	kid     string // "" when it names none
	payload []byte
}

// strict64 takes one text for the same bytes: no padding, no bits left over.
// Otherwise a token could be changed and stay valid.
var strict64 = base64.RawURLEncoding.Strict()

// members are those of a JSON object, each once and in UTF-8.
type members map[string]jsontext.Value

func parseMembers(raw []byte) (members, error) {
	var m members
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	if m == nil {
		return nil, errors.New("is no object")
	}
	return m, nil
}

// text returns a member that must be a string; "" when it is absent.
func (m members) text(name string) (string, error) {
	raw, ok := m[name]
	if !ok {
		return "", nil
	}
	var text string
	if raw.Kind() != '"' {
		return "", fmt.Errorf("%s is no string", name)
	}
	err := json.Unmarshal(raw, &text)
	return text, err
}

// parseToken reads a JWS in compact form (RFC 7515 §7.1). What its header says
// of keys (jwk, jku, x5u, x5c) is not even read.
func parseToken(token string) (*signed, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("the token has %d parts", len(parts))
	}
	var decoded [3][]byte
	for i, part := range parts {
		// The decoder skips line ends.
		if strings.ContainsAny(part, "\r\n") {
			return nil, errors.New("the token has line ends")
		}
		var err error
		if decoded[i], err = strict64.DecodeString(part); err != nil || part == "" {
			return nil, fmt.Errorf("part %d of the token is no base64url: %w", i+1, err)
		}
	}
	header, err := parseMembers(decoded[0])
	if err != nil {
		return nil, fmt.Errorf("cannot read the header: %w", err)
	}
	t := &signed{compact: token, payload: decoded[1]}
	if t.alg, err = header.text("alg"); err != nil {
		return nil, err
	}
	if t.kid, err = header.text("kid"); err != nil {
		return nil, err
	}
	typ, err := header.text("typ")
	if err != nil {
		return nil, err
	}
	return t, checkHeader(header, typ)
}

func checkHeader(header members, typ string) error {
	// Extensions that must be understood, of which none is; b64 changes what is signed.
	for _, name := range []string{"crit", "b64"} {
		if _, ok := header[name]; ok {
			return fmt.Errorf("the header has %s", name)
		}
	}
	// An issuer signs other things with the same keys, such as logout tokens.
	switch strings.TrimPrefix(strings.ToLower(typ), "application/") {
	case "", "jwt", "at+jwt":
		return nil
	}
	return fmt.Errorf("typ %.100q is no access token's", typ)
}

// verify checks the signature with one key, by the token's algorithm, which the
// caller has found fit for the key.
func (t *signed) verify(key any) error {
	alg, ok := jwa.LookupSignatureAlgorithm(t.alg)
	if !ok {
		return fmt.Errorf("alg %.100q is unknown", t.alg)
	}
	// jws.Verify would read all of the header first, certificates and other keys too.
	_, err := jws.VerifyCompactFast(key, []byte(t.compact), alg)
	return err
}

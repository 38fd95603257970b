package identity

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/previewd/previewd"
)

// maxID bounds ids that others make: a subject, a session, a token.
const maxID = 128

// readUser checks what a signed payload claims.
func (c *Config) readUser(payload []byte) (*previewd.User, error) {
	claims, err := parseMembers(payload)
	if err != nil {
		return nil, fmt.Errorf("cannot read the claims: %w", err)
	}
	if iss, err := claims.text("iss"); err != nil || iss != c.Issuer {
		return nil, fmt.Errorf("iss is %.100q", iss)
	}
	if !claims.lists("aud", c.Audience) {
		return nil, errors.New("aud does not name us")
	}
	user := &previewd.User{}
	if user.Expires, err = c.checkTimes(claims); err != nil {
		return nil, err
	}
	if user.ID, err = c.subject(claims); err != nil {
		return nil, err
	}
	if user.SessionID, err = claims.id("session_id"); err == nil && user.SessionID == "" {
		user.SessionID, err = claims.id("sid") // OpenID Connect Front-Channel Logout §3
	}
	if err != nil {
		return nil, err
	}
	if _, err = claims.id("jti"); err != nil {
		return nil, err
	}
	user.Operator = c.isOperator(claims)
	return user, nil
}

// lists reports whether a claim is the string, or an array of strings that
// holds it.
func (m members) lists(name, want string) bool {
	return listed(m[name], want)
}

func listed(raw jsontext.Value, want string) bool {
	switch raw.Kind() {
	case '"':
		var one string
		return json.Unmarshal(raw, &one) == nil && one == want
	case '[':
		var list []*string
		if json.Unmarshal(raw, &list) != nil {
			return false
		}
		return slices.ContainsFunc(list, func(s *string) bool { return s != nil && *s == want })
	}
	return false
}

// checkTimes returns when the token expires.
func (c *Config) checkTimes(claims members) (time.Time, error) {
	now := c.Now()
	expires, ok, err := claims.date("exp")
	switch {
	case err != nil:
		return expires, err
	case !ok:
		return expires, errors.New("exp is missing")
	case !now.Before(expires.Add(c.Leeway)):
		return expires, fmt.Errorf("the token expired at %s", expires)
	}
	for _, name := range []string{"nbf", "iat"} {
		begin, ok, err := claims.date(name)
		if err != nil {
			return expires, err
		}
		if ok && begin.After(now.Add(c.Leeway)) {
			return expires, fmt.Errorf("%s is %s, and still to come", name, begin)
		}
	}
	return expires, nil
}

// lastSecond is the end of the year 9999: what is later, time cannot hold.
const lastSecond = 253402300799

// date reads a NumericDate (RFC 7519 §2): seconds, maybe with a fraction.
func (m members) date(name string) (at time.Time, ok bool, err error) {
	raw, ok := m[name]
	if !ok {
		return at, false, nil
	}
	seconds, err := strconv.ParseFloat(string(raw), 64)
	if raw.Kind() != '0' || err != nil || seconds < 0 || seconds > lastSecond {
		return at, false, fmt.Errorf("%s is no time", name)
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)).UTC(), true, nil
}

// subject returns the user's id. Supabase's public anon key and its service_role
// key are tokens too, signed by the same key: their role keeps them out.
func (c *Config) subject(claims members) (string, error) {
	sub, err := claims.id("sub")
	if err != nil {
		return "", err
	}
	if c.Provider == OIDC {
		if sub == "" {
			return "", errors.New("sub is missing")
		}
		return sub, nil
	}
	if role, err := claims.text("role"); err != nil || role != "authenticated" {
		return "", fmt.Errorf("role is %.100q", role)
	}
	if sub = strings.ToLower(sub); !previewd.IsID(sub) {
		return "", errors.New("sub is no UUID")
	}
	return sub, nil
}

// id returns a claim that must be a short string of printable ASCII without
// spaces; "" when it is absent or empty.
func (m members) id(name string) (string, error) {
	text, err := m.text(name)
	if err != nil {
		return "", err
	}
	if len(text) > maxID || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s is no id", name)
	}
	return text, nil
}

func (c *Config) isOperator(claims members) bool {
	if c.OperatorClaim == "" {
		return false
	}
	// Names with dots are common where claims are named by URLs.
	if claims.lists(c.OperatorClaim, c.OperatorValue) {
		return true
	}
	path := strings.Split(c.OperatorClaim, ".")
	for _, name := range path[:len(path)-1] {
		var err error
		if claims, err = parseMembers(claims[name]); err != nil {
			return false
		}
	}
	return claims.lists(path[len(path)-1], c.OperatorValue)
}

package previewd

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// Scope is a kind of requests that a service token may send.
type Scope string

// The scopes. None holds another.
const (
	ScopeProjectsRead  Scope = "projects:read"  // projects, builds, logs, versions, what became of keys, and what failures show of the source
	ScopeProjectsWrite Scope = "projects:write" // create, cancel, activate, delete
	ScopeEventsRead    Scope = "events:read"    // the feed, and streams of builds
	ScopeOperate       Scope = "operate"        // integrity and metrics
)

// Scopes are what a token may do.
type Scopes []Scope

// AllScopes lists every scope.
func AllScopes() Scopes {
	return Scopes{ScopeProjectsRead, ScopeProjectsWrite, ScopeEventsRead, ScopeOperate}
}

// Has reports whether the scopes hold this one.
func (s Scopes) Has(scope Scope) bool { return slices.Contains(s, scope) }

// String lists the scopes with a space between.
func (s Scopes) String() string {
	var words []string
	for _, scope := range s {
		words = append(words, string(scope))
	}
	return strings.Join(words, " ")
}

// Token is a service token, without its secret: that is shown once, when the
// token is made.
type Token struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Principal  string     `json:"principal"` // scopes idempotency keys
	Service    string     `json:"service"`   // createdByService of what it creates
	Scopes     Scopes     `json:"scopes"`
	LegacyIDs  bool       `json:"legacyIds,omitempty"` // may bring its own project ids
	CreatedAt  time.Time  `json:"createdAt"`
	LastUsedAt *time.Time `json:"lastUsedAt,omitempty"` // to the minute
	ExpiresAt  *time.Time `json:"expiresAt,omitempty"`
	RevokedAt  *time.Time `json:"revokedAt,omitempty"`
}

// Live reports whether the token is good at a moment.
func (t *Token) Live(now time.Time) bool {
	return t.RevokedAt == nil && (t.ExpiresAt == nil || now.Before(*t.ExpiresAt))
}

// Caller returns who bears the token.
func (t *Token) Caller() Caller {
	return Caller{Principal: t.Principal, Service: t.Service, LegacyIDs: t.LegacyIDs}
}

const (
	secretPrefix = "pvd_"
	secretBytes  = 24
)

// NewTokenSecret returns a new secret of a service token: "pvd_" and 48
// hexadecimal digits.
func NewTokenSecret() string {
	var b [secretBytes]byte
	rand.Read(b[:])
	return secretPrefix + hex.EncodeToString(b[:])
}

// IsTokenSecret reports whether s has the form of NewTokenSecret's.
func IsTokenSecret(s string) bool {
	digits, ok := strings.CutPrefix(s, secretPrefix)
	return ok && len(digits) == 2*secretBytes && strings.Trim(digits, "0123456789abcdef") == ""
}

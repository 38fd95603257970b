// Package identity verifies users' tokens and says whom they speak for. It
// never issues any.
package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/previewd/previewd"
)

// Provider says whose tokens are taken, and so what a user's must hold.
type Provider string

// The providers.
const (
	Supabase Provider = "supabase" // role "authenticated", and a UUID as subject
	OIDC     Provider = "oidc"     // any issuer of JWTs: a subject
)

// Config is everything a Verifier needs. A zero field takes the default its comment names.
type Config struct {
	Provider Provider // default Supabase
	Issuer   string   // the exact iss of tokens
	Audience string   // that aud must contain; default "authenticated" for Supabase
	// JWKSURL is where the issuer publishes its keys: https, or http on loopback.
	// "" takes no tokens that are signed with a key pair.
	JWKSURL string
	// HS256Secret is shared with the issuer. Tokens signed so are taken only when
	// it is set: whoever knows it can make any token.
	HS256Secret string
	// OperatorClaim is the path of the claim that makes an operator, such as
	// app_metadata.role, when it is OperatorValue or a list that holds it. "" makes
	// nobody one. It must be one that users cannot write themselves.
	OperatorClaim string
	OperatorValue string
	LocalToken    string // speaks for LocalUser as it is; "" is none
	LocalUser     previewd.User
	Leeway        time.Duration    // for clocks that differ; default 60 s
	Now           func() time.Time // default time.Now
	HTTP          *http.Client     // fetches keys; default one of its own. Its redirects and timeout are set here
	Log           *slog.Logger     // default slog.Default()
	// Denied says whether a user or session is shut out before its tokens expire.
	// It is asked once the signature is good; nil shuts nobody out.
	Denied func(ctx context.Context, userID, sessionID string) (bool, error)
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	cfg  Config
	keys *keyCache // nil without a JWKSURL
	// localDigest is compared instead of the token, so that neither its length nor
	// its beginning can be found by timing.
	localDigest [sha256.Size]byte
	counts      Counts
}

// New returns a Verifier. It fails when the configuration could let in whom it
// should not, or nobody at all.
func New(cfg Config) (*Verifier, error) {
	cfg.fill()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	v := &Verifier{cfg: cfg, localDigest: sha256.Sum256([]byte(cfg.LocalToken))}
	if cfg.JWKSURL != "" {
		v.keys = newKeyCache(cfg, &v.counts)
	}
	return v, nil
}

func (c *Config) fill() {
	if c.Provider == "" {
		c.Provider = Supabase
	}
	if c.Audience == "" && c.Provider == Supabase {
		c.Audience = "authenticated"
	}
	if c.Leeway == 0 {
		c.Leeway = time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.HTTP == nil {
		c.HTTP = &http.Client{}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
}

// Secrets shorter than these can be guessed.
const (
	minSecret     = 32 // RFC 7518 §3.2
	minLocalToken = 16
)

func (c *Config) check() error {
	tokens := c.JWKSURL != "" || c.HS256Secret != ""
	switch {
	case c.Provider != Supabase && c.Provider != OIDC:
		return fmt.Errorf("cannot use provider %q: it must be supabase or oidc", c.Provider)
	case !tokens && c.LocalToken == "":
		return errors.New("cannot verify tokens: name the issuer's JWKS URL, or a secret shared with it")
	case tokens && c.Issuer == "":
		return errors.New("cannot verify tokens: name the issuer")
	case tokens && c.Audience == "":
		return errors.New("cannot verify tokens: name the audience that they must be for")
	case c.HS256Secret != "" && len(c.HS256Secret) < minSecret:
		return fmt.Errorf("cannot use the HS256 secret: it must have %d bytes or more", minSecret)
	case strings.Contains(c.HS256Secret, "-----BEGIN"):
		return errors.New("cannot use the HS256 secret: it is a key in PEM, which is no secret; name a JWKS URL instead")
	case c.LocalToken != "" && len(c.LocalToken) < minLocalToken:
		return fmt.Errorf("cannot use the local token: it must have %d bytes or more", minLocalToken)
	case c.LocalToken != "" && c.LocalUser.ID == "":
		return errors.New("cannot use the local token: it must speak for a user with an id")
	case (c.OperatorClaim == "") != (c.OperatorValue == ""):
		return errors.New("cannot tell operators: name both the claim and its value, or neither")
	case c.OperatorClaim == "user_metadata" || strings.HasPrefix(c.OperatorClaim, "user_metadata."):
		return errors.New("cannot tell operators by user_metadata: users write that themselves")
	}
	if c.JWKSURL == "" {
		return nil
	}
	return checkURL(c.JWKSURL)
}

// Verify returns whom the token speaks for. It returns CodeUnauthorized for a
// token that is not good, with the same message whatever is wrong with it and the
// cause in Err, and CodeUnavailable when that cannot be said now.
func (v *Verifier) Verify(ctx context.Context, token string) (*previewd.User, error) {
	user, err := v.verify(ctx, token)
	if err != nil {
		if e := (*previewd.Error)(nil); errors.As(err, &e) {
			return nil, e
		}
		return nil, &previewd.Error{Code: previewd.CodeUnauthorized, Message: "The access token is not valid: sign in again.", Err: err}
	}
	if v.cfg.Denied == nil {
		return user, nil
	}
	denied, err := v.cfg.Denied(ctx, user.ID, user.SessionID)
	switch {
	case err != nil:
		return nil, unavailable("Whether you are still signed in cannot be checked now: try again shortly.", time.Second, err)
	case denied:
		return nil, &previewd.Error{Code: previewd.CodeUnauthorized, Message: "The access token is not valid: sign in again.", Err: errDenied}
	}
	return user, nil
}

var errDenied = errors.New("the user or session is shut out")

// verify returns an *Error only for what is not the token's fault.
func (v *Verifier) verify(ctx context.Context, token string) (*previewd.User, error) {
	if len(token) > maxToken {
		return nil, fmt.Errorf("the token has %d bytes", len(token))
	}
	digest := sha256.Sum256([]byte(token))
	if v.cfg.LocalToken != "" && subtle.ConstantTimeCompare(digest[:], v.localDigest[:]) == 1 {
		user := v.cfg.LocalUser
		return &user, nil
	}
	t, err := parseToken(token)
	if err != nil {
		return nil, err
	}
	if err := v.checkSignature(ctx, t); err != nil {
		return nil, err
	}
	return v.cfg.readUser(t.payload)
}

// checkSignature chooses the key by what is configured, never by what the token
// would like: HS256 knows the shared secret only, all else the issuer's keys only.
func (v *Verifier) checkSignature(ctx context.Context, t *signed) error {
	if t.alg == algHS256 {
		if v.cfg.HS256Secret == "" {
			return errors.New("HS256 is switched off")
		}
		return t.verify([]byte(v.cfg.HS256Secret))
	}
	if !isKeyPair(t.alg) {
		return fmt.Errorf("alg %.100q is not taken", t.alg)
	}
	if v.keys == nil {
		return errors.New("no keys of the issuer are configured")
	}
	public, err := v.keys.find(ctx, t.kid, t.alg)
	if err != nil {
		return err
	}
	return t.verify(public)
}

// Counts returns the verifier's counters.
func (v *Verifier) Counts() *Counts { return &v.counts }

func unavailable(message string, after time.Duration, cause error) error {
	return &previewd.Error{Code: previewd.CodeUnavailable, Message: message, RetryAfter: after, Err: cause}
}

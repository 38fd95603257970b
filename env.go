package previewd

import (
	"context"
	"log/slog"
	"regexp"
	"slices"
	"time"
)

// Hidden is text that nobody is to see: printed or encoded it is three stars.
// string(h) is what it says.
type Hidden string

const stars = "***"

// String implements fmt.Stringer.
func (Hidden) String() string { return stars }

// GoString implements fmt.GoStringer.
func (Hidden) GoString() string { return stars }

// MarshalText implements encoding.TextMarshaler.
func (Hidden) MarshalText() ([]byte, error) { return []byte(stars), nil }

// LogValue implements slog.LogValuer.
func (Hidden) LogValue() slog.Value { return slog.StringValue(stars) }

// EnvScope is a part of a build that is given a variable.
type EnvScope string

// The scopes.
const (
	EnvInstall EnvScope = "install" // commands that install packages, and the packages' own scripts
	EnvBuild   EnvScope = "build"   // the build command, and what is put into pages
)

// EnvScopes lists the scopes.
func EnvScopes() []EnvScope { return []EnvScope{EnvInstall, EnvBuild} }

// Bounds of a project's environment.
const (
	MaxEnvVars       = 100
	MaxEnvValueBytes = 32 << 10
	MaxEnvBytes      = 64 << 10 // of all names and values
	MinSecretBytes   = 8        // without the white space around it: shorter ones occur in logs by chance
)

var envName = regexp.MustCompile(`^[A-Z_a-z][A-Z0-9_a-z]{0,127}$`)

// IsEnvName reports whether s can be the name of a variable. Some such names are
// the server's own.
func IsEnvName(s string) bool { return envName.MatchString(s) }

// BadEnvName says what the name of a variable can be.
func BadEnvName() *Error {
	return &Error{Code: CodeInvalid, Message: "A variable's name has 1 to 128 of A-Z a-z 0-9 _ and does not begin with a digit.", Details: "name"}
}

// EnvVar is a variable of a project's builds.
type EnvVar struct {
	Name      string     `json:"name"`
	Value     *string    `json:"value,omitempty" doc:"Absent for a secret: nothing tells it."`
	Secret    bool       `json:"secret"`
	Scopes    []EnvScope `json:"scopes" nullable:"false" enum:"install,build" doc:"Which commands are given it."`
	UpdatedAt time.Time  `json:"updatedAt"`
}

// EnvKeeper keeps the variables of a project's builds. A change is seen by builds
// that start after it.
type EnvKeeper interface {
	// ListEnv returns the project's variables by name. It returns CodeNotFound when
	// there is no such project.
	ListEnv(ctx context.Context, projectID string) ([]EnvVar, error)
	// SetEnv stores a variable, in place of one of its name. It returns CodeInvalid
	// for what no variable can be, CodeTooLarge past the bounds, CodeNotFound when
	// there is no such project, CodeConflict for a plain one in the place of a secret,
	// and CodeUnavailable when this server has no key for secrets.
	SetEnv(ctx context.Context, req SetEnvRequest) (*EnvVar, error)
	// DeleteEnv removes a variable; that there is none of its name is as good. It
	// returns CodeNotFound when there is no such project.
	DeleteEnv(ctx context.Context, req DeleteEnvRequest) error
}

// SetEnvRequest is what a variable is made of.
type SetEnvRequest struct {
	ProjectID string
	Name      string
	Value     Hidden
	Secret    bool
	Scopes    []EnvScope // default EnvBuild
	Caller    Caller
}

// DeleteEnvRequest names a variable.
type DeleteEnvRequest struct {
	ProjectID string
	Name      string
	Caller    Caller
}

// ClaimVar is a variable as a runner gets it.
type ClaimVar struct {
	Name   string
	Value  Hidden
	Secret bool
	Scopes []EnvScope
}

// In reports whether commands of a scope are given the variable.
func (v *ClaimVar) In(scope EnvScope) bool { return slices.Contains(v.Scopes, scope) }

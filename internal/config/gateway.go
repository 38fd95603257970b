package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/previewd/previewd"
)

// Role is a part of previewd that a process can be.
type Role string

// The roles.
const (
	RoleWorker  Role = "worker"  // /v1, and looks after projects and builds
	RoleRunner  Role = "runner"  // runs builds
	RolePreview Role = "preview" // serves versions
	RoleGateway Role = "gateway" // /api
)

// Gateway is the gateway's configuration.
type Gateway struct {
	GatewayDatabaseURL string `help:"PostgreSQL of the gateway, if it is not the worker's." env:"PREVIEWD_GATEWAY_DATABASE_URL" placeholder:"URL"`
	WorkerURL          string `help:"Worker of another process. Default: this process is the worker." env:"PREVIEWD_WORKER_URL" placeholder:"URL"`
	WorkerToken        string `help:"Service token for that worker. Make one with: previewd tokens create." env:"PREVIEWD_WORKER_TOKEN" placeholder:"TOKEN"`

	UserToken    string `help:"Token of the one local user, who is an operator. Default on loopback, without --jwks-url and --jwt-secret: one made in the data folder." env:"PREVIEWD_USER_TOKEN" placeholder:"TOKEN"`
	JWTProvider  string `help:"Whose tokens users bring: supabase (role authenticated, a UUID as subject) or oidc (any issuer)." enum:"supabase,oidc" default:"supabase" env:"PREVIEWD_JWT_PROVIDER"`
	JWKSURL      string `name:"jwks-url" help:"Where the issuer of users' tokens publishes its keys." env:"PREVIEWD_JWKS_URL" placeholder:"URL"`
	JWTIssuer    string `help:"The exact issuer (iss) of users' tokens." env:"PREVIEWD_JWT_ISSUER" placeholder:"URL"`
	JWTAudience  string `help:"What their audience (aud) must name. Default for supabase: authenticated." env:"PREVIEWD_JWT_AUDIENCE" placeholder:"NAME"`
	JWTSecret    string `help:"Secret that the issuer signs with by HS256. Whoever knows it can be any user: use --jwks-url where you can." env:"PREVIEWD_JWT_SECRET" placeholder:"SECRET"`
	OperatorRole string `help:"CLAIM=VALUE that makes a user an operator; it must be a claim that users cannot write." default:"app_metadata.role=operator" env:"PREVIEWD_OPERATOR_ROLE" placeholder:"CLAIM=VALUE"`

	AllowOrigin []string `help:"Origins whose pages may call /api from a browser, such as https://app.example.com. Default: pages of this origin only." env:"PREVIEWD_ALLOW_ORIGIN" placeholder:"ORIGIN,…"`

	PriceBuildSecond int64 `help:"Price of a second of building, in millionths of your currency." env:"PREVIEWD_PRICE_BUILD_SECOND" placeholder:"MICROS"`
	PriceStoredGiB   int64 `name:"price-stored-gib" help:"Price of a GiB of a version's files, in millionths of your currency." env:"PREVIEWD_PRICE_STORED_GIB" placeholder:"MICROS"`
	BuildsPerDay     int   `help:"Builds that one user may make in a day (UTC); 0 is no bound." env:"PREVIEWD_BUILDS_PER_DAY" placeholder:"N"`
	BuildsAtOnce     int   `help:"Builds of one user that may be under way; 0 is no bound." env:"PREVIEWD_BUILDS_AT_ONCE" placeholder:"N"`
	SpendCap         int64 `help:"What one user may spend in a month (UTC), in millionths of your currency; 0 is no bound." env:"PREVIEWD_SPEND_CAP" placeholder:"MICROS"`

	BillingURL     string         `help:"Where to POST each closed billing session to, signed as a Standard Webhook." env:"PREVIEWD_BILLING_URL" placeholder:"URL"`
	BillingSecret  string         `help:"Secret that it is signed with: whsec_ and base64." env:"PREVIEWD_BILLING_SECRET" placeholder:"SECRET"`
	WebhookAllow   []netip.Prefix `help:"Internal networks that webhooks may go to, such as 10.1.0.0/16. Default: public addresses only." env:"PREVIEWD_WEBHOOK_ALLOW" placeholder:"CIDR,…"`
	WebhookPorts   []uint16       `help:"Ports that webhooks may go to besides 443 and 80." env:"PREVIEWD_WEBHOOK_PORTS" placeholder:"PORT,…"`
	IntentClaim    time.Duration  `help:"How long a process has a creation to itself without being heard of; then another takes it up." default:"10s" env:"PREVIEWD_INTENT_CLAIM"`
	IntentDeadline time.Duration  `help:"After which a creation that the worker has not answered needs an operator." default:"72h" env:"PREVIEWD_INTENT_DEADLINE"`
}

// minClaim leaves a process time to renew its claims.
const minClaim = time.Second

// Is reports whether this process has a role.
func (c *Config) Is(role Role) bool {
	if len(c.Roles) > 0 {
		return slices.Contains(c.Roles, role)
	}
	switch role {
	case RoleGateway:
		return c.hasUsers()
	default:
		return c.WorkerURL == ""
	}
}

// hasUsers reports whether there is a way to know users.
func (c *Config) hasUsers() bool {
	host, _, err := net.SplitHostPort(c.Addr)
	return c.JWKSURL != "" || c.JWTSecret != "" || c.UserToken != "" || err == nil && isLoopback(host)
}

// OwnsWorker reports whether this process works on the worker's database.
func (c *Config) OwnsWorker() bool { return c.Is(RoleWorker) || c.Is(RoleRunner) || c.Is(RolePreview) }

// checkGateway reports what is wrong with roles and the gateway's settings.
func (c *Config) checkGateway() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, r := range c.Roles {
		if !slices.Contains([]Role{RoleWorker, RoleRunner, RolePreview, RoleGateway}, r) {
			fail("--roles knows no %q: name some of worker, runner, preview and gateway", r)
		}
	}
	if !c.Is(RoleGateway) && !c.OwnsWorker() {
		fail("--roles leaves nothing to do")
	}
	if !c.Is(RoleGateway) {
		return errors.Join(errs...)
	}
	if !c.hasUsers() {
		fail("the gateway has no way to know users: set --jwks-url and --jwt-issuer, or PREVIEWD_USER_TOKEN for one local user")
	}
	if c.IntentClaim < 0 || c.IntentClaim > 0 && c.IntentClaim < minClaim {
		fail("--intent-claim must be at least %s", minClaim)
	}
	if u, err := url.Parse(c.WorkerURL); c.WorkerURL != "" && (err != nil || u.Host == "") {
		fail("--worker-url %q is not a URL such as http://worker:8080", c.WorkerURL)
	}
	switch {
	case c.WorkerURL == "" && !c.OwnsWorker():
		fail("a gateway that is no worker needs --worker-url")
	case c.WorkerURL != "" && c.WorkerToken == "":
		fail("--worker-url needs PREVIEWD_WORKER_TOKEN: make a token there with `previewd tokens create gateway`")
	}
	if c.GatewayDatabaseURL != "" && !strings.HasPrefix(c.GatewayDatabaseURL, "postgres://") && !strings.HasPrefix(c.GatewayDatabaseURL, "postgresql://") {
		fail("--gateway-database-url must begin with postgres://")
	}
	if c.UserToken != "" && (len(c.UserToken) < minToken || c.UserToken == c.ServiceToken) {
		fail("the user token must have at least %d characters and differ from the service token", minToken)
	}
	if c.PriceBuildSecond < 0 || c.PriceStoredGiB < 0 || c.BuildsPerDay < 0 || c.BuildsAtOnce < 0 || c.SpendCap < 0 {
		fail("prices and bounds must be 0 or more")
	}
	if _, value, ok := strings.Cut(c.OperatorRole, "="); c.OperatorRole != "" && (!ok || value == "") {
		fail("--operator-role %q is not CLAIM=VALUE", c.OperatorRole)
	}
	for _, origin := range c.AllowOrigin {
		if u, err := url.Parse(origin); err != nil || u.Host == "" || u.Scheme+"://"+u.Host != origin {
			fail("--allow-origin %q is not an origin such as https://app.example.com", origin)
		}
	}
	if (c.BillingURL == "") != (c.BillingSecret == "") {
		fail("--billing-url and PREVIEWD_BILLING_SECRET belong together")
	}
	return errors.Join(errs...)
}

// Quotas are what one user may do.
func (g *Gateway) Quotas() previewd.Quotas {
	return previewd.Quotas{BuildsPerDay: g.BuildsPerDay, Concurrent: g.BuildsAtOnce, SpendCap: g.SpendCap}
}

// Prices are what things cost.
func (g *Gateway) Prices() previewd.Prices {
	return previewd.Prices{BuildSecond: g.PriceBuildSecond, StoredGiB: g.PriceStoredGiB}
}

// LocalUser reports whether the data folder's own user token is to be used.
func (c *Config) LocalUser() bool {
	return c.UserToken == "" && c.JWKSURL == "" && c.JWTSecret == ""
}

// UserTokenPath returns where the local user's token is.
func (c *Config) UserTokenPath() string { return UserTokenPath(c.Data) }

// UserTokenPath returns where a data folder's local user token is.
func UserTokenPath(data string) string { return filepath.Join(data, "user-token") }

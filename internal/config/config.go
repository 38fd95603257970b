// Package config is the server's configuration: one struct, filled from flags,
// PREVIEWD_* variables and a file, then validated as a whole.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

// Config says how `previewd serve` runs.
type Config struct {
	Addr              string        `help:"Address to listen on." default:"127.0.0.1:8080" env:"PREVIEWD_ADDR"`
	Data              string        `help:"Folder for the database, artifacts and tokens; created if missing." default:"./previewd-data" env:"PREVIEWD_DATA" type:"path"`
	DatabaseURL       string        `help:"PostgreSQL 15 or newer, such as postgres://user:password@host/database. Several servers can share it. Behind a transaction pooler that keeps no prepared statements, add ?default_query_exec_mode=exec. Default: SQLite in the data folder." env:"PREVIEWD_DATABASE_URL" placeholder:"URL"`
	Artifacts         string        `help:"Folder for artifacts; servers that share a database must share it. Default: in the data folder." env:"PREVIEWD_ARTIFACTS" placeholder:"DIR" type:"path"`
	BaseURL           string        `help:"URL under which clients reach the API. Default: http://<addr>." env:"PREVIEWD_BASE_URL" placeholder:"URL"`
	PreviewDomain     string        `help:"Domain of previews, with a port if it is not the URL's default. Default: preview.localhost:<port>." env:"PREVIEWD_PREVIEW_DOMAIN" placeholder:"HOST[:PORT]"`
	AllowSharedDomain bool          `help:"Let previews share the API's registrable domain. Their scripts can then reach its cookies." env:"PREVIEWD_ALLOW_SHARED_DOMAIN"`
	ServiceToken      string        `help:"Service token. Default on loopback: one made in the data folder." env:"PREVIEWD_SERVICE_TOKEN" placeholder:"TOKEN"`
	LegacyToken       string        `help:"Second service token, whose requests may bring project ids of their own. Deprecated: for clients that are being moved." env:"PREVIEWD_LEGACY_TOKEN" placeholder:"TOKEN"`
	SecretsKey        string        `help:"Key that secrets of projects are encrypted with: 32 bytes in hex or base64. Servers that share a database must have the same. Default: the data folder's secrets-key, which is made when the first secret is stored; on PostgreSQL none is made." env:"PREVIEWD_SECRETS_KEY" placeholder:"KEY"`
	Builds            int           `help:"Builds at once; -1 runs none and leaves them to other servers. Default: the number of CPUs." env:"PREVIEWD_BUILDS" default:"0" placeholder:"N"`
	QueuePerUser      int           `help:"Builds of one user that may wait." env:"PREVIEWD_QUEUE_PER_USER" default:"1000" placeholder:"N"`
	QueueTotal        int           `help:"Builds that may wait in all." env:"PREVIEWD_QUEUE_TOTAL" default:"100000" placeholder:"N"`
	Lease             time.Duration `help:"How long a runner keeps a build without being heard of." env:"PREVIEWD_LEASE" default:"30s"`
	BuildTimeout      time.Duration `help:"How long one try of a build may take." env:"PREVIEWD_BUILD_TIMEOUT" default:"5m"`
	QueueTimeout      time.Duration `help:"How long a build may wait to be taken." env:"PREVIEWD_QUEUE_TIMEOUT" default:"1h"`
	NPMRegistry       string        `help:"npm registry that builds install from, through the server's cache." env:"PREVIEWD_NPM_REGISTRY" default:"https://registry.npmjs.org" placeholder:"URL"`
	NPMMinAge         time.Duration `help:"Versions of packages younger than this do not exist for builds: most malicious ones are found within days." env:"PREVIEWD_NPM_MIN_AGE" placeholder:"72h"`
	NPMBlock          []string      `help:"Packages that do not exist for builds." env:"PREVIEWD_NPM_BLOCK" placeholder:"NAME,..."`
	NPMCache          int64         `help:"MiB of packages to keep for later builds." env:"PREVIEWD_NPM_CACHE" default:"4096" placeholder:"MIB"`
	ModulesCache      int64         `help:"MiB of installed packages to keep for builds that install the same." env:"PREVIEWD_MODULES_CACHE" default:"4096" placeholder:"MIB"`
	MinFree           int64         `help:"MiB of disk that stay free: below it caches are emptied, then new builds are refused." env:"PREVIEWD_MIN_FREE" default:"256" placeholder:"MIB"`
	BuildMemory       int64         `help:"MiB of memory that a build may take, the files that it writes among them." env:"PREVIEWD_BUILD_MEMORY" default:"2048" placeholder:"MIB"`
	BuildDisk         int64         `help:"MiB of files that a build may have." env:"PREVIEWD_BUILD_DISK" default:"1024" placeholder:"MIB"`
	BuildProcesses    int64         `help:"Processes and threads that a build may have." env:"PREVIEWD_BUILD_PROCESSES" default:"256" placeholder:"N"`
	BuildUID          int           `help:"User and group number that builds have on this machine when the server is root; it should own nothing." env:"PREVIEWD_BUILD_UID" default:"200001" placeholder:"N"`
	UnsafeNoSandbox   bool          `help:"Run the commands of trees as processes of this machine, which keeps them from nothing. For your own trees on your own machine; needs a loopback --addr." env:"PREVIEWD_UNSAFE_NO_SANDBOX"`
	Roles             []Role        `help:"What this process is, of worker, runner, preview and gateway. Default: all that it has the settings for." env:"PREVIEWD_ROLES" placeholder:"ROLE,…"`

	Boxes   `embed:"" group:"What the code of trees runs in"`
	Gateway `embed:"" group:"Gateway: what users call"`

	LogLevel  string `help:"Least level that is logged: debug, info, warn or error." enum:"debug,info,warn,error" default:"info" env:"PREVIEWD_LOG_LEVEL"`
	LogFormat string `help:"Form of the log: text or json." enum:"text,json" default:"text" env:"PREVIEWD_LOG_FORMAT"`
}

const minToken = 16

// minLease leaves a runner time for three heartbeats.
const minLease = 300 * time.Millisecond

// Validate reports everything that is wrong, in words that say what to do.
func (c *Config) Validate() error {
	var errs []error
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		errs = append(errs, fmt.Errorf("--addr %q is not HOST:PORT, such as 127.0.0.1:8080", c.Addr))
	}
	if c.Data == "" {
		errs = append(errs, errors.New("--data is empty: name a folder"))
	}
	if c.ServiceToken != "" && len(c.ServiceToken) < minToken {
		errs = append(errs, fmt.Errorf("the service token is shorter than %d characters: make one with `openssl rand -hex 24`", minToken))
	}
	if err == nil && c.ServiceToken == "" && !isLoopback(host) && c.Is(RoleWorker) {
		errs = append(errs, fmt.Errorf("--addr %s is open to the network, so a token must be given: set PREVIEWD_SERVICE_TOKEN", c.Addr))
	}
	if err == nil && c.UnsafeNoSandbox && !isLoopback(host) {
		errs = append(errs, fmt.Errorf("--unsafe-no-sandbox lets whoever creates a project run commands on this machine, so --addr must be loopback, such as 127.0.0.1:8080, and not %s", c.Addr))
	}
	if c.UnsafeNoSandbox && c.Runner != "" && c.Runner != BoxSandbox {
		errs = append(errs, fmt.Errorf("--unsafe-no-sandbox and --runner %s exclude each other: leave one out", c.Runner))
	}
	if c.LegacyToken != "" && (len(c.LegacyToken) < minToken || c.LegacyToken == c.ServiceToken) {
		errs = append(errs, fmt.Errorf("the legacy token must have at least %d characters and differ from the service token", minToken))
	}
	if c.SecretsKey != "" {
		if _, err := ParseSecretsKey(c.SecretsKey); err != nil {
			errs = append(errs, err)
		}
	}
	if c.DatabaseURL != "" && !strings.HasPrefix(c.DatabaseURL, "postgres://") && !strings.HasPrefix(c.DatabaseURL, "postgresql://") {
		errs = append(errs, errors.New("--database-url must begin with postgres://; for SQLite leave it out"))
	}
	if c.QueuePerUser < 0 || c.QueueTotal < 0 {
		errs = append(errs, errors.New("--queue-per-user and --queue-total must be 0 (no bound) or more"))
	}
	if c.Lease < 0 || c.Lease > 0 && c.Lease < minLease || c.BuildTimeout < 0 || c.QueueTimeout < 0 {
		errs = append(errs, fmt.Errorf("--lease must be at least %s, and no time limit may be negative", minLease))
	}
	if u, err := url.Parse(c.NPMRegistry); c.NPMRegistry != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		errs = append(errs, fmt.Errorf("--npm-registry %q is not a URL such as https://registry.npmjs.org", c.NPMRegistry))
	}
	if c.NPMMinAge < 0 {
		errs = append(errs, fmt.Errorf("--npm-min-age %s must not be negative", c.NPMMinAge))
	}
	if c.NPMCache < 0 || c.ModulesCache < 0 || c.MinFree < 0 || c.BuildMemory < 0 || c.BuildDisk < 0 || c.BuildProcesses < 0 || c.BuildUID < 0 {
		errs = append(errs, errors.New("--npm-cache, --modules-cache, --min-free, --build-memory, --build-disk, --build-processes and --build-uid must be 0 (the default) or more"))
	}
	if c.Builds < -1 {
		errs = append(errs, errors.New("--builds must be -1 or more"))
	}
	errs = append(errs, c.checkGateway(), c.checkBoxes())
	return errors.Join(append(errs, c.checkDomains())...)
}

// checkDomains refuses previews on the API's site: their scripts are strangers'.
func (c *Config) checkDomains() error {
	if c.BaseURL == "" && c.PreviewDomain == "" {
		return nil
	}
	base, err := url.Parse(c.BaseURL)
	if c.BaseURL != "" && (err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https") {
		return fmt.Errorf("--base-url %q is not a URL such as https://previews.example.com", c.BaseURL)
	}
	domain := hostOnly(c.PreviewDomain)
	if domain == "" || c.AllowSharedDomain || domain == "localhost" || strings.HasSuffix(domain, ".localhost") {
		return nil
	}
	if base == nil || base.Host == "" {
		return errors.New("--preview-domain needs --base-url, to make sure that the two share no registrable domain")
	}
	api := normalHost(base.Hostname())
	if site(api) == site(domain) || strings.HasSuffix(domain, "."+api) || strings.HasSuffix(api, "."+domain) {
		return fmt.Errorf("--preview-domain %s and the API's host %s share the registrable domain %s, so scripts of previews could reach the API's cookies: "+
			"use another domain, or --allow-shared-domain if you accept that", domain, api, site(api))
	}
	return nil
}

func site(host string) string {
	if s, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return s
	}
	return host
}

func hostOnly(hostPort string) string {
	if host, _, err := net.SplitHostPort(hostPort); err == nil {
		return normalHost(host)
	}
	return normalHost(hostPort)
}

// normalHost drops what does not tell hosts apart: case and a final dot.
func normalHost(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Complete fills what depends on the address that the server really got.
func (c *Config) Complete(listening net.Addr) {
	host, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return
	}
	if c.BaseURL == "" {
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			host = "localhost"
		}
		c.BaseURL = "http://" + net.JoinHostPort(host, port)
	}
	if c.PreviewDomain == "" {
		c.PreviewDomain = net.JoinHostPort("preview.localhost", port)
	}
}

// PreviewHost returns the preview domain without its port.
func (c *Config) PreviewHost() string { return hostOnly(c.PreviewDomain) }

// PreviewURL returns the URL of the preview host with this label.
func (c *Config) PreviewURL(label string) string {
	scheme, _, _ := strings.Cut(c.BaseURL, "://")
	return scheme + "://" + label + "." + c.PreviewDomain + "/"
}

// Paths in the data folder.
func (c *Config) path(name string) string { return filepath.Join(c.Data, name) }

// DatabasePath returns where the SQLite database is.
func (c *Config) DatabasePath() string { return c.path("previewd.db") }

// ArtifactsPath returns where artifacts are stored.
func (c *Config) ArtifactsPath() string {
	if c.Artifacts != "" {
		return c.Artifacts
	}
	return c.path("artifacts")
}

// RunnerPath returns the file that holds the name of this folder's runner.
func (c *Config) RunnerPath() string { return c.path("runner-id") }

// WorkPath returns where builds work; it is emptied at start and stop.
func (c *Config) WorkPath() string { return c.path("work") }

// LockPath returns the file that keeps a second server out of the folder.
func (c *Config) LockPath() string { return c.path("lock") }

// TokenPath returns where the local service token is.
func (c *Config) TokenPath() string { return TokenPath(c.Data) }

// AddressPath returns where a running server says how to reach it.
func (c *Config) AddressPath() string { return AddressPath(c.Data) }

// TokenPath returns where a data folder's local service token is.
func TokenPath(data string) string { return filepath.Join(data, "service-token") }

// AddressPath returns where a data folder's server says how to reach it.
func AddressPath(data string) string { return filepath.Join(data, "address") }

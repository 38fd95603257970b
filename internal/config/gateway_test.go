package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/previewd/previewd/internal/config"
)

// base is a whole server on loopback, changed.
func base(change func(*config.Config)) *config.Config {
	c := &config.Config{Addr: "127.0.0.1:8080", Data: "data"}
	change(c)
	return c
}

type roles = []config.Role

const (
	workerURL   = "http://worker:8080"
	workerToken = "pvd_0123456789abcdef"
	token       = "0123456789abcdef"
)

func TestNoSandboxNeedsLoopback(t *testing.T) {
	t.Parallel()
	unsafe := base(func(c *config.Config) { c.UnsafeNoSandbox = true })
	require.NoError(t, unsafe.Validate())
	unsafe.Addr, unsafe.ServiceToken = "0.0.0.0:8080", token
	require.ErrorContains(t, unsafe.Validate(), "--unsafe-no-sandbox")
}

func TestRolesFollowFromSettings(t *testing.T) {
	t.Parallel()
	all := roles{config.RoleWorker, config.RoleRunner, config.RolePreview, config.RoleGateway}
	for name, c := range map[string]struct {
		change func(*config.Config)
		want   roles
		local  bool
	}{
		"Loopback":       {func(*config.Config) {}, all, true},
		"Open":           {func(c *config.Config) { c.Addr, c.ServiceToken = "0.0.0.0:8080", token }, all[:3], true},
		"OpenWithIssuer": {func(c *config.Config) { c.Addr, c.ServiceToken, c.JWKSURL = "0.0.0.0:8080", token, "https://i/jwks" }, all, false},
		"OpenWithSecret": {func(c *config.Config) { c.Addr, c.ServiceToken, c.JWTSecret = "0.0.0.0:8080", token, token }, all, false},
		"OpenWithUser":   {func(c *config.Config) { c.Addr, c.ServiceToken, c.UserToken = "0.0.0.0:8080", token, token+"u" }, all, false},
		"WorkerURL":      {func(c *config.Config) { c.WorkerURL, c.WorkerToken = workerURL, workerToken }, all[3:], true},
		"Named":          {func(c *config.Config) { c.Roles = roles{config.RoleWorker, config.RolePreview} }, roles{config.RoleWorker, config.RolePreview}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := base(c.change)
			require.NoError(t, cfg.Validate())
			for _, role := range all {
				want := false
				for _, r := range c.want {
					want = want || r == role
				}
				require.Equal(t, want, cfg.Is(role), role)
			}
			require.Equal(t, c.local, cfg.LocalUser())
			require.Equal(t, cfg.Is(config.RoleWorker) || cfg.Is(config.RoleRunner) || cfg.Is(config.RolePreview), cfg.OwnsWorker())
		})
	}
}

func TestWrongGatewaySettingsSayWhatToDo(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*config.Config){
		`--roles knows no "chef"`: func(c *config.Config) { c.Roles = roles{"chef", config.RoleWorker} },
		"leaves nothing to do":    func(c *config.Config) { c.Roles = roles{"chef"} },
		"no way to know users": func(c *config.Config) {
			c.Addr, c.ServiceToken, c.Roles = "0.0.0.0:80", token, roles{config.RoleGateway, config.RoleWorker}
		},
		"is not a URL":                    func(c *config.Config) { c.WorkerURL, c.WorkerToken = "worker:8080", workerToken },
		"needs --worker-url":              func(c *config.Config) { c.Roles = roles{config.RoleGateway} },
		"needs PREVIEWD_WORKER_TOKEN":     func(c *config.Config) { c.WorkerURL = workerURL },
		"--gateway-database-url must":     func(c *config.Config) { c.GatewayDatabaseURL = "mysql://x" },
		"the user token must have":        func(c *config.Config) { c.UserToken = "short" },
		"differ from the service token":   func(c *config.Config) { c.UserToken, c.ServiceToken = token, token },
		"prices and bounds must be 0":     func(c *config.Config) { c.SpendCap = -1 },
		"is not CLAIM=VALUE":              func(c *config.Config) { c.OperatorRole = "role" },
		"--operator-role \"role=\" is no": func(c *config.Config) { c.OperatorRole = "role=" },
		"belong together":                 func(c *config.Config) { c.BillingURL = "https://biller" },
		"and PREVIEWD_BILLING_SECRET":     func(c *config.Config) { c.BillingSecret = "whsec_x" },
	} {
		require.ErrorContains(t, base(change).Validate(), want)
	}
	for _, change := range []func(*config.Config){
		func(c *config.Config) { c.PriceBuildSecond = -1 }, func(c *config.Config) { c.PriceStoredGiB = -1 },
		func(c *config.Config) { c.BuildsPerDay = -1 }, func(c *config.Config) { c.BuildsAtOnce = -1 },
	} {
		require.ErrorContains(t, base(change).Validate(), "must be 0 or more")
	}
	require.NoError(t, base(func(c *config.Config) {
		c.Addr, c.Roles, c.SpendCap = "127.0.0.1:80", roles{config.RoleRunner}, -1
	}).Validate(), "of no concern to what is no gateway")
	require.NoError(t, base(func(c *config.Config) {
		c.OperatorRole, c.BillingURL, c.BillingSecret = "a.b=c", "https://biller", "whsec_x"
	}).Validate())
}

package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/config"
	"github.com/previewd/previewd/internal/event"
	"github.com/previewd/previewd/internal/gateway"
	"github.com/previewd/previewd/internal/httpx"
	"github.com/previewd/previewd/internal/identity"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/webhook"
	"github.com/previewd/previewd/internal/workerapi"
)

// openStores opens the worker's database and the gateway's, which are one unless
// the configuration names two.
func (a *App) openStores(ctx context.Context) error {
	cfg := a.Config
	switch {
	case !cfg.Is(config.RoleGateway):
		cfg.GatewayDatabaseURL = ""
	case !cfg.OwnsWorker() && cfg.GatewayDatabaseURL != "":
		cfg.DatabaseURL = cfg.GatewayDatabaseURL
	}
	dbs, err := openDatabases(ctx, cfg, store.Config{})
	if err != nil {
		return err
	}
	a.Store = dbs.own
	if cfg.Is(config.RoleGateway) {
		a.Users = dbs.users
	}
	return nil
}

// ping tells whether the databases answer.
func (a *App) ping(ctx context.Context) error {
	err := a.Store.Ping(ctx)
	if a.Users != nil && a.Users != a.Store {
		err = errors.Join(err, a.Users.Ping(ctx))
	}
	return err
}

// gateway builds /api and what works behind it.
func (b *builder) gateway() error {
	cfg := &b.Config
	hub := b.hub
	if b.Users != b.Store {
		hub = &event.Hub{Bus: b.Users}
		b.run(hub.Run)
	}
	near, err := b.findWorker()
	if err != nil {
		return err
	}
	sink, err := b.biller()
	if err != nil {
		return err
	}
	b.Gateway = gateway.New(gateway.Config{
		Service: gatewayName, Store: b.Users, Worker: near, Changes: hub, Log: b.log, Holder: b.runnerID,
		Prices: cfg.Prices(), Quotas: cfg.Quotas(), Claim: cfg.IntentClaim, Deadline: cfg.IntentDeadline, Patience: b.opts.Patience, Sink: sink,
	})
	denials := gateway.NewDenials(b.Users)
	verify, err := b.verifier(denials)
	if err != nil {
		return err
	}
	egress := webhook.NewEgress(webhook.EgressConfig{Allow: cfg.WebhookAllow, AllowPorts: cfg.WebhookPorts, AllowHTTP: len(cfg.WebhookAllow) > 0})
	wake, cancel := hub.Subscribe(gateway.HookTopic)
	b.run(func(ctx context.Context) error {
		defer cancel()
		return webhook.New(webhook.Config{Store: b.Users, Egress: egress, Audit: gateway.AuditHook, Log: b.log, Wake: wake}).Run(ctx)
	})
	gateway.Register(b.mux, gateway.APIConfig{
		Service: b.Gateway, Verify: verify, Denials: denials, Streams: b.userStreams(hub), Version: b.opts.Version, Alone: !cfg.Is(config.RoleWorker),
		Hooks:      webhook.NewService(webhook.ServiceConfig{Store: b.Users, Egress: egress, Audit: gateway.AuditHook}),
		References: databases{b.Store, b.Users},
	})
	recover := b.recover
	b.recover = func(ctx context.Context) error { return errors.Join(recover(ctx), b.Gateway.Recover(ctx)) }
	b.metrics.watchGateway(b.Gateway)
	b.run(b.Gateway.RunReconciler, b.Gateway.RunFollower, b.Gateway.RunParked, b.Gateway.RunComparer, b.Gateway.RunBiller, b.Gateway.RunSweeper)
	return nil
}

// userStreams returns what follows the gateway's events: with a database of its
// own it has hints of its own.
func (b *builder) userStreams(hub *event.Hub) *httpx.Streams {
	if b.Users == b.Store {
		return b.streams
	}
	streams := httpx.NewStreams(httpx.StreamConfig{Hints: hub, Log: b.log})
	b.run(streams.Run)
	return streams
}

// biller returns who is told of closed billing sessions, nil for nobody.
func (b *builder) biller() (previewd.BillingSink, error) {
	if b.Config.BillingURL == "" {
		return nil, nil
	}
	return webhook.NewBiller(b.Config.BillingURL, b.Config.BillingSecret)
}

// gatewayName is what the worker knows the gateway of its own process by.
const gatewayName = "gateway"

// findWorker returns the worker: this process's, or another's by HTTP.
func (b *builder) findWorker() (previewd.Worker, error) {
	if b.Config.WorkerURL == "" {
		return b.Worker.For(gatewayName), nil
	}
	client, err := workerapi.NewClient(workerapi.ClientConfig{
		URL: b.Config.WorkerURL, Token: b.Config.WorkerToken, Timeouts: workerapi.ClientTimeouts{
			Change: 2 * time.Minute, // of the largest tree on a slow line; who asks is less patient
			Read:   workerapi.DefaultClientTimeouts.Read, Integrity: workerapi.DefaultClientTimeouts.Integrity,
		},
	})
	if err != nil {
		return nil, err
	}
	b.metrics.watchClient(client)
	return client, nil
}

// localUser is who the data folder's token speaks for.
var localUser = previewd.User{ID: "00000000-0000-4000-8000-000000000001", Operator: true}

// verifier returns what knows users by their tokens.
func (b *builder) verifier(denials *gateway.Denials) (httpx.VerifyUser, error) {
	cfg := &b.Config
	token := cfg.UserToken
	if cfg.LocalUser() {
		var err error
		if token, err = localToken(cfg.UserTokenPath(), "pvu_"); err != nil {
			return nil, err
		}
	}
	claim, value, _ := strings.Cut(cfg.OperatorRole, "=")
	v, err := identity.New(identity.Config{
		Provider: identity.Provider(cfg.JWTProvider), Issuer: cfg.JWTIssuer, Audience: cfg.JWTAudience, JWKSURL: cfg.JWKSURL,
		HS256Secret: cfg.JWTSecret, OperatorClaim: claim, OperatorValue: value, LocalToken: token, LocalUser: localUser,
		Log: b.log, Denied: denials.Denied,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot know users: %w", err)
	}
	b.metrics.watchVerifier(v)
	return v.Verify, nil
}

// watchGateway shows what the gateway counts.
func (m *metrics) watchGateway(s *gateway.Service) {
	c := s.Counts()
	m.registry.MustRegister(openCollector{s.Store},
		counter("previewd_unknown_worker_status_total", "Statuses of the worker's that nobody knows.", c.UnknownStatus.Load),
		counter("previewd_gateway_bad_answers_total", "Answers of the worker that were not believed.", c.BadAnswers.Load),
		counter("previewd_gateway_corrections_total", "Builds that were corrected without an event: each is a bug.", c.Corrections.Load),
		counter("previewd_gateway_poison_events_total", "Events that were moved aside.", c.Poison.Load),
		counter("previewd_gateway_adopted_total", "Projects of the worker's that were adopted.", c.Adopted.Load),
		counter("previewd_gateway_replays_total", "Requests of users that were answered before.", c.Replays.Load))
}

// openCollector asks the gateway's database at each scrape for what is not done.
type openCollector struct{ db *store.DB }

var (
	eventsParked      = prometheus.NewDesc("previewd_gateway_events_parked", "Events that wait for their project; -1 when that cannot be told.", nil, nil)
	eventsAside       = prometheus.NewDesc("previewd_gateway_events_aside", "Events that could not be applied; -1 when that cannot be told.", nil, nil)
	projectsAttention = prometheus.NewDesc("previewd_gateway_projects_attention", "Projects that need an operator; -1 when that cannot be told.", nil, nil)
	intentsAttention  = prometheus.NewDesc("previewd_gateway_intents_attention", "Creations that need an operator; -1 when that cannot be told.", nil, nil)
)

// Describe implements prometheus.Collector.
func (openCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{eventsParked, eventsAside, projectsAttention, intentsAttention} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (o openCollector) Collect(found chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	show := func(one, two *prometheus.Desc, count func(context.Context) (int, int, error)) {
		n, m, err := count(ctx)
		if err != nil {
			n, m = -1, -1
		}
		found <- prometheus.MustNewConstMetric(one, prometheus.GaugeValue, float64(n))
		found <- prometheus.MustNewConstMetric(two, prometheus.GaugeValue, float64(m))
	}
	show(eventsParked, eventsAside, o.db.CountParked)
	show(projectsAttention, intentsAttention, o.db.CountAttention)
}

// watchClient shows what the worker's client counts.
func (m *metrics) watchClient(client *workerapi.Client) {
	c := client.Counts()
	m.registry.MustRegister(
		counter("previewd_worker_client_tries_total", "Requests to the worker.", c.Tries.Load),
		counter("previewd_worker_client_retries_total", "Requests to the worker that were not their call's first.", c.Retries.Load),
		counter("previewd_worker_client_bad_answers_total", "Answers of the worker that were not believed.", c.BadAnswers.Load),
		counter("previewd_poll_404_after_201_total", "404 for what was created just before: each is a bug.", c.NotFoundAfterCreate.Load),
		counter("previewd_worker_client_circuit_opened_total", "Times that the worker was given a rest.", c.CircuitOpened.Load))
}

// watchVerifier shows what knowing users takes.
func (m *metrics) watchVerifier(v *identity.Verifier) {
	c := v.Counts()
	m.registry.MustRegister(
		counter("previewd_jwks_fetches_total", "Fetches of the issuer's keys.", c.Fetches.Load),
		counter("previewd_jwks_failures_total", "Fetches of the issuer's keys that failed.", c.Failures.Load))
}

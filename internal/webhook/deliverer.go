package webhook

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
	"github.com/previewd/previewd/internal/telemetry"
)

// Audit writes an entry of the audit log, in the transaction that it tells of and
// as the last of it.
type Audit func(ctx context.Context, tx *store.DB, action, subject string, data map[string]any) error

// Config is what a Deliverer needs. A zero field takes the default that its
// comment names.
type Config struct {
	Store       *store.DB
	Egress      *Egress          // default NewEgress with nothing allowed besides public addresses
	Audit       Audit            // default none
	Now         func() time.Time // default time.Now; stamps webhooks. The database's clock decides what is due
	Log         *slog.Logger     // default slog.Default()
	Random      func() float64   // default rand.Float64; spreads attempts
	Concurrency int              // requests at once; default 32
	PerEndpoint int              // requests at once to one endpoint, of all processes; 1 to 4, default 2
	Poll        time.Duration    // how often to look without a hint; default 1 s
	Lease       time.Duration    // default twice the request's timeout
	Grace       time.Duration    // what requests have left when Run is to end; default 5 s
	Sweep       time.Duration    // how often to prune; default 10 min
	Wake        <-chan struct{}  // hints that there is something new; default none
}

// Deliverer sends what is due, as one of any number.
type Deliverer struct {
	cfg    Config
	holder string

	running int // of the goroutine of Run alone
	ended   chan struct{}
}

// New returns a Deliverer.
func New(cfg Config) *Deliverer {
	if cfg.Egress == nil {
		cfg.Egress = NewEgress(EgressConfig{})
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Random == nil {
		cfg.Random = mathrand.Float64
	}
	if cfg.Audit == nil {
		cfg.Audit = noAudit
	}
	def := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	def(&cfg.Poll, time.Second)
	def(&cfg.Lease, 2*cfg.Egress.cfg.Timeout)
	def(&cfg.Grace, 5*time.Second)
	def(&cfg.Sweep, 10*time.Minute)
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 32
	}
	if cfg.PerEndpoint == 0 {
		cfg.PerEndpoint = 2
	}
	cfg.PerEndpoint = min(max(cfg.PerEndpoint, 1), maxPerEndpoint)
	return &Deliverer{cfg: cfg, holder: strings.ToLower(rand.Text()), ended: make(chan struct{}, cfg.Concurrency)}
}

const maxPerEndpoint = 4

func noAudit(context.Context, *store.DB, string, string, map[string]any) error { return nil }

// Run delivers until ctx ends and what it has begun is over: requests have the
// grace to end, and what does not is given back and sent again by whoever is next.
func (d *Deliverer) Run(ctx context.Context) error {
	sending, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var all sync.WaitGroup
	all.Go(func() { d.sweep(ctx) })
	poll := time.NewTicker(d.cfg.Poll)
	defer poll.Stop()
	for ctx.Err() == nil {
		if err := d.startDue(ctx, sending, &all); err != nil && ctx.Err() == nil {
			d.cfg.Log.WarnContext(ctx, "cannot claim webhooks", telemetry.Error, err)
		}
		select {
		case <-ctx.Done():
		case <-poll.C:
		case <-d.cfg.Wake:
		case <-d.ended:
			d.running--
			d.gather(ctx)
		}
	}
	defer time.AfterFunc(d.cfg.Grace, cut).Stop()
	all.Wait()
	return nil
}

// gather waits a moment for others to end, so that one claim serves all.
func (d *Deliverer) gather(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(gatherTime):
	}
	d.countEnded()
}

const gatherTime = 5 * time.Millisecond

func (d *Deliverer) countEnded() {
	for {
		select {
		case <-d.ended:
			d.running--
		default:
			return
		}
	}
}

// startDue claims as much as there is room for, and sends it.
func (d *Deliverer) startDue(ctx, sending context.Context, all *sync.WaitGroup) error {
	room := d.cfg.Concurrency - d.running
	if room == 0 {
		return nil
	}
	if pending, err := d.cfg.Store.HasPendingWebhooks(ctx); err != nil || !pending {
		return err
	}
	request := store.WebhookClaims{Holder: d.holder, Lease: d.cfg.Lease, Limit: room, PerEndpoint: d.cfg.PerEndpoint}
	asked := time.Now() // before the lease begins: it is over no sooner than this says
	var claims []store.WebhookClaim
	err := d.cfg.Store.Tx(ctx, "webhook_claim", func(tx *store.DB) (err error) {
		claims, err = tx.ClaimWebhooks(ctx, request)
		return err
	})
	if err != nil {
		return err
	}
	for _, claim := range claims {
		d.running++
		all.Go(func() {
			d.deliver(sending, &claim, asked)
			d.ended <- struct{}{} // there is room for all that run
		})
	}
	return nil
}

// deliver makes one attempt. It is over before its lease is.
func (d *Deliverer) deliver(ctx context.Context, c *store.WebhookClaim, asked time.Time) {
	log := d.cfg.Log.With(telemetry.WebhookEndpointID, c.Endpoint.ID, telemetry.WebhookDeliveryID, c.ID)
	inLease, cancel := context.WithDeadline(ctx, asked.Add(d.cfg.Lease*3/4))
	defer cancel()
	a := d.post(inLease, c)
	if !a.ok() {
		log.InfoContext(ctx, "webhook not delivered", telemetry.Status, a.Status, telemetry.Took, a.Took, telemetry.Error, a.cause)
	}
	stopped := ctx.Err() != nil && a.Status == 0
	writing, done := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.Lease/4)
	defer done()
	err := d.write(writing, func() error {
		if stopped {
			return d.release(writing, c)
		}
		return d.finish(writing, c, &a)
	})
	switch previewd.ErrorCode(err) {
	case "":
	case previewd.CodeLeaseLost, previewd.CodeNotFound: // dropped or deleted meanwhile
		log.DebugContext(ctx, "webhook was no longer ours", telemetry.Error, err)
	default:
		log.WarnContext(ctx, "cannot record a webhook; it will be sent again", telemetry.Error, err)
	}
}

// write tries again while the lease lasts: a result that is not written is a
// webhook that is sent twice.
func (d *Deliverer) write(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || previewd.ErrorCode(err) != previewd.CodeUnavailable {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (d *Deliverer) release(ctx context.Context, c *store.WebhookClaim) error {
	return d.cfg.Store.Tx(ctx, "webhook_release", func(tx *store.DB) error { return tx.ReleaseWebhook(ctx, c) })
}

// failingLimit is after how long with nothing but failures an endpoint is disabled.
const failingLimit = 5 * 24 * time.Hour

// finish records an attempt, and what it means for the delivery and the endpoint.
func (d *Deliverer) finish(ctx context.Context, c *store.WebhookClaim, a *answer) error {
	disabled := ""
	err := d.cfg.Store.Tx(ctx, "webhook_finish", func(tx *store.DB) (err error) {
		if a.ok() {
			// The endpoint before its deliveries, as everywhere.
			return errors.Join(tx.EndpointWorks(ctx, c.Endpoint.ID),
				tx.EndWebhookAttempt(ctx, c, a.WebhookAttempt, store.WebhookOutcome{Status: previewd.WebhookDelivered}))
		}
		disabled, err = d.fail(ctx, tx, c, a)
		return err
	})
	if err == nil && disabled != "" {
		d.cfg.Log.WarnContext(ctx, "webhook endpoint disabled", telemetry.WebhookEndpointID, c.Endpoint.ID, "reason", disabled)
	}
	return err
}

// fail records a failure. It returns why the endpoint was disabled, "" when it was
// not.
func (d *Deliverer) fail(ctx context.Context, tx *store.DB, c *store.WebhookClaim, a *answer) (disabled string, err error) {
	e, err := tx.LockWebhookEndpoint(ctx, c.Endpoint.OwnerID, c.Endpoint.ID)
	if err != nil {
		return "", err
	}
	outcome := store.WebhookOutcome{Status: previewd.WebhookFailed}
	isTest := c.Type == previewd.WebhookTest
	if in, again := delayAfter(c.Attempt, a.retryAfter, d.cfg.Random()); again && !isTest && a.Status != http.StatusGone {
		outcome = store.WebhookOutcome{Status: previewd.WebhookPending, In: in}
	}
	if err := tx.EndWebhookAttempt(ctx, c, a.WebhookAttempt, outcome); err != nil {
		return "", err
	}
	now := tx.Now()
	switch {
	case e.Status != previewd.WebhookActive:
		return "", nil
	case a.Status == http.StatusGone:
		disabled = "The endpoint answered 410 Gone."
	case isTest: // one try of its owner says nothing
		return "", nil
	case e.FailingSince == nil:
		e.FailingSince = &now
		return "", tx.UpdateWebhookEndpoint(ctx, e)
	case now.Sub(*e.FailingSince) >= failingLimit:
		disabled = "Nothing was delivered for five days."
	default:
		return "", nil
	}
	e.Status, e.DisabledReason = previewd.WebhookDisabled, disabled
	return disabled, errors.Join(tx.UpdateWebhookEndpoint(ctx, e), tx.DropWebhooks(ctx, e.ID, disabled),
		d.cfg.Audit(ctx, tx, "webhook.disable", subject(e.ID), map[string]any{"ownerId": e.OwnerID, "reason": disabled}))
}

const sweepBatch = 500

// sweep prunes now and then, in small transactions.
func (d *Deliverer) sweep(ctx context.Context) {
	tick := time.NewTicker(d.cfg.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := d.Prune(ctx); err != nil && ctx.Err() == nil {
			d.cfg.Log.WarnContext(ctx, "cannot prune webhooks", telemetry.Error, err)
		}
	}
}

// Prune deletes what is too old to be kept.
func (d *Deliverer) Prune(ctx context.Context) error {
	for {
		var touched int64
		err := d.cfg.Store.Tx(ctx, "webhook_prune", func(tx *store.DB) (err error) {
			touched, err = tx.PruneWebhooks(ctx, sweepBatch)
			return err
		})
		if err != nil || touched == 0 {
			return err
		}
	}
}

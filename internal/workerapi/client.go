package workerapi

import (
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/client"
)

// ClientConfig is everything a Client needs. A zero field takes the default its comment names.
type ClientConfig struct {
	URL       string            // of the worker, such as http://worker:8080
	Token     string            // service token
	Transport http.RoundTripper // default one of its own
	Timeouts  ClientTimeouts    // default DefaultClientTimeouts
	Retries   int               // after the first try; default 3, -1 for none
	MaxAnswer int64             // bytes of one answer; default 8 MiB
	// Jitter returns a duration from 0 to below limit, which is positive; default
	// any of them.
	Jitter func(limit time.Duration) time.Duration
}

// ClientTimeouts bound one try each.
type ClientTimeouts struct {
	Change    time.Duration // creating, canceling, activating
	Read      time.Duration // also beyond what a long poll waits
	Integrity time.Duration // looks at all there is
}

// DefaultClientTimeouts is what ClientConfig.Timeouts means when it is zero.
var DefaultClientTimeouts = ClientTimeouts{Change: 10 * time.Second, Read: 5 * time.Second, Integrity: time.Minute}

// Client is the Worker of another process. All its errors are *Error values: a
// worker that cannot be asked is CodeUnavailable, and an answer that cannot be
// believed CodeInternal. It is safe for concurrent use.
type Client struct {
	cfg     ClientConfig
	worker  *client.Client // one try each
	circuit circuit
	recent  recentIDs
	counts  ClientCounts
}

// ClientCounts are what happened since the start, for metrics.
type ClientCounts struct {
	Tries               atomic.Int64 // requests sent
	Retries             atomic.Int64 // of them, those that were not their call's first
	BadAnswers          atomic.Int64 // answers that were not believed
	NotFoundAfterCreate atomic.Int64 // 404 for what was created just before: each is a bug
	CircuitOpened       atomic.Int64
}

var _ previewd.Worker = (*Client)(nil)

// NewClient returns a Client. It fails when the URL is none.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Timeouts == (ClientTimeouts{}) {
		cfg.Timeouts = DefaultClientTimeouts
	}
	if cfg.Retries == 0 {
		cfg.Retries = 3
	}
	if cfg.MaxAnswer == 0 {
		cfg.MaxAnswer = 8 << 20
	}
	if cfg.Jitter == nil {
		cfg.Jitter = rand.N[time.Duration]
	}
	if cfg.Transport == nil {
		transport := client.NewTransport()
		transport.MaxIdleConnsPerHost = transport.MaxIdleConns // there is one host
		cfg.Transport = transport
	}
	c := &Client{cfg: cfg}
	c.circuit.jitter, c.circuit.opened = cfg.Jitter, &c.counts.CircuitOpened
	var err error
	c.worker, err = client.New(client.Config{
		URL: cfg.URL, Token: cfg.Token, Retries: -1,
		HTTP: &http.Client{
			Transport: &guard{next: cfg.Transport, limit: cfg.MaxAnswer, tries: &c.counts.Tries},
			// Token and content are for this worker and nobody else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	})
	return c, err
}

// Counts returns the client's counters.
func (c *Client) Counts() *ClientCounts { return &c.counts }

// Package client calls a previewd server from Go.
//
// A call that creates something is repeated after network faults and answers
// that say "later", always under one Idempotency-Key, so that it happens once.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/previewd/previewd"
)

// Config says which server to call, and as whom.
type Config struct {
	URL     string       // of the API, such as http://127.0.0.1:8080
	Token   string       // service token
	HTTP    *http.Client // default: one that finds *.localhost on this machine
	Retries int          // after the first try; default 3, -1 for none
}

// Client calls a server. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base *url.URL
}

var _ previewd.Worker = (*Client)(nil)

// New returns a Client.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.URL)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("cannot use server URL %q: it must be like http://127.0.0.1:8080", cfg.URL)
	}
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{Transport: NewTransport()}
	}
	if cfg.Retries == 0 {
		cfg.Retries = 3
	}
	return &Client{cfg: cfg, base: base}, nil
}

// NewTransport returns a transport that finds *.localhost on this machine, as
// browsers do (RFC 6761 §6.3). Go asks the resolver, and few resolvers know.
func NewTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if host, port, err := net.SplitHostPort(addr); err == nil && strings.HasSuffix(host, ".localhost") {
			addr = net.JoinHostPort("127.0.0.1", port)
		}
		return dialer.DialContext(ctx, network, addr)
	}
	return t
}

// request is one call; in and out are JSON bodies, nil for none.
type request struct {
	method string
	path   string
	query  url.Values
	key    string // Idempotency-Key
	in     any
	out    any
	replay *previewd.Replay // nil when the answer cannot be one
}

// do sends the request until it gets an answer that is final.
func (c *Client) do(ctx context.Context, r request) error {
	var body []byte
	if r.in != nil {
		var err error
		if body, err = json.Marshal(r.in); err != nil {
			return fmt.Errorf("cannot encode request: %w", err)
		}
	}
	for try := 0; ; try++ {
		response, err := c.send(ctx, r, body)
		if err == nil {
			if r.replay != nil {
				*r.replay = replayOf(response.Header)
			}
			return readJSON(response, r.out)
		}
		if try >= c.cfg.Retries || !retryable(err) || r.method == http.MethodPost && r.key == "" {
			return err
		}
		if !sleep(ctx, backoff(try, err)) {
			return err
		}
	}
}

func replayOf(h http.Header) previewd.Replay {
	return previewd.Replay{
		Replayed: previewd.Replayed(h.Get("Idempotent-Replayed")), OriginalRequestID: h.Get("Idempotent-Original-Request-Id"),
	}
}

func readJSON(response *http.Response, out any) error {
	defer response.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return fmt.Errorf("cannot read the server's answer: %w", err)
	}
	return nil
}

// send sends the request once. The caller closes the answer's body.
func (c *Client) send(ctx context.Context, r request, body []byte) (*http.Response, error) {
	target := c.base.JoinPath(r.path)
	target.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if c.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", strconv.Quote(r.key))
	}
	response, err := c.cfg.HTTP.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &previewd.Error{
			Code: previewd.CodeUnavailable, Message: "Cannot reach the server at " + c.base.String() + ".", Err: errors.Unwrap(err),
		}
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	return nil, readProblem(response)
}

// readProblem turns an answer that is no success into an error.
func readProblem(response *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("cannot read the server's answer: %w", err)
	}
	var problem struct {
		Detail       string        `json:"detail"`
		Details      string        `json:"details"`
		Code         previewd.Code `json:"code"`
		ReferenceID  string        `json:"referenceId"`
		RetryAfterMS int64         `json:"retryAfterMs"`
	}
	if json.Unmarshal(raw, &problem) != nil || problem.Code == "" {
		return &previewd.Error{
			Code: previewd.CodeInternal, Message: fmt.Sprintf("The server answered %s, not as previewd does.", response.Status),
		}
	}
	return &previewd.Error{
		Code: problem.Code, Message: problem.Detail, Details: problem.Details, ReferenceID: problem.ReferenceID,
		RetryAfter: time.Duration(problem.RetryAfterMS) * time.Millisecond, Replay: replayOf(response.Header),
	}
}

func retryable(err error) bool {
	switch previewd.ErrorCode(err) {
	case previewd.CodeUnavailable, previewd.CodeInternal, previewd.CodeKeyInFlight:
		return true
	}
	return false
}

// backoff returns how long to wait before another try: what the server says,
// else up to 2^try quarter seconds, evenly spread.
func backoff(try int, err error) time.Duration {
	if e := (*previewd.Error)(nil); errors.As(err, &e) && e.RetryAfter > 0 {
		return e.RetryAfter
	}
	return rand.N(250 * time.Millisecond << try)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

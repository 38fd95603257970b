package webhook

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

const (
	maxAnswer  = 64 << 10
	maxExcerpt = 1 << 10
	userAgent  = "previewd-webhooks/1"
)

// answer is what became of one request.
type answer struct {
	previewd.WebhookAttempt
	retryAfter time.Duration
	cause      error // for the log; what the endpoint's owner may read is in Error
}

func (a *answer) ok() bool { return a.Status >= 200 && a.Status < 300 }

// post sends a delivery once. Only 2xx is a success.
func (d *Deliverer) post(ctx context.Context, c *store.WebhookClaim) answer {
	now := d.cfg.Now()
	a := answer{WebhookAttempt: previewd.WebhookAttempt{N: c.Attempt, At: now}}
	begun := time.Now()
	response, err := d.send(ctx, c, now)
	if err == nil {
		defer response.Body.Close()
		a.Status = response.StatusCode
		a.retryAfter = previewd.ParseRetryAfter(response.Header.Get("Retry-After"), now)
		body, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer)) // an answer that breaks off has its status all the same
		a.Excerpt = excerpt(body)
	}
	a.Took = time.Since(begun)
	switch {
	case err != nil:
		a.cause, a.Error = err, explain(err)
	case a.Status >= 300 && a.Status < 400:
		a.Error = "The endpoint redirects, which is not followed: set its URL to where it points."
	case !a.ok():
		a.Error = fmt.Sprintf("The endpoint answered %d.", a.Status)
	}
	return a
}

func (d *Deliverer) send(ctx context.Context, c *store.WebhookClaim, now time.Time) (*http.Response, error) {
	return d.cfg.Egress.send(ctx, message{url: c.Endpoint.URL, secrets: c.Endpoint.Secrets(now), id: c.WebhookID, at: now, body: c.Payload})
}

// message is one webhook.
type message struct {
	url     string
	secrets []string // all sign
	id      string
	at      time.Time
	body    []byte // JSON
}

// send sends a message once. The caller closes the answer's body.
func (e *Egress) send(ctx context.Context, m message) (*http.Response, error) {
	// What was allowed when the endpoint was made may not be any more.
	if err := e.CheckURL(m.url); err != nil {
		return nil, err
	}
	signature, err := Sign(m.secrets, m.id, m.at, m.body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url, bytes.NewReader(m.body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", userAgent)
	request.Header.Set(HeaderID, m.id)
	request.Header.Set(HeaderTimestamp, strconv.FormatInt(m.at.Unix(), 10))
	request.Header.Set(HeaderSignature, signature)
	return e.client.Do(request)
}

// explain says what went wrong in words that tell a stranger nothing of the
// network here: no address that a name has, no resolver's answer.
func explain(err error) string {
	var own *previewd.Error
	var dns *net.DNSError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &own):
		return own.Message
	case errors.Is(err, errDenied), errors.As(err, &dns):
		// Not which: that would tell which names there are inside.
		return "The endpoint's host cannot be found, or its address is not a public one."
	case errors.As(err, &authority), errors.As(err, &hostname), errors.As(err, &invalid):
		return "The endpoint's certificate is not valid for its host."
	case errors.Is(err, http.ErrSchemeMismatch):
		return "The endpoint does not speak TLS."
	case os.IsTimeout(err), errors.Is(err, context.DeadlineExceeded):
		return "The endpoint did not answer in time."
	case errors.Is(err, syscall.ECONNREFUSED):
		return "The endpoint refused the connection."
	}
	return "The connection to the endpoint broke."
}

// excerpt returns the beginning of an answer as text that does no harm.
func excerpt(body []byte) string {
	return strings.Map(previewd.Harmless, strings.ToValidUTF8(string(body[:min(len(body), maxExcerpt)]), ""))
}

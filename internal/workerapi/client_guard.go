package workerapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/previewd/previewd"
)

const tooManyRequests = http.StatusTooManyRequests

// form is what an answer consists of.
type form int

const (
	formJSON form = iota
	formText
	formNone
)

// try is one request: what it carries, and what came of it.
type try struct {
	call
	headers map[string]string

	sent   bool
	status int           // of an answer that came whole; 0: none
	bad    error         // why an answer is not believed
	after  time.Duration // when the answer says to come again
	again  bool          // another try may help
}

type tryKey struct{}

// guard reads each answer whole, so that a connection that breaks in the middle
// is told from an answer that is wrong, and lets nothing pass that is too large
// or not of the form that was asked for.
type guard struct {
	next  http.RoundTripper
	limit int64
	tries *atomic.Int64
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	r, ok := req.Context().Value(tryKey{}).(*try)
	if !ok {
		return nil, errors.New("cannot send a request that is no try")
	}
	req = req.Clone(req.Context())
	for name, value := range r.headers {
		req.Header.Set(name, value)
	}
	r.sent = true
	g.tries.Add(1)
	response, err := g.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, g.limit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the answer: %w", err)
	}
	r.status, r.after = response.StatusCode, previewd.ParseRetryAfter(response.Header.Get("Retry-After"), time.Now())
	if int64(len(body)) > g.limit {
		r.bad = isTrue(false, "it has more than %d bytes", g.limit)
	} else if response.StatusCode < 300 {
		r.bad = r.checkForm(response, body)
	}
	if r.bad != nil {
		return nil, r.bad
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}

func (r *try) checkForm(response *http.Response, body []byte) error {
	if r.form == formNone {
		return isTrue(response.StatusCode == http.StatusNoContent, "it is %s", response.Status)
	}
	want := mediaJSON
	if r.form == formText {
		want = "text/plain"
	}
	got := response.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(got); err != nil || media != want {
		return isTrue(false, "it is %.100q and no %s", got, want)
	}
	return isTrue(r.form != formJSON || json.Valid(body), "it is no JSON")
}

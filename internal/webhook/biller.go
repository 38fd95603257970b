package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/previewd/previewd"
)

// BillingClosed is the type of what a biller is told.
const BillingClosed = "billing.session_closed"

// Biller tells a billing system of closed sessions: each as a Standard Webhook
// whose webhook-id is of its build, so that one told twice is booked once, also
// after a backup was restored.
type Biller struct {
	egress *Egress
	url    string
	secret string
}

var _ previewd.BillingSink = (*Biller)(nil)

// NewBiller returns a Biller. The URL is the operator's own and may be internal.
// It fails when the URL or the secret cannot be.
func NewBiller(target, secret string) (*Biller, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("cannot use the billing URL: %w", err)
	}
	cfg := EgressConfig{AllowHTTP: true, Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		cfg.AllowPorts = []uint16{uint16(port)}
	}
	b := &Biller{egress: NewEgress(cfg), url: target, secret: secret}
	if err := b.egress.CheckURL(target); err != nil {
		return nil, fmt.Errorf("cannot use the billing URL: %w", err)
	}
	if _, err := secretKey(secret); err != nil {
		return nil, fmt.Errorf("cannot use the billing secret: %w", err)
	}
	return b, nil
}

// TellSession implements previewd.BillingSink. Only 2xx says that the biller has it.
func (b *Biller) TellSession(ctx context.Context, session previewd.BillingSession) error {
	now := time.Now()
	body, err := json.Marshal(map[string]any{"type": BillingClosed, "timestamp": session.ClosedAt, "data": session})
	if err != nil {
		return err
	}
	response, err := b.egress.send(ctx, message{url: b.url, secrets: []string{b.secret}, id: "bill_" + session.BuildID, at: now, body: body})
	if err != nil {
		return fmt.Errorf("cannot tell the biller of session %s: %w", session.ID, err)
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return fmt.Errorf("cannot tell the biller of session %s: it answered %s", session.ID, response.Status)
	}
	return nil
}

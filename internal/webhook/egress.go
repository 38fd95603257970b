package webhook

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// EgressConfig says what may be reached besides public addresses.
type EgressConfig struct {
	Allow      []netip.Prefix // addresses that may be reached although they are internal; default none
	AllowPorts []uint16       // ports besides 443 and 80; default none
	AllowHTTP  bool           // http:// besides https://; default false
	RootCAs    *x509.CertPool // default those of the system
	Resolver   *net.Resolver  // default net.DefaultResolver
	Timeout    time.Duration  // of a whole request; default 15 s
	// Own returns this machine's addresses, which nobody may reach; default
	// those of its interfaces.
	Own func() ([]netip.Addr, error)
}

// Egress is the way out to servers that strangers have named. What decides is the
// address that is dialed, in the moment in which it is: a name can point
// elsewhere a second later, and an address can be spelled in many ways.
type Egress struct {
	cfg    EgressConfig
	ports  []uint16 // that may be reached
	guard  *ssrf.Guardian
	client *http.Client
}

var errDenied = errors.New("the address is not allowed")

const (
	requestTimeout = 15 * time.Second
	maxHeaderBytes = 64 << 10
)

// NewEgress returns a way out.
func NewEgress(cfg EgressConfig) *Egress {
	if cfg.Timeout == 0 {
		cfg.Timeout = requestTimeout
	}
	if cfg.Own == nil {
		cfg.Own = interfaceAddrs
	}
	var v4, v6 []netip.Prefix
	for _, prefix := range cfg.Allow {
		if prefix.Addr().Is4() {
			v4 = append(v4, prefix)
		} else {
			v6 = append(v6, prefix)
		}
	}
	ports := append([]uint16{443, 80}, cfg.AllowPorts...)
	e := &Egress{cfg: cfg, ports: ports, guard: ssrf.New(
		ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...), ssrf.WithPorts(ports...),
	)}
	dialer := &net.Dialer{Timeout: cfg.Timeout, Control: e.control, Resolver: cfg.Resolver}
	e.client = &http.Client{
		Timeout: cfg.Timeout,
		// What answers 3xx has not taken the webhook; where it points is not followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  nil, // not even the environment's: it would dial for us, unchecked
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    cfg.Timeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
			DisableCompression:     true, // an answer is not unpacked
			MaxIdleConns:           100,
			MaxIdleConnsPerHost:    maxPerEndpoint,
			IdleConnTimeout:        30 * time.Second,
		},
	}
	return e
}

// control is called before each connect, with the resolved address.
func (e *Egress) control(network, address string, conn syscall.RawConn) error {
	if err := e.guard.Safe(network, address, conn); err != nil {
		return fmt.Errorf("%w: %w", errDenied, err)
	}
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %w", errDenied, err)
	}
	return e.checkOwn(target.Addr())
}

// checkAddr checks an address that a URL names itself.
func (e *Egress) checkAddr(addr netip.Addr) error {
	if err := e.guard.SafeAddr(addr); err != nil {
		return fmt.Errorf("%w: %w", errDenied, err)
	}
	return e.checkOwn(addr)
}

func (e *Egress) checkOwn(addr netip.Addr) error {
	for _, prefix := range e.cfg.Allow {
		if prefix.Contains(addr) {
			return nil
		}
	}
	own, err := e.cfg.Own()
	if err != nil {
		return fmt.Errorf("%w: cannot tell this machine's addresses: %w", errDenied, err)
	}
	for _, mine := range own {
		if mine.Unmap().WithZone("") == addr.Unmap().WithZone("") {
			return fmt.Errorf("%w: %s is this machine", errDenied, addr)
		}
	}
	return nil
}

func interfaceAddrs() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, a := range list {
		if network, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(network.IP); ok {
				addrs = append(addrs, addr.Unmap())
			}
		}
	}
	return addrs, nil
}

package webhook

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/previewd/previewd"
)

const maxURL = 2048

// CheckURL returns CodeInvalid when no webhook may be sent to a URL. It looks at
// what the URL says itself, so that mistakes are told early; what a name points to
// is checked when it is dialed.
func (e *Egress) CheckURL(raw string) error {
	if raw == "" || len(raw) > maxURL {
		return badURL("The URL must have 1 to 2048 bytes.", "")
	}
	// A parser's own error repeats what it could not read, credentials and all.
	u, err := url.Parse(raw)
	if err != nil || strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || strings.Contains(raw, `\`) {
		return badURL("The URL cannot be read: write it like https://example.com/hooks, in ASCII (international names as xn--…).", "")
	}
	switch {
	case u.User != nil:
		return badURL("The URL must not hold a user or password.", "")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return badURL("The URL must not have a fragment, which is never sent.", "")
	case u.Scheme == "http" && !e.cfg.AllowHTTP:
		return badURL("The URL must begin with https://.", "http")
	case u.Scheme != "https" && u.Scheme != "http":
		return badURL("The URL must begin with https://.", u.Scheme)
	case u.Hostname() == "" || u.Opaque != "":
		return badURL("The URL needs a host.", "")
	}
	if err := e.checkPort(u); err != nil {
		return err
	}
	return e.checkHost(u.Hostname())
}

func (e *Egress) checkPort(u *url.URL) error {
	if u.Port() == "" {
		if strings.HasSuffix(u.Host, ":") {
			return badURL("The URL has a colon without a port.", u.Host)
		}
		return nil
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || !slices.Contains(e.ports, uint16(port)) {
		return badURL(fmt.Sprintf("The URL's port must be one of %d.", e.ports), u.Port())
	}
	return nil
}

func (e *Egress) checkHost(host string) error {
	name := strings.ToLower(strings.TrimRight(host, "."))
	last := name[strings.LastIndexByte(name, '.')+1:]
	addr, err := netip.ParseAddr(name)
	switch {
	case err == nil:
		if addr.Zone() != "" || e.checkAddr(addr) != nil {
			return badURL("The URL's address is not a public one.", host)
		}
	case name == "", strings.ContainsAny(name, ":%"), endsInNumber(last):
		// Some resolvers read 2130706433, 0x7f.1 and 127.1 as addresses.
		return badURL("The URL's host is neither a name nor an address as 192.0.2.1 or [2001:db8::1].", host)
	case last == "localhost" && e.checkAddr(netip.AddrFrom4([4]byte{127, 0, 0, 1})) != nil:
		return badURL("The URL's host is this machine itself.", host)
	}
	return nil
}

// endsInNumber is what browsers ask of a host before they take it as IPv4
// (WHATWG URL, "ends in a number checker").
func endsInNumber(last string) bool {
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

func badURL(message, details string) error {
	details = strings.Map(previewd.Harmless, details[:min(len(details), 256)])
	return &previewd.Error{Code: previewd.CodeInvalid, Message: message, Details: details}
}

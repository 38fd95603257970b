package webhook_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/testkit"
	"github.com/previewd/previewd/internal/webhook"
)

// trap is a listener that nobody may reach.
type trap struct {
	net.Listener
	accepted chan struct{}
	port     uint16
}

func newTrap(t *testing.T, address string) *trap {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	trap := &trap{l, make(chan struct{}, 1000), uint16(l.Addr().(*net.TCPAddr).Port)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			trap.accepted <- struct{}{}
			conn.Close()
		}
	}()
	return trap
}

// requireEmpty knocks: connections are accepted in their order, so if ours is the
// first there was none before.
func (p *trap) requireEmpty(t *testing.T) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.port))
	require.NoError(t, err)
	defer conn.Close()
	<-p.accepted
	_, _ = conn.Read(make([]byte, 1)) // it closes after it has counted
	require.Empty(t, p.accepted, "connections that were accepted")
}

// fakeDNS answers questions for A and AAAA with what answer says.
func fakeDNS(t *testing.T, answer func(name string) []netip.Addr) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) == 0 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Additionals = true, nil
			for _, addr := range answer(q.Name.String()) {
				h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
				switch {
				case q.Type == dnsmessage.TypeA && addr.Is4():
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: addr.As4()}})
				case q.Type == dnsmessage.TypeAAAA && addr.Is6():
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
				}
			}
			packed, err := m.Pack()
			if err == nil {
				_, _ = conn.WriteTo(packed, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// spellings are ways to write a way in.
var spellings = []string{
	// loopback
	"127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "0177.0.0.1", "017700000001",
	"127.000.000.001", "127.0.0.1.nip.io", "127.255.255.254", "127.0.0.2", "localhost", "LOCALHOST", "localhost.", "a.localhost",
	"localhost.localdomain", "ip6-localhost", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "①②⑦.⓪.⓪.①", "127。0。0。1", "127.0.0.1%00.example.com",
	// unspecified
	"0.0.0.0", "0", "0x0", "00", "0.0", "[::]", "[0::0]", "0.1.2.3",
	// mapped, translated, tunneled
	"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]",
	"[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[64:ff9b:1:ffff::1]", "[2002:7f00:1::]", "[2002:7f00:0001::1]", "[2002:a9fe:a9fe::]",
	"[2001:0:7f00:1::]", "[2001::1]", "[::ffff:169.254.169.254]", "[::ffff:10.0.0.1]", "[100::1]",
	// private and shared
	"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255", "100.64.0.1", "100.127.255.255",
	"[fc00::1]", "[fd00::1]", "[fd00:ec2::254]", "[fec0::1]",
	// link-local and metadata
	"169.254.169.254", "169.254.0.1", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[fe80::1]", "[fe80::1%25lo]", "metadata.google.internal",
	// multicast, broadcast, reserved, documentation, benchmarks
	"224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1", "[ff02::1]", "[ff01::1]", "192.0.2.1", "198.51.100.1", "203.0.113.1",
	"198.18.0.1", "198.19.255.255", "192.0.0.1", "192.88.99.1", "[2001:db8::1]", "[3fff::1]",
}

// However an internal address is spelled, and wherever a name points, nobody gets in.
func TestNoSpellingGetsIn(t *testing.T) {
	t.Parallel()
	in := newTrap(t, ":0")
	everywhere := fakeDNS(t, func(string) []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}
	})
	e := webhook.NewEgress(webhook.EgressConfig{
		AllowPorts: []uint16{in.port}, AllowHTTP: true, Resolver: everywhere, Timeout: 30 * time.Second,
	})
	own, err := net.InterfaceAddrs()
	require.NoError(t, err)
	list := spellings
	for _, a := range own {
		list = append(list, hostOf(a.(*net.IPNet).IP))
	}
	require.GreaterOrEqual(t, len(list), 40)
	for _, host := range list {
		raw := fmt.Sprintf("http://%s:%d/", host, in.port)
		request, err := http.NewRequest(http.MethodPost, raw, http.NoBody)
		if err != nil {
			continue // Go cannot even read it
		}
		response, err := e.Do(request)
		if err == nil {
			response.Body.Close()
		}
		require.Error(t, err, host)
	}
	in.requireEmpty(t)
	t.Logf("%d spellings", len(list))
}

func hostOf(ip net.IP) string {
	if ip.To4() != nil {
		return ip.String()
	}
	return "[" + ip.String() + "]"
}

// This machine's own addresses are internal, even public ones.
func TestOwnAddressIsDenied(t *testing.T) {
	t.Parallel()
	in := newTrap(t, "127.0.0.1:0")
	public := netip.MustParseAddr("8.8.8.8")
	e := webhook.NewEgress(webhook.EgressConfig{
		AllowPorts: []uint16{in.port}, Own: func() ([]netip.Addr, error) { return []netip.Addr{public}, nil },
	})
	require.ErrorContains(t, e.CheckURL("https://8.8.8.8/"), "not a public one")
	require.NoError(t, e.CheckURL("https://8.8.4.4/"))
	request, err := http.NewRequest(http.MethodPost, "https://8.8.8.8/", http.NoBody)
	require.NoError(t, err)
	_, err = e.Do(request)
	require.ErrorContains(t, err, "is this machine")
}

// A name that points outside when its URL is used first, and inside from then on.
// 127.0.0.2 stands for outside: it is allowed here, and is another server.
func TestRebindingGetsNowhere(t *testing.T) {
	t.Parallel()
	in := newTrap(t, "127.0.0.1:0")
	out, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", in.port))
	require.NoError(t, err)
	var outside atomic.Int64
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { outside.Add(1) })}
	go func() { _ = server.Serve(out) }()
	t.Cleanup(func() { server.Close() })
	public, internal := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")
	var points atomic.Pointer[netip.Addr]
	points.Store(&public)
	e := func(answer func(name string) []netip.Addr) *webhook.Egress {
		return webhook.NewEgress(webhook.EgressConfig{
			Allow: []netip.Prefix{netip.PrefixFrom(public, 32)}, AllowPorts: []uint16{in.port}, AllowHTTP: true,
			Resolver: fakeDNS(t, answer), Timeout: 30 * time.Second,
		})
	}
	send := func(e *webhook.Egress, want string) {
		t.Helper()
		request, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://rebind.example:%d/", in.port), http.NoBody)
		require.NoError(t, err)
		request.Close = true // or the second would go through the connection of the first
		response, err := e.Do(request)
		if err == nil {
			response.Body.Close()
		}
		if want == "" {
			require.NoError(t, err)
			return
		}
		require.ErrorContains(t, err, want)
	}
	rebinding := e(func(string) []netip.Addr { return []netip.Addr{*points.Load()} })
	send(rebinding, "")
	require.EqualValues(t, 1, outside.Load())
	points.Store(&internal)
	for range 20 {
		send(rebinding, "not allowed")
	}
	// All at once: whichever is dialed, the internal one is not.
	server.Close()
	testkit.Eventually(t, "the port is closed", func() bool { // when the last Accept has returned
		conn, err := net.Dial("tcp", out.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	both := e(func(string) []netip.Addr { return []netip.Addr{public, internal, netip.MustParseAddr("::1")} })
	for range 20 {
		send(both, "dial")
	}
	in.requireEmpty(t)
}

// Redirects are failures: what they point to is not asked.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	in := newTrap(t, "127.0.0.1:0")
	codes := []int{301, 302, 303, 307, 308}
	t.Run("engines", func(t *testing.T) { // ends when both have
		eachSetup(t, func(w http.ResponseWriter, r *http.Request) {
			// Two hops, the second of them inside.
			target := "/hop" + r.URL.Path
			if strings.HasPrefix(r.URL.Path, "/hop") {
				target = fmt.Sprintf("http://127.0.0.1:%d/", in.port)
			}
			w.Header().Set("Location", target)
			w.WriteHeader(codes[len(r.Header.Get(webhook.HeaderID))%len(codes)])
		}, func(t *testing.T, s *setup) {
			s.clock.stop() // none is tried again
			d := s.deliverer()
			s.tell("1", "22", "333", "4444", "55555")
			for s.once(d) > 0 {
			}
			require.Len(t, s.receiver.all(), len(codes), "one request each")
			got := s.delivery("1")
			require.Equal(t, previewd.WebhookPending, got.Status)
			require.Contains(t, got.LastError, "redirects")
			require.Contains(t, []int{301, 302, 303, 307, 308}, got.LastStatus)
		})
	})
	in.requireEmpty(t)
}

// The environment's proxy would dial for us, unchecked.
func TestEgressUsesNoProxy(t *testing.T) {
	in := newTrap(t, "127.0.0.1:0")
	t.Setenv("HTTP_PROXY", fmt.Sprintf("http://127.0.0.1:%d", in.port))
	t.Setenv("HTTPS_PROXY", fmt.Sprintf("http://127.0.0.1:%d", in.port))
	e := webhook.NewEgress(webhook.EgressConfig{ // the proxy itself could be reached
		Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, AllowPorts: []uint16{in.port}, AllowHTTP: true, Timeout: 30 * time.Second,
		Resolver: fakeDNS(t, func(string) []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.1.2.3")} }),
	})
	for _, raw := range []string{"http://example.test/", "https://example.test/"} {
		request, err := http.NewRequest(http.MethodPost, raw, http.NoBody)
		require.NoError(t, err)
		_, err = e.Do(request)
		require.ErrorContains(t, err, "not allowed")
	}
	in.requireEmpty(t)
}

func TestOtherPortsAreDenied(t *testing.T) {
	t.Parallel()
	in := newTrap(t, "127.0.0.1:0")
	e := webhook.NewEgress(webhook.EgressConfig{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AllowHTTP: true})
	request, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/", in.port), http.NoBody)
	require.NoError(t, err)
	_, err = e.Do(request)
	require.ErrorContains(t, err, "not allowed")
	in.requireEmpty(t)
}

func TestCheckURL(t *testing.T) {
	t.Parallel()
	strict := webhook.NewEgress(webhook.EgressConfig{})
	for _, good := range []string{
		"https://example.com", "https://example.com/hooks?a=b", "https://example.com:443/", "https://example.com:80/", "https://EXAMPLE.com./",
		"https://xn--bcher-kva.example/", "https://8.8.8.8/", "https://[2606:4700:4700::1111]/", "https://1.example.com/%C3%A9", "https://intranet/",
	} {
		require.NoError(t, strict.CheckURL(good), good)
	}
	for bad, why := range map[string]string{
		"": "1 to 2048",
		"https://e.com/" + strings.Repeat("a", 2048): "1 to 2048",
		"http://example.com/":                        "begin with https",
		"ftp://example.com/":                         "begin with https",
		"//example.com/":                             "begin with https",
		"example.com":                                "begin with https",
		"https:example.com":                          "needs a host",
		"https:///path":                              "needs a host",
		"https://:443/":                              "needs a host",
		"https://user@example.com/":                  "user or password",
		"https://user:secret@example.com/":           "user or password",
		"https://example.com/#part":                  "fragment",
		"https://example.com/#":                      "fragment",
		"https://example.com:8080/":                  "one of [443 80]",
		"https://example.com:99999/":                 "one of [443 80]",
		"https://example.com:/":                      "without a port",
		"https://bücher.example/":                    "xn--",
		"https://example.com/a b":                    "cannot be read",
		"https://example.com/\x00":                   "cannot be read",
		`https://example.com\@127.0.0.1/`:            "cannot be read",
		"https://[::1/":                              "cannot be read",
	} {
		err := strict.CheckURL(bad)
		require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err), bad)
		require.ErrorContains(t, err, why, bad)
		require.NotContains(t, err.Error(), "secret")
	}
	names := []string{ // that only a lookup tells
		"127.0.0.1.nip.io", "localhost.localdomain", "ip6-localhost", "metadata.google.internal",
	}
	for _, host := range spellings {
		err := strict.CheckURL("https://" + host + "/")
		named := false
		for _, name := range names {
			named = named || host == name
		}
		require.Equal(t, named, err == nil, "%s: %v", host, err)
		if err != nil {
			require.Equal(t, previewd.CodeInvalid, previewd.ErrorCode(err))
		}
	}
	inside := webhook.NewEgress(webhook.EgressConfig{
		Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("fd00:1::/32")}, AllowPorts: []uint16{8080}, AllowHTTP: true,
	})
	for _, good := range []string{"http://10.1.2.3:8080/", "http://localhost/", "http://[fd00:1::5]/", "https://example.com/"} {
		require.NoError(t, inside.CheckURL(good), good)
	}
	require.ErrorContains(t, inside.CheckURL("https://example.com:9090/"), "one of [443 80 8080]", "the operator's too")
	for _, bad := range []string{"http://10.2.0.1/", "http://[::1]/", "http://[fd00:2::5]/"} {
		require.Error(t, inside.CheckURL(bad), bad)
	}
}

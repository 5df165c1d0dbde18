package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func guard(t testing.TB, allow ...string) *Guard {
	t.Helper()
	a, err := ParseAllow(allow)
	if err != nil {
		t.Fatal(err)
	}
	return NewGuard(a, time.Second)
}

func TestOnlyPublicAddressesAreReached(t *testing.T) {
	g := guard(t)
	for text, ok := range map[string]bool{
		"1.1.1.1": true, "93.184.215.14": true, "2606:4700:4700::1111": true, "::ffff:1.1.1.1": true,
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "::ffff:127.0.0.1": false, "::127.0.0.1": false,
		"10.0.0.1": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "::ffff:10.0.0.1": false, "fd00::1": false, "fec0::1": false,
		"169.254.169.254": false, "::ffff:169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false, "fd00:ec2::254": false, "100.100.100.200": false,
		"0.0.0.0": false, "0.1.2.3": false, "::": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false, "240.0.0.1": false,
		"192.0.0.192": false, "198.18.0.1": false, "64:ff9b::7f00:1": false, "64:ff9b:1::a00:1": false, "2002:7f00:1::": false, "2001:db8::1": false, "2001::1": false,
	} {
		if err := g.Check(netip.MustParseAddr(text)); (err == nil) != ok || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestWhatIsAllowedIsReachedAndNothingElse(t *testing.T) {
	g := guard(t, "10.1.0.0/16", "::1", "127.0.0.5", "fd00::/8")
	for text, ok := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "10.2.0.1": false, "::1": true, "127.0.0.5": true, "127.0.0.1": false, "fd12::1": true, "fe80::1": false} {
		if err := g.Check(netip.MustParseAddr(text)); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, wrong := range []string{"10.0.0.0/33", "http://h", "h/path", "a b", "h:0", "h:70000", "h:http", "", "*", "::ffff:10.0.0.0/104", "fe80::1%eth0", "-x"} {
		if _, err := ParseAllow([]string{wrong}); err == nil {
			t.Errorf("%q is taken for a permission", wrong)
		}
	}
}

// A name is worth what it resolves to when it is dialled: the flawed way, looking at the URL, lets "localhost" and any name
// in DNS reach a private address.
func TestANameIsJudgedByTheAddressThatIsDialled(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host  string
		allow []string
		ok    bool
	}{
		{"127.0.0.1", nil, false}, {"localhost", nil, false}, {"LOCALHOST", nil, false}, {"::ffff:127.0.0.1", nil, false}, {"0.0.0.0", nil, false},
		{"127.0.0.1", []string{"127.0.0.0/8"}, true}, {"localhost", []string{"127.0.0.0/8", "::1"}, true}, {"::ffff:127.0.0.1", []string{"127.0.0.1"}, true},
		{"localhost", []string{"localhost"}, true}, {"LocalHost", []string{"localhost:" + port}, true}, {"localhost", []string{"localhost:1"}, false},
		{"127.0.0.1", []string{"localhost"}, false}, {"127.0.0.1", []string{"127.0.0.1:" + port}, true},
	} {
		conn, err := guard(t, tt.allow...).DialContext(t.Context(), "tcp", net.JoinHostPort(tt.host, port))
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%s, allowed %v: %v", tt.host, tt.allow, err)
		}
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// resolver knows one host by these addresses.
func resolver(t *testing.T, addresses ...string) *net.Resolver {
	t.Helper()
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait)
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		serving.Go(func() {
			defer func() { _ = server.Close() }()
			answerDNS(server, addresses)
		})
		return client, nil
	}}
}

// answerDNS answers one question as over TCP: a length stands before each message.
func answerDNS(conn net.Conn, addresses []string) {
	length := make([]byte, 2)
	if _, err := io.ReadFull(conn, length); err != nil {
		return
	}
	query := make([]byte, binary.BigEndian.Uint16(length))
	if _, err := io.ReadFull(conn, query); err != nil {
		return
	}
	end := 12 // of the question: behind its name, a type and a class
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5
	if query[end-3] != 1 { // not for IPv4
		addresses = nil
	}
	out := append(slices.Clone(query[:2]), 0x81, 0x80, 0, 1, 0, byte(len(addresses)), 0, 0, 0, 0)
	out = append(out, query[12:end]...)
	for _, a := range addresses {
		out = append(append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4), netip.MustParseAddr(a).AsSlice()...)
	}
	_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
}

// A host may have an address that is refused beside one that is down for now. The flawed way takes the first one's error for
// all of them, and the host is given up for good.
func TestAHostIsRefusedOnlyWhereAllItsAddressesAre(t *testing.T) {
	open, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = down.Close()
	_, up, _ := net.SplitHostPort(open.Addr().String())
	_, closed, _ := net.SplitHostPort(down.Addr().String())
	for name, tt := range map[string]struct {
		addresses   []string
		port        string
		ok, refused bool
	}{
		"one that answers":                   {[]string{"127.0.0.1"}, up, true, false},
		"one that is down":                   {[]string{"127.0.0.1"}, closed, false, false},
		"one that is refused":                {[]string{"127.0.0.2"}, up, false, true},
		"all are refused":                    {[]string{"127.0.0.2", "10.0.0.1", "127.0.0.3"}, up, false, true},
		"a refused one, one that answers":    {[]string{"127.0.0.2", "127.0.0.1"}, up, true, false},
		"one that answers, a refused one":    {[]string{"127.0.0.1", "127.0.0.2"}, up, true, false},
		"a refused one, one that is down":    {[]string{"127.0.0.2", "127.0.0.1"}, closed, false, false},
		"one that is down, a refused one":    {[]string{"127.0.0.1", "127.0.0.2"}, closed, false, false},
		"several refused, one that is down":  {[]string{"127.0.0.2", "127.0.0.3", "127.0.0.1"}, closed, false, false},
		"a port that is another service's":   {[]string{"127.0.0.1"}, "25", false, true},
		"a name that has no address at all":  {nil, up, false, false},
		"all are refused, and twice the one": {[]string{"127.0.0.2", "127.0.0.2"}, up, false, true},
	} {
		g := guard(t, "127.0.0.1")
		g.dialer.Resolver = resolver(t, tt.addresses...)
		conn, err := g.DialContext(t.Context(), "tcp", net.JoinHostPort("hooks.example", tt.port))
		if (err == nil) != tt.ok || errors.Is(err, ErrRefused) != tt.refused {
			t.Errorf("%s: %v", name, err)
		}
		if conn != nil {
			_ = conn.Close()
		}
	}
}

func TestPortsOfOtherServicesAreRefused(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel() // nothing is really dialled
	for address, ok := range map[string]bool{"1.1.1.1:25": false, "1.1.1.1:22": false, "1.1.1.1:443": true, "1.1.1.1:80": true, "1.1.1.1:8443": true, "mail.example:25": false} {
		_, err := guard(t).DialContext(ended, "tcp", address)
		if errors.Is(err, ErrRefused) == ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	if _, err := guard(t, "1.1.1.1:25").DialContext(ended, "tcp", "1.1.1.1:25"); errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if err := guard(t).control("unix", "/run/x.sock", nil); !errors.Is(err, ErrRefused) {
		t.Error("a socket of this machine can be reached")
	}
}

// Whatever a URL says, what it reaches is public.
func FuzzNoURLReachesThisMachineOrItsNeighbours(f *testing.F) {
	for _, seed := range []string{"http://127.0.0.1/", "http://[::1]:8080/", "https://[::ffff:169.254.169.254]/latest", "http://0x7f.1/", "http://2130706433/", "http://[fe80::1%25lo]/",
		"http://user@10.0.0.1/", "http://10.0.0.1:80#@example.com/", "http://example.com\\@10.0.0.1/", "http://[64:ff9b::10.0.0.1]/", "http://①②⑦.0.0.1/", "//127.0.0.1"} {
		f.Add(seed)
	}
	g := guard(f)
	f.Fuzz(func(t *testing.T, text string) {
		if spec.CheckWebhook(text) != nil {
			return
		}
		u, err := url.Parse(text)
		if err != nil || u.User != nil || u.Hostname() == "" {
			t.Fatalf("%q passes and is %v, %v", text, u, err)
		}
		ip, err := netip.ParseAddr(u.Hostname())
		if err != nil {
			return // a name: what it resolves to is dialled, and judged there
		}
		plain := ip.WithZone("").Unmap()
		if private := plain.IsLoopback() || plain.IsPrivate() || plain.IsLinkLocalUnicast() || plain.IsMulticast() || plain.IsUnspecified(); private && g.Check(ip) == nil {
			t.Errorf("%q reaches %s", text, plain)
		}
	})
}

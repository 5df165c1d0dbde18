package egress

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
)

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

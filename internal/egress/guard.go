package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// ErrRefused is the error of a destination that may not be reached.
var ErrRefused = errors.New("refused")

// Guard makes connections to where they may go. It is safe for concurrent use.
type Guard struct {
	allow  Allow
	public *ssrf.Guardian
	dialer net.Dialer
}

// NewGuard reaches public addresses and what is allowed. timeout bounds a connection's making.
func NewGuard(allow Allow, timeout time.Duration) *Guard {
	return &Guard{allow: allow, public: ssrf.New(ssrf.WithAnyPort()), dialer: net.Dialer{Timeout: timeout}}
}

// DialContext connects over TCP. The error is an ErrRefused where every address of the host is refused; where one may be
// reached and doesn't answer, it isn't, whatever the others are.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	if g.allow.host(host, port) {
		return g.dialer.DialContext(ctx, network, address)
	}
	if !usualPort(port) {
		return nil, fmt.Errorf("%w: port %s is another service's than the web's: allow %s by REEVE_WEBHOOK_ALLOW", ErrRefused, port, net.JoinHostPort(host, port))
	}
	var tried atomic.Bool // an address that may be reached
	guarded := g.dialer
	guarded.Control = func(network, address string, c syscall.RawConn) error {
		err := g.control(network, address, c)
		if err == nil {
			tried.Store(true)
		}
		return err
	}
	conn, err := guarded.DialContext(ctx, network, address)
	if errors.Is(err, ErrRefused) && tried.Load() { // the dialer has kept the first address's error alone
		return nil, fmt.Errorf("connect to %s: those of its addresses that may be reached don't answer (%s)", address, err.Error())
	}
	return conn, err
}

// control is asked for each address that is about to be connected to.
func (g *Guard) control(network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("%w: the network %s is neither tcp4 nor tcp6", ErrRefused, network)
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %q is no address", ErrRefused, address)
	}
	return g.Check(at.Addr())
}

// Check reports whether an address may be reached; the error is an ErrRefused.
func (g *Guard) Check(ip netip.Addr) error {
	ip = ip.WithZone("").Unmap()
	if g.allow.address(ip) {
		return nil
	}
	if g.public.SafeAddr(ip) != nil {
		return fmt.Errorf("%w: the address %s isn't public: allow it by REEVE_WEBHOOK_ALLOW if it is meant", ErrRefused, ip)
	}
	return nil
}

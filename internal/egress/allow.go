package egress

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Allow is what may be reached although it isn't public. The zero value allows nothing more.
type Allow struct {
	networks []netip.Prefix
	hosts    map[string]bool // host, or host:port
}

// hostRule is a name of DNS, also of one label.
var hostRule = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)

// ParseAllow reads permissions: a network in CIDR notation or an address (on the usual ports), a host's name (whatever its
// address, on the usual ports), or an address or a name with a port (that one alone).
func ParseAllow(entries []string) (Allow, error) {
	a := Allow{hosts: map[string]bool{}}
	for _, e := range entries {
		if err := a.add(strings.ToLower(e)); err != nil {
			return Allow{}, err
		}
	}
	return a, nil
}

func (a *Allow) add(entry string) error {
	if p, err := netip.ParsePrefix(entry); err == nil {
		if p.Addr().Is4In6() {
			return fmt.Errorf("%s is an IPv4 network in IPv6's clothes: write it as IPv4", entry)
		}
		a.networks = append(a.networks, p.Masked())
		return nil
	}
	if ip, err := netip.ParseAddr(entry); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		a.networks = append(a.networks, netip.PrefixFrom(ip, ip.BitLen()))
		return nil
	}
	host, port, err := net.SplitHostPort(entry)
	if err != nil {
		host, port = entry, ""
	}
	_, notIP := netip.ParseAddr(host)
	if notIP != nil && !hostRule.MatchString(host) || notIP == nil && port == "" {
		return fmt.Errorf("%q is neither a network (10.1.0.0/16), an address, a host nor host:port", entry)
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%q has no port from 1 to 65535", entry)
		}
		host = net.JoinHostPort(host, strconv.FormatUint(n, 10))
	}
	a.hosts[host] = true
	return nil
}

// host reports whether a host, by its name or as an address, may be reached on a port whatever its address is.
func (a Allow) host(host, port string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return a.hosts[net.JoinHostPort(host, port)] || a.hosts[host] && usualPort(port)
}

func (a Allow) address(ip netip.Addr) bool {
	for _, n := range a.networks {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// usualPort reports whether a port is the web's, or none of those that belong to the well-known services.
func usualPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && (n == 80 || n == 443 || n >= 1024)
}

package dev

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// listen takes an address. One that is a default may be replaced by a free port of the same host where it is taken;
// one that was given may not.
func listen(flag, address string, given bool, say func(format string, args ...any)) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%s %q is no address: give host:port", flag, address)
	}
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		return l, nil
	case !errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s %s can't be listened on: %w: give a host:port of this machine", flag, address, plain(err))
	case given:
		return nil, fmt.Errorf("%s: port %s of %s is in use%s: end that process, or give another port (0 takes a free one)", flag, port, host, by(port))
	}
	l, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("%s: find a free port of %s: %w", flag, host, plain(err))
	}
	say("port %s is in use%s: using %s instead of %s", port, by(port), l.Addr(), address)
	return l, nil
}

// plain takes off what net says beside the cause.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// by says which process listens on a port, if that can be found out.
func by(port string) string {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return ""
	}
	for _, inode := range listeners(uint16(n)) {
		if pid := owner(inode); pid != "" {
			name, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
			return fmt.Sprintf(" by process %s (%s)", pid, strings.TrimSpace(string(name)))
		}
	}
	return ""
}

// listeners are the sockets that listen on a port, by inode, as /proc/net lists them.
func listeners(port uint16) []string {
	const listening = "0A"
	var inodes []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			fields := strings.Fields(s.Text())
			if len(fields) > 9 && fields[3] == listening && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				inodes = append(inodes, fields[9])
			}
		}
		_ = f.Close()
	}
	return inodes
}

// owner is the process that has a socket open, "" if it isn't this user's to see.
func owner(inode string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == "socket:["+inode+"]" {
			return strings.Split(link, "/")[2]
		}
	}
	return ""
}

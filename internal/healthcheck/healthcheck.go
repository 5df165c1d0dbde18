// Package healthcheck asks a running service whether it is ready, from a second process of the same program. An image
// with nothing else in it has no other means: its HEALTHCHECK runs the service's binary with -healthcheck, in the
// container's environment, and so finds the address that the service listens on.
package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/reeve-run/reeve/internal/config"
)

// Flag is the name of the flag by which a service's binary does it.
const Flag = "healthcheck"

// Help is the flag's line of help.
const Help = "ask the service that runs with this environment whether it is ready: exit code 0 if so, 1 if not"

// limit bounds the question; an engine's own limit for the command is longer.
const limit = 2 * time.Second

// maxReason bounds what is said of a service that isn't ready.
const maxReason = 1024

// Run asks the service whose configuration the environment is, and returns the exit code; why it isn't 0 goes to stderr.
func Run(ctx context.Context, service string, environ []string, stderr io.Writer) int {
	err := ask(ctx, service, environ)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "%s isn't ready: %v\n", service, err)
		return 1
	}
	return 0
}

func ask(ctx context.Context, service string, environ []string) error {
	cfg, _, err := config.Load(service, environ)
	if err != nil {
		return err
	}
	url, err := target(cfg.HTTPAddr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(io.LimitReader(resp.Body, maxReason)) // what came is said
		return fmt.Errorf("%s answers %s: %s", url, resp.Status, strings.TrimSpace(string(reason)))
	}
	return nil
}

// target is the address to ask where a service listens on addr: one that listens everywhere is asked on the loopback.
func target(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("REEVE_HTTP_ADDR: %w", err)
	}
	if port == "0" {
		return "", errors.New("REEVE_HTTP_ADDR: port 0 is another port at each start: name one to be asked on")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port) + "/readyz", nil
}

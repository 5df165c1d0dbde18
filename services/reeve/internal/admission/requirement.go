package admission

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
)

// variableRule is what an environment variable is called.
var variableRule = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// CheckVariable reports why a text is no name of an environment variable, or nil.
func CheckVariable(name string) error {
	if !variableRule.MatchString(name) {
		return fmt.Errorf("%q is no name of an environment variable: use letters, digits and '_'", name)
	}
	return nil
}

// Check reports what is wrong with a requirement as it is written, or nil.
func (r Requirement) Check() error {
	switch r.Kind {
	case TCP:
		host, port, err := net.SplitHostPort(r.Target)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || perr != nil || n == 0 {
			return fmt.Errorf("%q is no address: write host:port, as 127.0.0.1:5432", r.Target)
		}
	case HTTP:
		u, err := url.Parse(r.Target)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("%q is no URL that can be asked: write http://host:port/path, or https", r.Target)
		}
	case Env:
		return CheckVariable(r.Target)
	}
	return nil
}

// try says what the problem is, or "".
func (r Requirement) try(ctx context.Context, environ []string) string {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	var err error
	switch r.Kind {
	case TCP:
		err = connect(ctx, r.Target)
	case HTTP:
		err = ask(ctx, r.Target)
	case Env:
		if value, _ := lookUp(environ, r.Target); value == "" {
			return "it is not set or empty"
		}
		return ""
	}
	switch {
	case err == nil:
		return ""
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return "no answer within " + r.Timeout.String()
	}
	return reason(err)
}

func connect(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// ask wants a good status; redirects are followed. The client is the call's own, so that no connection stays behind.
func ask(ctx context.Context, target string) error {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("it answers %s", answer.Status)
	}
	return nil
}

// reason is the part of a network error that doesn't repeat the target.
func reason(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return err.Error()
}

// Package httpx serves HTTP for a service process: an address in use is an error that says what to do, and a stop waits
// for the requests under way, but not for ever.
package httpx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"
)

const (
	graceful = 3 * time.Second // a stop waits this long for requests, then cancels them
	forced   = time.Second     // and this long again before it closes their connections
	patience = 3 * time.Second // a port in use is tried this long
)

// Listen takes an address of the form host:port; port 0 takes a free one. A port in use is tried for a while, since a
// predecessor that was killed together with its guard still has to end its agents before it goes.
func Listen(addr string) (net.Listener, error) {
	l, err := listen(addr, patience)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: another process uses this port: stop it, or give another address in REEVE_HTTP_ADDR", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: give a host:port of this machine in REEVE_HTTP_ADDR: %w", addr, err)
	}
	return l, nil
}

func listen(addr string, limit time.Duration) (net.Listener, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(limit); ; {
		l, err := net.Listen("tcp", addr)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
		select {
		case <-end:
			return nil, err
		case <-tick.C:
		}
	}
}

// Serve listens on an address and serves until the context ends; see ServeListener.
func Serve(ctx context.Context, addr string, handler http.Handler) error {
	l, err := Listen(addr)
	if err != nil {
		return err
	}
	return ServeListener(ctx, l, handler)
}

// ServeListener serves until the context ends, then lets the requests under way finish for 3 s, cancels their contexts
// and closes what is left. It returns nil after such a stop.
func ServeListener(ctx context.Context, l net.Listener, handler http.Handler) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	if !shutdown(base, srv, graceful) {
		cancel()
		if !shutdown(context.WithoutCancel(ctx), srv, forced) {
			_ = srv.Close() // what hangs now has been told twice
		}
	}
	<-done
	return nil
}

func shutdown(parent context.Context, srv *http.Server, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(parent, limit)
	defer cancel()
	return srv.Shutdown(ctx) == nil
}

package httpx

import (
	"context"
	"errors"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health is what every service answers about itself.
type Health struct {
	// Ready returns why the service can't do its work, or nil. Defaults to always ready.
	Ready func() error
	// Metrics is what /metrics shows. Defaults to nothing.
	Metrics prometheus.Gatherer
}

// Until is a Ready that says why until ready is closed.
func Until(ready <-chan struct{}, why string) func() error {
	return func() error {
		select {
		case <-ready:
			return nil
		default:
			return errors.New(why)
		}
	}
}

// Beside runs a service and serves its health at an address meanwhile; with an empty address it only runs it. Where the
// serving fails, the service's context ends: nobody could see how it is.
func (h Health) Beside(ctx context.Context, addr string, run func(context.Context) error) error {
	if addr == "" {
		return run(ctx)
	}
	l, err := Listen(addr)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() {
		defer stop()
		served <- ServeListener(ctx, l, h.Handler())
	}()
	err = run(ctx)
	stop()
	return errors.Join(err, <-served)
}

// Handler serves /livez (the process answers), /readyz (200, or 503 with the reason) and /metrics.
func (h Health) Handler() http.Handler {
	mux := http.NewServeMux()
	h.Register(mux)
	return mux
}

// Register adds the three paths to a mux.
func (h Health) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", h.ready)
	gatherer := h.Metrics
	if gatherer == nil {
		gatherer = prometheus.NewRegistry()
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
}

func (h Health) ready(w http.ResponseWriter, _ *http.Request) {
	if h.Ready != nil {
		if err := h.Ready(); err != nil {
			text(w, http.StatusServiceUnavailable, err.Error())
			return
		}
	}
	text(w, http.StatusOK, "ok")
}

func text(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(body + "\n"))
}

package httpx

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAPortInUseSaysWhichAndWhatToDo(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = Serve(t.Context(), l.Addr().String(), http.NotFoundHandler())
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "REEVE_HTTP_ADDR") {
		t.Error(err)
	}
}

func TestAStopLetsARequestFinish(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- ServeListener(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			stop() // the stop comes while this request is under way
			_, _ = io.WriteString(w, "finished")
		}))
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err := <-served; err != nil || string(body) != "finished" {
		t.Errorf("%q, %v", body, err)
	}
}

func TestHealthTellsReadinessAndFigures(t *testing.T) {
	figures := prometheus.NewRegistry()
	figures.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "reeve_up"}, func() float64 { return 1 }))
	var problem error
	h := Health{Ready: func() error { return problem }, Metrics: figures}.Handler()
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	for path, says := range map[string]string{"/livez": "ok", "/readyz": "ok", "/metrics": "reeve_up 1"} {
		if code, body := get(path); code != http.StatusOK || !strings.Contains(body, says) {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	problem = errors.New("Kafka isn't reachable")
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "Kafka isn't reachable") {
		t.Errorf("%d %q", code, body)
	}
	if code, _ := get("/livez"); code != http.StatusOK {
		t.Errorf("a service that isn't ready is alive all the same: %d", code)
	}
}

func TestHealthIsServedAsLongAsItsServiceRuns(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String() // free once the listener is closed
	l.Close()
	ready := make(chan struct{})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	readyz := func() (code int, body string) {
		resp, err := client.Get("http://" + addr + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		all, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(all)
	}
	done := errors.New("done")
	err = Health{Ready: Until(ready, "not yet")}.Beside(t.Context(), addr, func(context.Context) error {
		if code, body := readyz(); code != http.StatusServiceUnavailable || body != "not yet\n" {
			t.Errorf("%d %q", code, body)
		}
		close(ready)
		if code, _ := readyz(); code != http.StatusOK {
			t.Errorf("%d", code)
		}
		return done
	})
	if !errors.Is(err, done) {
		t.Error(err)
	}
	if _, err := client.Get("http://" + addr + "/readyz"); err == nil {
		t.Error("it is served on")
	}
	if err := (Health{}).Beside(t.Context(), "", func(context.Context) error { return done }); !errors.Is(err, done) {
		t.Error(err)
	}
}

package healthcheck

import (
	"bytes"
	"errors"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/httpx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAServiceIsAskedWhetherItIsReady(t *testing.T) {
	var ready atomic.Bool
	server := httptest.NewServer(httpx.Health{Ready: func() error {
		if !ready.Load() {
			return errors.New("the desired state isn't read yet")
		}
		return nil
	}}.Handler())
	defer server.Close()
	env := []string{"REEVE_NODE=n", "REEVE_HTTP_ADDR=" + strings.TrimPrefix(server.URL, "http://")}

	var said bytes.Buffer
	if code := Run(t.Context(), config.Dispatcher, env, &said); code != 1 || !strings.Contains(said.String(), "the desired state isn't read yet") {
		t.Errorf("before it is ready: exit code %d, %s", code, &said)
	}
	ready.Store(true)
	said.Reset()
	if code := Run(t.Context(), config.Dispatcher, env, &said); code != 0 || said.Len() > 0 {
		t.Errorf("when it is ready: exit code %d, %s", code, &said)
	}
	server.Close()
	if code := Run(t.Context(), config.Dispatcher, env, &said); code != 1 || !strings.Contains(said.String(), "dispatcher isn't ready") {
		t.Errorf("when it is gone: exit code %d, %s", code, &said)
	}
}

func TestTheAddressIsOneThatCanBeAsked(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8765": "http://127.0.0.1:8765/readyz",
		"0.0.0.0:8766":   "http://localhost:8766/readyz",
		"[::]:8767":      "http://localhost:8767/readyz",
		":8767":          "http://localhost:8767/readyz",
		"reeve.lan:80":   "http://reeve.lan:80/readyz",
	} {
		if got, err := target(addr); err != nil || got != want {
			t.Errorf("%s is asked at %s, %v; want %s", addr, got, err, want)
		}
	}
	if _, err := target("127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "REEVE_HTTP_ADDR") {
		t.Errorf("port 0: %v", err)
	}
}

package admission

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWhenIsDecidedByTheEnvironmentAlone(t *testing.T) {
	environ := []string{"ENV=staging", "ENV=production", "EMPTY="}
	for name, c := range map[string]struct {
		when   []Variable
		reason string
	}{
		"no condition":                   {nil, ""},
		"the value, the last one counts": {[]Variable{{"ENV", []string{"production"}}}, ""},
		"one of several":                 {[]Variable{{"ENV", []string{"staging", "production"}}}, ""},
		"another value":                  {[]Variable{{"ENV", []string{"development"}}}, `the environment variable ENV is "production", the entry is for "development"`},
		"none of several":                {[]Variable{{"ENV", []string{"a", "b"}}}, `the environment variable ENV is "production", the entry is for "a" or "b"`},
		"a variable that isn't set":      {[]Variable{{"REGION", []string{"eu"}}}, `the environment variable REGION is not set, the entry is for "eu"`},
		"unset is empty":                 {[]Variable{{"REGION", []string{""}}}, ""},
		"empty is empty":                 {[]Variable{{"EMPTY", []string{""}}}, ""},
		"all must hold":                  {[]Variable{{"ENV", []string{"production"}}, {"EMPTY", []string{"x"}}}, `the environment variable EMPTY is "", the entry is for "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			// A requirement that would fail isn't tried where the entry is skipped.
			got := Judge(t.Context(), []Terms{{When: c.when}}, environ)[0]
			want := Ruling{Reason: c.reason}
			if c.reason != "" {
				want.Verdict = Skipped
			}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// deaf is an address that takes no connection.
func deaf(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestRequirementsAreTried(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ready":
		case "/moved":
			http.Redirect(w, r, "/ready", http.StatusFound)
		case "/hangs":
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(hang) })
	closed := deaf(t)
	for name, c := range map[string]struct {
		r    Requirement
		says string
	}{
		"tcp":                           {Requirement{TCP, server.Listener.Addr().String(), time.Minute}, ""},
		"tcp, nobody listens":           {Requirement{TCP, closed, time.Minute}, "connection refused"},
		"http":                          {Requirement{HTTP, server.URL + "/ready", time.Minute}, ""},
		"http by a redirect":            {Requirement{HTTP, server.URL + "/moved", time.Minute}, ""},
		"http, not ready":               {Requirement{HTTP, server.URL + "/busy", time.Minute}, "it answers 503 Service Unavailable"},
		"http, nobody listens":          {Requirement{HTTP, "http://" + closed, time.Minute}, "connection refused"},
		"http, no answer":               {Requirement{HTTP, server.URL + "/hangs", 50 * time.Millisecond}, "no answer within 50ms"},
		"env":                           {Requirement{Kind: Env, Target: "TOKEN"}, ""},
		"env, empty":                    {Requirement{Kind: Env, Target: "EMPTY"}, "it is not set or empty"},
		"env, not set":                  {Requirement{Kind: Env, Target: "NONE"}, "it is not set or empty"},
		"a variable that only ends so":  {Requirement{Kind: Env, Target: "OKEN"}, "it is not set or empty"},
		"tcp, a host that has no name":  {Requirement{TCP, "no.such.host.invalid:1", time.Minute}, "no.such.host.invalid"},
		"http, a host that has no name": {Requirement{HTTP, "http://no.such.host.invalid/", time.Minute}, "no.such.host.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Judge(t.Context(), []Terms{{Requires: []Requirement{c.r}}}, []string{"TOKEN=x", "EMPTY="})[0]
			switch {
			case c.says == "" && got != Ruling{}:
				t.Errorf("got %+v", got)
			case c.says != "" && (got.Verdict != Failed || !strings.HasPrefix(got.Reason, c.r.String()+": ") || !strings.Contains(got.Reason, c.says)):
				t.Errorf("got %+v, want a failure that says %q", got, c.says)
			}
		})
	}
}

// Sixteen requirements that all wait for each other come through only side by side; what many entries share is asked
// once; what a skipped entry requires isn't asked at all.
func TestRequirementsAreTriedSideBySideAndOnce(t *testing.T) {
	var asked atomic.Int64
	all := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == atOnce {
			close(all)
		}
		select {
		case <-all:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	var terms []Terms
	for range 3 {
		for n := range atOnce {
			r := Requirement{HTTP, server.URL + "/" + string(rune('a'+n)), time.Minute}
			terms = append(terms, Terms{Requires: []Requirement{r}})
		}
	}
	never := Requirement{HTTP, server.URL + "/never", time.Minute}
	terms = append(terms, Terms{When: []Variable{{"ENV", []string{"x"}}}, Requires: []Requirement{never}})
	rulings := Judge(t.Context(), terms, nil)
	for n, r := range rulings[:len(rulings)-1] {
		if r.Verdict != Admitted {
			t.Fatalf("%d: %+v", n, r)
		}
	}
	if last := rulings[len(rulings)-1]; last.Verdict != Skipped || asked.Load() != atOnce {
		t.Errorf("the last is %+v, asked %d times", last, asked.Load())
	}
}

func TestAnEndedContextEndsTheTrying(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := Requirement{TCP, deaf(t), time.Minute}
	if got := Judge(ctx, []Terms{{Requires: []Requirement{r}}}, nil)[0]; got.Verdict != Failed {
		t.Errorf("got %+v", got)
	}
}

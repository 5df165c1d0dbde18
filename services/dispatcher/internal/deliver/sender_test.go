package deliver

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/internal/egress"
	"github.com/reeve-run/reeve/pkg/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret1 = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secret2 = "whsec_c2Vjb25kLXNlY3JldC10aGF0LWlzLWxvbmctZW5vdWdo"
)

// sender may reach this machine.
func sender(t *testing.T, secrets *Secrets, timeout time.Duration, allow ...string) *Sender {
	t.Helper()
	a, err := egress.ParseAllow(allow)
	if err != nil {
		t.Fatal(err)
	}
	s := NewSender(egress.NewGuard(a, timeout), secrets, timeout)
	t.Cleanup(s.Close)
	return s
}

func serve(t *testing.T, f http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return srv
}

func secrets(t *testing.T, text string) *Secrets {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secrets.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := LoadSecrets(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAReceiverVerifiesTheSignatureByAnyOfItsSecrets(t *testing.T) {
	verified := make(chan error, 4)
	srv := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for _, secret := range []string{secret1, secret2} {
			wh, err := standardwebhooks.NewWebhook(secret)
			if err == nil {
				err = wh.Verify(body, r.Header)
			}
			verified <- err
		}
		if wh, _ := standardwebhooks.NewWebhook(secret1); wh.Verify(append(body, ' '), r.Header) == nil {
			t.Error("a changed body verifies")
		}
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("webhook-id") == "" {
			t.Errorf("%s %v", r.Method, r.Header)
		}
	})
	s := sender(t, secrets(t, srv.URL+"/hooks: ["+secret1+", "+secret2+"]\n"), time.Second, "127.0.0.1")
	if a := s.Send(t.Context(), Read(record(srv.URL+"/hooks/in?x=1"))); a.Err != nil || a.Status != 200 {
		t.Fatalf("%+v", a)
	}
	for range 2 {
		if err := <-verified; err != nil {
			t.Error(err)
		}
	}
}

func TestWithoutASecretThereIsNoSignature(t *testing.T) {
	srv := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("webhook-signature") != "" || r.Header.Get("webhook-id") == "" || r.Header.Get("webhook-timestamp") == "" {
			t.Errorf("%v", r.Header)
		}
	})
	for _, s := range []*Secrets{nil, secrets(t, "elsewhere.example: "+secret1+"\n")} {
		if a := sender(t, s, time.Second, "127.0.0.1").Send(t.Context(), Read(record(srv.URL))); a.Status != 200 {
			t.Errorf("%+v", a)
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	var reached atomic.Bool
	private := serve(t, func(http.ResponseWriter, *http.Request) { reached.Store(true) })
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, private.URL, http.StatusMovedPermanently)
	})
	a := sender(t, nil, time.Second, "127.0.0.1").Send(t.Context(), Read(record(srv.URL)))
	if a.Status != 301 || reached.Load() || Judge(nil, 1, a).State == Delivered {
		t.Errorf("%+v, followed: %v", a, reached.Load())
	}
}

func TestAPrivateAddressIsRefused(t *testing.T) {
	var reached atomic.Bool
	srv := serve(t, func(http.ResponseWriter, *http.Request) { reached.Store(true) })
	t.Setenv("HTTP_PROXY", srv.URL) // which would go there for us
	t.Setenv("HTTPS_PROXY", srv.URL)
	s := sender(t, nil, time.Second)
	for _, url := range []string{srv.URL, strings.Replace(srv.URL, "127.0.0.1", "localhost", 1), strings.Replace(srv.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1), "http://169.254.169.254/latest/meta-data/"} {
		a := s.Send(t.Context(), Read(record(url)))
		if v := Judge([]time.Duration{time.Second}, 1, a); !errors.Is(a.Err, egress.ErrRefused) || v.State != Failed || v.Class != task.ClassPermanent || !strings.Contains(v.Message, "REEVE_WEBHOOK_ALLOW") {
			t.Errorf("%s: %+v, %+v", url, a, v)
		}
	}
	if reached.Load() {
		t.Error("it was reached")
	}
}

// left waits until the sender has gone away.
func left(r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // else the server doesn't watch the connection
	<-r.Context().Done()
}

func TestATryIsBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		handle http.HandlerFunc
		class  task.Class // "" is delivered
	}{
		"no answer": {func(_ http.ResponseWriter, r *http.Request) { left(r) }, task.ClassTimeout},
		"a body that hangs": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			left(r)
		}, ""},
		"an error that hangs": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			w.(http.Flusher).Flush()
			left(r)
		}, task.ClassDependency},
		"an endless body": {func(w http.ResponseWriter, _ *http.Request) {
			for range 1 << 14 {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
					return
				}
			}
		}, ""},
		"an endless header": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("x", strings.Repeat("x", 1<<20)) }, task.ClassNetwork},
		"a closed door": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		}, task.ClassNetwork},
	} {
		t.Run(name, func(t *testing.T) {
			srv := serve(t, tt.handle)
			began := time.Now()
			a := sender(t, nil, 700*time.Millisecond, "127.0.0.1").Send(t.Context(), Read(record(srv.URL+"/services/path-secret?token=query-secret")))
			v := Judge([]time.Duration{time.Second}, 1, a)
			if v.Class != tt.class || time.Since(began) > 30*time.Second {
				t.Errorf("after %s: %+v, %+v", time.Since(began), a, v)
			}
			if text := v.Message; strings.Contains(text, "secret") || len(text) > 1000 {
				t.Errorf("it tells %q", text)
			}
		})
	}
}

func TestWhenToComeAgainIsRead(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "-7": 0, "soon": 0, "Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:03:05 GMT": 0, "99999999999999999999": 0} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestTheMostSpecificSecretSigns(t *testing.T) {
	a, b, c, d, e := secret(1), secret(2), secret(3), secret(4), secret(5)
	s := secrets(t, "\"*\": "+a+"\nh.example: "+b+"\nh.example:8443: "+c+"\nhttps://h.example/pay: "+d+"\nhttps://h.example/pay/late/: "+e+"\n")
	for url, want := range map[string]string{"https://other/": a, "http://h.example/pay": b, "https://H.example/": b, "https://h.example:8443/pay": c, "https://h.example/pay": d,
		"https://h.example:443/pay/x": d, "https://h.example/payday": b, "https://h.example/pay/late/1": e, "https://h.example/pay/later": d, "https://h.example/pay/late?x=1": e} {
		w := Read(record(url))
		signers := s.Of(w.URL)
		reference, err := standardwebhooks.NewWebhook(want)
		if err != nil || len(signers) != 1 {
			t.Fatal(err, len(signers))
		}
		at := time.Now()
		got, _ := signers[0].Sign("id", at, nil)
		if expected, _ := reference.Sign("id", at, nil); got != expected {
			t.Errorf("%s is signed with another secret", url)
		}
	}
}

// secret is the n-th, of 24 bytes.
func secret(n int) string { return "whsec_" + strings.Repeat(string(rune('A'+n)), 32) }

func TestAFileOfSecretsThatCantBeUsedIsRefused(t *testing.T) {
	for text, says := range map[string]string{
		"h: whsec_short": "random bytes", "h: " + strings.TrimPrefix(secret1, "whsec_"): "random bytes", "h: []": "no secret", "h: 7": "random bytes", "- x": "no YAML", "{": "no YAML",
		"ftp://h: " + secret1: "http or https", "https://u@h: " + secret1: "without user", "https://h?x=1: " + secret1: "query", "a/b: " + secret1: "neither", "h: " + secret1 + "\nh: " + secret2: "no YAML",
	} {
		path := filepath.Join(t.TempDir(), "s.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadSecrets(path, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "MfKQ9r8") {
			t.Errorf("%q: %v", text, err)
		}
	}
	path := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(path, []byte("h: "+secret1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSecrets(path, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("everybody may read it: %v", err)
	}
}

func TestChangedSecretsCountWithoutARestart(t *testing.T) {
	s := secrets(t, "h: "+secret1)
	now := time.Now()
	s.now = func() time.Time { return now }
	w := Read(record("https://h/"))
	signature := func() string {
		now = now.Add(time.Minute)
		var all []string
		for _, signer := range s.Of(w.URL) {
			text, _ := signer.Sign("id", time.Unix(1, 0), nil)
			all = append(all, text)
		}
		return strings.Join(all, " ")
	}
	change := func(text string) {
		if err := os.WriteFile(s.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := signature()
	change("h: [" + secret2 + ", " + secret1 + "]")
	if both := signature(); !strings.HasSuffix(both, " "+first) {
		t.Errorf("both sign after the change: %q, before %q", both, first)
	}
	change("h: nonsense")
	if both := signature(); !strings.HasSuffix(both, " "+first) {
		t.Error("a file that can't be read takes the secrets away")
	}
	change("other: " + secret1)
	if left := signature(); left != "" {
		t.Errorf("an entry that is gone still signs: %q", left)
	}
}

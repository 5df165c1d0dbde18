package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, key string, h http.HandlerFunc) *client.ClientWithResponses {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := client.New(client.Config{URL: s.URL, Key: key, HTTP: s.Client()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func TestAProblemIsAnErrorWithItsCode(t *testing.T) {
	c := dial(t, "", answer(404, "application/problem+json",
		`{"type":"about:blank","title":"Not Found","status":404,"detail":"no agent a/b","code":"agent_not_found","remediation":"look at reeve agent list","errors":[{"field":"name","message":"unknown"}]}`))
	_, err := c.GetAgentWithResponse(context.Background(), "a", "b")
	var p *client.ProblemError
	if !errors.As(err, &p) || p.Status != 404 || client.Code(err) != "agent_not_found" {
		t.Fatalf("got %v", err)
	}
	if want := "no agent a/b\n  name: unknown\nlook at reeve agent list"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestAForeignAnswerIsAProblemToo(t *testing.T) {
	c := dial(t, "", answer(502, "text/html", "<html>Bad Gateway\nmore"))
	_, err := c.GetAgentWithResponse(context.Background(), "a", "b")
	if client.Code(err) != "unexpected_answer" {
		t.Errorf("got %v", err)
	}
}

func TestAnUnhealthyRegistryStillAnswers(t *testing.T) {
	c := dial(t, "", answer(503, "application/json", `{"status":"down"}`))
	r, err := c.GetHealthWithResponse(context.Background())
	if err != nil || r.JSON503 == nil || r.JSON503.Status != "down" {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestNoAnswerIsUnreachable(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	c, err := client.New(client.Config{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.ListAgentsWithResponse(context.Background(), nil)
	var u *client.UnreachableError
	if !errors.As(err, &u) || u.URL != s.URL {
		t.Errorf("got %v", err)
	}
}

func TestTheKeyGoesWithEveryRequest(t *testing.T) {
	var got string
	c := dial(t, "secret", func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		answer(200, "application/json", `{"items":[]}`)(w, r)
	})
	if _, err := c.ListAgentsWithResponse(context.Background(), nil); err != nil || got != "Bearer secret" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestParametersThatAreLeftOutAreNotSent(t *testing.T) {
	var got *http.Request
	c := dial(t, "", func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(context.Background())
		answer(200, "application/json", `{"items":[]}`)(w, r)
	})
	if _, err := c.ListTasksWithResponse(context.Background(), &client.ListTasksParams{Agent: "a/b"}); err != nil || got.URL.RawQuery != "agent=a%2Fb" {
		t.Errorf("got %q, %v", got.URL.RawQuery, err)
	}
	if _, err := c.DeleteAgentWithResponse(context.Background(), "a", "b", &client.DeleteAgentParams{DeleteDlq: true}); err != nil || len(got.Header.Values("If-Match")) > 0 {
		t.Errorf("got %v, %v", got.Header, err)
	}
}

func TestAURLThatIsNoneIsRefused(t *testing.T) {
	for _, u := range []string{"127.0.0.1:8765", "ftp://x", "http://", "::"} {
		if _, err := client.New(client.Config{URL: u}); err == nil {
			t.Errorf("%q was accepted", u)
		}
	}
}

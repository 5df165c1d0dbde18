package cli

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/internal/version"
	"github.com/reeve-run/reeve/services/reeve/internal/profile"
	"github.com/reeve-run/reeve/services/registry/api"
)

func TestAnAgentThatIsNotThereHasANearestOne(t *testing.T) {
	f := newFake()
	for _, ref := range []string{"orders/triage", "orders/audit", "payments/check"} {
		a := running()
		a.Topic, a.Name, _ = strings.Cut(ref, "/")
		f.agents[ref] = a
	}
	for wanted, says := range map[string]string{
		"orders/triaeg": "did you mean orders/triage?",
		"order/audit":   "did you mean orders/audit?",
		"order/triaeg":  "see `reeve agent list`\n",
		"refunds/check": "did you mean payments/check?",
		"payments/xxxx": "see `reeve agent list --topic payments`",
		"zzzzzz/zzzzzz": "see `reeve agent list`\n",
	} {
		if got := f.reeve(t, "", "agent", "get", wanted); got.code != NotFound || !strings.Contains(got.err, says) {
			t.Errorf("%s: %+v", wanted, got)
		}
	}
	if got := (&fake{agents: map[string]api.Agent{}}).reeve(t, "", "agent", "get", "t/a"); !strings.Contains(got.err, "no agent is registered") {
		t.Errorf("%+v", got)
	}
}

// refusing answers everything with one problem.
func refusing(status int, kind, body, says string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		if says != "" {
			w.Header().Set(version.Header, says)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func TestARefusedKeySaysWhereItCameFrom(t *testing.T) {
	server := httptest.NewServer(refusing(401, "application/problem+json", `{"status":401,"code":"unauthorized","detail":"no valid key"}`, version.Number))
	defer server.Close()
	_, environ := home(t, profile.File{Profiles: map[string]profile.Profile{"prod": {URL: server.URL, APIKeyEnv: "PROD_KEY"}}})
	environ = append(environ, "PROD_KEY=s3cret")
	for _, tt := range []struct{ environ, args, says string }{
		{"REEVE_URL=" + server.URL, "agent list", "no key was sent: give it in REEVE_API_KEY"},
		{"REEVE_API_KEY=s3cret REEVE_URL=" + server.URL, "agent list", "the key came from REEVE_API_KEY, and isn't the one of the registry at " + server.URL + " (from REEVE_URL)"},
		{"", "--profile prod agent list", "the key came from profile prod (variable PROD_KEY)"},
	} {
		got := execute(context.Background(), System{Environ: append(environ, strings.Fields(tt.environ)...)}, strings.Fields(tt.args)...)
		if got.code != Failed || !strings.Contains(got.err, tt.says) || strings.Contains(got.err, "s3cret") {
			t.Errorf("%s %s: %+v", tt.environ, tt.args, got)
		}
	}
}

func TestARegistryOfAnotherVersionIsToldOf(t *testing.T) {
	for says, want := range map[string]string{
		version.Number: "",
		"99.0.0":       "has version 99.0.0 and this reeve " + version.Number + ", which may not understand each other: upgrade this reeve",
		"0.0.1":        "upgrade the registry",
		"":             "",
	} {
		f := newFake()
		f.version = says
		got := f.reeve(t, "", "agent", "list")
		if got.code != Done || !strings.Contains(got.err, want) || want == "" && got.err != "" {
			t.Errorf("%s: %+v", says, got)
		}
	}
}

func TestAPathThatTheRegistryDoesNotHaveIsExplained(t *testing.T) {
	for says, want := range map[string]string{
		"":             "the registry doesn't say its version, so it is older than this reeve (" + version.Number + "): upgrade it",
		"0.0.9":        "the registry has version 0.0.9 and doesn't know yet what this reeve (" + version.Number + ") asks for: upgrade it",
		"99.0.0":       "upgrade reeve",
		version.Number: "check that it has no path behind the host",
	} {
		server := httptest.NewServer(refusing(404, "application/problem+json", `{"status":404,"code":"route_not_found","detail":"there is nothing"}`, says))
		got := execute(context.Background(), System{Environ: []string{"REEVE_URL=" + server.URL}}, "agent", "list")
		server.Close()
		if got.code != Failed || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v", says, got)
		}
	}
}

func TestAnotherServerIsNoRegistry(t *testing.T) {
	server := httptest.NewServer(refusing(404, "text/html", "<html>", ""))
	defer server.Close()
	got := execute(context.Background(), System{Environ: []string{"REEVE_URL=" + server.URL}}, "agent", "get", "t/a")
	if got.code != Failed || !strings.Contains(got.err, "is no Reeve registry's") || !strings.Contains(got.err, "from REEVE_URL") {
		t.Errorf("%+v", got)
	}
}

func TestAHostThatDoesNotExistIsUnreachable(t *testing.T) {
	got := execute(context.Background(), System{}, "--url", "http://nowhere.invalid:1", "health")
	if got.code != Unreachable || !strings.Contains(got.err, "; the URL is from --url") {
		t.Errorf("%+v", got)
	}
}

func TestVersionShowsBothSides(t *testing.T) {
	f := newFake()
	f.version = version.Number
	if got := f.reeve(t, "", "version"); got.code != Done || !strings.Contains(got.out, "reeve:") || !strings.Contains(got.out, "registry:  "+version.Number) {
		t.Errorf("%+v", got)
	}
	if got := f.reeve(t, "", "version", "-o", "json"); !strings.Contains(got.out, `"compatible": true`) {
		t.Errorf("%+v", got)
	}
	server := httptest.NewServer(f.handler())
	server.Close()
	for args, code := range map[string]int{"version": Unreachable, "version --client": Done} {
		got := execute(context.Background(), System{Environ: []string{"REEVE_URL=" + server.URL}}, strings.Fields(args)...)
		if got.code != code || !strings.Contains(got.out, version.Number) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestHelpOnNothingIsUsage(t *testing.T) {
	for args, want := range map[string]result{
		"help":            {Done, "Set up:", ""},
		"help agent list": {Done, "reeve agent list", ""},
		"help agent lits": {Usage, "", "is no command"},
		"help nonsense":   {Usage, "", "is no command"},
		"completion":      {Usage, "", "bash|fish|zsh"},
		"completion csh":  {Usage, "", "bash|fish|zsh"},
		"version extra":   {Usage, "", "takes no arguments"},
		"config get a b":  {Usage, "", "at most"},
		"publish t --content 1 --webhook ftp://x": {Usage, "", `the webhook is no http or https URL`},
	} {
		got := newFake().reeve(t, "", strings.Fields(args)...)
		if got.code != want.code || !strings.Contains(got.out, want.out) || !strings.Contains(got.err, want.err) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestASideQuestionIsBounded(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(hang)
	started := time.Now()
	got := execute(context.Background(), System{Environ: []string{"REEVE_URL=" + server.URL}}, "__complete", "agent", "get", "")
	if took := time.Since(started); got.code != Done || took > 5*time.Second || !strings.HasPrefix(got.out, ":4") {
		t.Errorf("after %s: %+v", took, got)
	}
}

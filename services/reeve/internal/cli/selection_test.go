package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// conditional writes a file with an entry of every fate, and gives the address that fails.
func conditional(t *testing.T) (path, deaf string) {
	t.Helper()
	ready := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(ready.Close)
	closed := httptest.NewServer(nil)
	closed.Close()
	file := `
agents:
- {topic: t, name: a, command: ./x, when: {env: {ENV: production}}, requires: [{http: "` + ready.URL + `"}, {env: ENV}]}
- {topic: t, name: debug, command: ./x, when: {env: {ENV: development}}, requires: [{tcp: "` + closed.Listener.Addr().String() + `"}]}
- {topic: t, name: billing, command: ./x, requires: [{tcp: "` + closed.Listener.Addr().String() + `"}]}
`
	path = filepath.Join(t.TempDir(), "agents.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, closed.Listener.Addr().String()
}

func TestApplyRegistersWhatItsConditionsAdmit(t *testing.T) {
	path, deaf := conditional(t)
	want := "~ t/a update\n    config.max_retries: 3 → 5\n" +
		"· t/debug skipped: the environment variable ENV is \"production\", the entry is for \"development\"\n" +
		"! t/billing not registered, its requirement failed: tcp " + deaf + ": connect: connection refused\n"
	for _, dry := range []bool{false, true} {
		f := newFake()
		got := f.on(t, System{Environ: []string{"ENV=production"}}, slices.Concat([]string{"apply", "-f", path}, map[bool][]string{true: {"--dry-run"}}[dry])...)
		if got.code != 1 || got.out != want || !strings.Contains(got.err, "1 agent isn't registered, because a requirement failed: provide") {
			t.Errorf("dry run %t: %+v", dry, got)
		}
		if !slices.Equal(f.applied, []string{"t/a"}) || f.keep != nil {
			t.Errorf("dry run %t: applied %v, kept %v", dry, f.applied, f.keep)
		}
	}
}

// Prune deletes what a file doesn't list. What it lists and doesn't apply now is neither deleted nor changed.
func TestPruneKeepsWhatItsConditionsHoldBack(t *testing.T) {
	path, _ := conditional(t)
	f := newFake()
	got := f.on(t, System{Environ: []string{"ENV=production"}}, "apply", "-f", path, "--prune")
	if !f.prune || !slices.Equal(f.keep, []string{"t/debug", "t/billing"}) {
		t.Errorf("prune %t, kept %v: %+v", f.prune, f.keep, got)
	}
}

// What is skipped is as intended: only a failed requirement is a failure.
func TestASkippedEntryIsNoFailure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agents.yaml")
	if err := os.WriteFile(path, []byte("agents:\n- {topic: t, name: b, command: ./x, when: {env: {ENV: production}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFake()
	got := f.reeve(t, "", "apply", "-f", path, "-o", "jsonl")
	var item Unregistered
	if err := json.Unmarshal([]byte(got.out), &item); err != nil || got.code != 0 || got.err != "" {
		t.Fatalf("%+v: %v", got, err)
	}
	want := Unregistered{"skip", "t", "b", `the environment variable ENV is not set, the entry is for "production"`}
	if item != want {
		t.Errorf("got %+v", item)
	}
}

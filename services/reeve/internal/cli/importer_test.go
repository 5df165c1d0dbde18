package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const testRunner = `
from omnidaemon import AgentConfig, OmniDaemonSDK
from work import book
sdk = OmniDaemonSDK()
async def main():
    await sdk.register_agent(agent_config=AgentConfig(topic="t", name="a", callback=book, tools=[1]))
`

func TestImportWritesAFileThatApplyTakes(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"agent_runner.py": testRunner, "work.py": "def book(m): pass\n", "lost.py": testRunner + "    sdk.register_agent(config())\n", "none.py": "x = 1\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := byHand(t.Context(), "", "import", "agent_runner.py")
	if got.code != 0 || !strings.Contains(got.out, "\n  - topic: t\n    name: a\n    callback: work:book\n") || got.err != "agent_runner.py:6: tools=[1]: Reeve doesn't know an agent's tools, its code does\n" {
		t.Errorf("%+v", got)
	}
	if got := byHand(t.Context(), "", "import", "agent_runner.py", "-f", "agents.yaml"); got.code != 0 || got.out != "wrote agents.yaml\n" {
		t.Errorf("%+v", got)
	}
	f := newFake()
	if got := f.reeve(t, "", "apply", "--dry-run"); got.code != 0 || !slices.Equal(f.applied, []string{"t/a"}) {
		t.Errorf("%+v, applied %v", got, f.applied)
	}
	before, err := os.ReadFile("agents.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got = byHand(t.Context(), "", "import", "agent_runner.py", "-f", "agents.yaml")
	if after, err := os.ReadFile("agents.yaml"); got.code != 1 || !strings.Contains(got.err, "agents.yaml is there already, nothing was written") || err != nil || string(after) != string(before) {
		t.Errorf("%+v, %v", got, err)
	}
	if got := byHand(t.Context(), "", "import", "lost.py"); got.code != 1 || !strings.Contains(got.out, "- topic: t\n") || !strings.Contains(got.err, "error: 1 of 2 agents aren't translated") {
		t.Errorf("%+v", got)
	}
	if got := byHand(t.Context(), "", "import", "none.py"); got.code != 1 || got.out != "" || !strings.Contains(got.err, "none.py registers no agents") {
		t.Errorf("%+v", got)
	}
}

func TestImportSaysWhatItNeeds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runner.py")
	if err := os.WriteFile(path, []byte("def f(:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := newFake().on(t, System{Environ: []string{"PATH=/nowhere"}}, "import", path); got.code != 1 || !strings.Contains(got.err, "python3 isn't on the PATH") || !strings.Contains(got.err, "install Python 3.8 or newer") {
		t.Errorf("%+v", got)
	}
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"import":                 {2, "takes one runner"},
		"import " + path + "x":   {1, "no such file"},
		"import --url x " + path: {2, "asks no registry"},
	} {
		if got := byHand(t.Context(), "", strings.Fields(line)...); got.code != want.code || got.out != "" || !strings.Contains(got.err, want.says) {
			t.Errorf("%s: %+v", line, got)
		}
	}
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
	if got := byHand(t.Context(), "", "import", path); got.code != 1 || !strings.Contains(got.err, path+":1:7: is no Python: ") {
		t.Errorf("%+v", got)
	}
}

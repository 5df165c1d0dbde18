package omnidaemon

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-run/reeve/services/reeve/internal/agentsfile"
)

var update = flag.Bool("update", false, "write the golden files anew")

func needPython(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
}

// Each runner below testdata has beside it the file that is made of it, and what is told on standard error.
func TestARunnerBecomesAnAgentsFileThatLoads(t *testing.T) {
	needPython(t)
	runners, err := filepath.Glob("testdata/*/agent_runner.py")
	if err != nil || len(runners) == 0 {
		t.Fatalf("no runners: %v", err)
	}
	for _, path := range runners {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			runner, err := Read(t.Context(), path, os.Environ())
			if err != nil {
				t.Fatal(err)
			}
			got := runner.Translate()
			listed, err := agentsfile.Parse("agents.yaml", got.YAML, agentsfile.Options{AgentsDir: filepath.Dir(path)})
			if err != nil || len(listed) != got.Agents {
				t.Errorf("%d of %d agents load: %v\n%s", len(listed), got.Agents, err, got.YAML)
			}
			golden(t, filepath.Join(filepath.Dir(path), "agents.yaml"), string(got.YAML))
			golden(t, filepath.Join(filepath.Dir(path), "notes.txt"), told(got))
			for _, n := range got.Notes {
				if !strings.Contains(string(got.YAML), oneLine(n.Text)) {
					t.Errorf("the file says nothing of line %d: %s", n.Line, n.Text)
				}
			}
		})
	}
}

func told(t Translation) string {
	var b strings.Builder
	for _, n := range t.Notes {
		fmt.Fprintf(&b, "%d: %s\n", n.Line, n.Text)
	}
	fmt.Fprintf(&b, "%d agents, %d lost\n", t.Agents, t.Lost)
	return b.String()
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: %s", path, diff)
	}
}

// A runner that would write a file, were it run or were a module beside it imported, writes none.
func TestARunnerIsNeverRun(t *testing.T) {
	needPython(t)
	dir := t.TempDir()
	trap := "open('ran', 'w')\n"
	for name, text := range map[string]string{"agent_runner.py": trap + "from work import f\nsdk.register_agent(AgentConfig(topic='t', callback=f))\n",
		"work.py": trap + "def f(m): pass\n", "json.py": trap, "ast.py": trap, "sitecustomize.py": trap} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	runner, err := Read(t.Context(), "agent_runner.py", append(os.Environ(), "PYTHONPATH="+dir))
	if err != nil {
		t.Fatal(err)
	}
	if got := runner.Translate(); got.Agents != 1 || len(got.Notes) != 0 {
		t.Errorf("%s, %v", got.YAML, got.Notes)
	}
	if _, err := os.Stat("ran"); err == nil {
		t.Error("something was run")
	}
}

func TestWhatCannotBeReadSaysWhy(t *testing.T) {
	needPython(t)
	path := filepath.Join(t.TempDir(), "runner.py")
	for text, says := range map[string]string{
		"def f(:\n":  path + ":1:7: is no Python: ",
		"x = '\xff'": path + ": is no Python: 'utf-8'",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Read(t.Context(), path, os.Environ())
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || !strings.HasPrefix(err.Error(), says) {
			t.Errorf("%q: %v, want %s", text, err, says)
		}
	}
	if _, err := Read(t.Context(), path, []string{"PATH=/nowhere"}); !errors.Is(err, ErrNoPython) {
		t.Errorf("without Python: %v", err)
	}
	if _, err := Read(t.Context(), path+"x", os.Environ()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
}

package scaffold

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/reeve/internal/agentsfile"
)

// tool is the program that a language's test needs.
var tool = map[string]string{"python": "python3", "node": "node", "go": "go", "command": "sh"}

// made is a directory with what a language's template gives.
func made(t *testing.T, lang string) (dir string, names []string, o Options) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "deep", "agent")
	o = Options{Lang: lang, Name: "123", Topic: "true"} // which YAML would take for something else
	names, err := Write(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return dir, names, o
}

func TestEveryTemplatesTestRunsAndCanFail(t *testing.T) {
	for _, lang := range Languages() {
		t.Run(lang, func(t *testing.T) {
			if _, err := exec.LookPath(tool[lang]); err != nil {
				t.Skipf("needs %s", tool[lang])
			}
			dir, _, o := made(t, lang)
			test := func() (string, error) {
				cmd := exec.CommandContext(t.Context(), "sh", "-c", Steps("reeve", o)[0].Command)
				cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=", "NODE_OPTIONS=")
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			if out, err := test(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if err := os.WriteFile(filepath.Join(dir, sample), []byte(`{"name": "Bob"}`), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := test(); err == nil {
				t.Errorf("the test takes any greeting:\n%s", out)
			}
		})
	}
}

func TestEveryTemplatesEntryIsAnAgent(t *testing.T) {
	runtimes := map[string]string{"python": spec.Python, "node": spec.Node, "go": spec.Command, "command": spec.Command}
	for _, lang := range Languages() {
		dir, names, o := made(t, lang)
		listed, err := agentsfile.Read(filepath.Join(dir, "agents.yaml"), agentsfile.Options{})
		if err != nil || len(listed) != 1 {
			t.Fatalf("%s: %v, %v", lang, listed, err)
		}
		a := listed[0].Agent
		if a.Ref() != o.Topic+"/"+o.Name || a.Runtime != runtimes[lang] || a.Dir != "" {
			t.Errorf("%s: %+v", lang, a)
		}
		if !slices.Contains(names, sample) || !slices.Contains(names, ".gitignore") || !slices.IsSorted(names) {
			t.Errorf("%s: made %v", lang, names)
		}
	}
}

func TestStepsAreFew(t *testing.T) {
	for _, lang := range Languages() {
		if n := len(Steps("reeve", Options{Lang: lang, Name: "n", Topic: "t"})); n > 4 { // beside init and cd
			t.Errorf("%s: %d steps", lang, n)
		}
	}
}

func TestWhatIsThereIsNeverWrittenTo(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "event.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, path := range map[string]string{"": filepath.Join(dir, "none"), "a b event.json": dir, filepath.Join(dir, "a"): filepath.Join(dir, "a")} {
		names, err := InTheWay(path, 3)
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("%s: %v, %v", path, names, err)
		}
	}
	if names, err := InTheWay(dir, 2); err != nil || strings.Join(names, " ") != "a b …" {
		t.Errorf("%v, %v", names, err)
	}
	if _, err := Write(dir, Options{Lang: "python", Name: "n", Topic: "t"}); err == nil {
		t.Error("written over what was there")
	}
	left, err := os.ReadDir(dir)
	if b, rerr := os.ReadFile(filepath.Join(dir, "event.json")); err != nil || rerr != nil || len(left) != 3 || string(b) != "mine" {
		t.Errorf("left %v, %q: %v, %v", left, b, err, rerr)
	}
}

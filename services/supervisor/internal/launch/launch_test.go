package launch

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/reeve-run/reeve/internal/proc"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/supervisor/internal/instance"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestAPathThatEscapesThroughALinkIsRefused(t *testing.T) {
	root := tree(t, map[string]string{"agents/ok/run": "#!/bin/sh\n", "elsewhere/run": "#!/bin/sh\n"})
	for _, link := range [][2]string{{"../elsewhere", "agents/out"}, {"../../elsewhere", "agents/ok/work"}, {"ok", "agents/within"}} {
		if err := os.Symlink(link[0], filepath.Join(root, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	l := Launcher{AgentsDir: filepath.Join(root, "agents"), Environ: os.Environ(), Mark: proc.Mark{Host: "h", Node: "n", Life: "1.2"}}
	for name, tt := range map[string]struct{ dir, cwd, says string }{
		"a good one":            {"ok", "", ""},
		"a link within":         {"within", "", ""},
		"a link that leads out": {"out", "", "out of"},
		"dots":                  {"../elsewhere", "", "out of"},
		"a working directory":   {"ok", "work", "out of"},
		"nothing there":         {"nope", "", "isn't there"},
		"a file":                {"ok/run", "", "no directory"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &spec.Agent{Topic: "t", Name: "a", Runtime: spec.Command, Command: []string{"./run"}, Dir: tt.dir}
			a.Process.Cwd = tt.cwd
			c, err := l.Prepare(a, "n-1")
			if tt.says == "" {
				if err != nil || c.Mark.String() != "h/n/1.2/t/a/n-1" || filepath.Base(c.Path) != "run" {
					t.Errorf("%+v, %v", c, err)
				}
				return
			}
			var se *instance.StartError
			if !errors.As(err, &se) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestTheEnvironmentIsAllowedReadAndGiven(t *testing.T) {
	root := tree(t, map[string]string{"a/.env": "# comment\nexport FILE='from file' \nBOTH=file\nEMPTY=\nQUOTED=\"a # b\"\nREEVE_INSTANCE=forged\n"})
	l := Launcher{AgentsDir: root, Environ: []string{"PATH=/bin", "SECRET=x", "REEVE_KAFKA_SASL_PASSWORD=x", "REEVE_KAFKA_TLS_KEY=/k", "LC_ALL=C", "PATHS=x"}}
	env, err := l.environment(filepath.Join(root, "a"), map[string]string{"BOTH": "spec"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"BOTH=spec", "EMPTY=", "FILE=from file", "LC_ALL=C", "PATH=/bin", "QUOTED=a # b"}
	if !slices.Equal(env, want) {
		t.Errorf("got %q", env)
	}
}

func TestAnEnvironmentFileThatIsWrongIsNamed(t *testing.T) {
	root := tree(t, map[string]string{"a/.env": "A=1\nnonsense\n"})
	_, err := Launcher{AgentsDir: root}.environment(filepath.Join(root, "a"), nil)
	if err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("got %v", err)
	}
}

func TestAnAgentsOwnInterpreterComesFirst(t *testing.T) {
	root := tree(t, map[string]string{"a/.venv/bin/python3": "#!/bin/sh\n", "bin/python3": "\x7fELF"})
	if err := os.Chmod(filepath.Join(root, "bin/python3"), 0o755); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + filepath.Join(root, "bin")}
	if got, err := interpreter(filepath.Join(root, "a"), env, "python3", ".venv/bin/python3"); err != nil || got != filepath.Join(root, "a/.venv/bin/python3") {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := interpreter(root, env, "python3", ".venv/bin/python3"); err != nil || got != filepath.Join(root, "bin/python3") {
		t.Errorf("%s, %v", got, err)
	}
}

func FuzzParseEnv(f *testing.F) {
	f.Add("A=1\nexport B='x y' # c\n\"=\n")
	f.Fuzz(func(t *testing.T, text string) {
		vars := map[string]string{}
		if parseEnv(text, vars) != nil {
			return
		}
		for k, v := range vars {
			if k == "" || strings.ContainsAny(k, "=\x00\n") || strings.ContainsAny(v, "\x00\n") {
				t.Errorf("%q=%q", k, v)
			}
		}
	})
}

package adapter_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/stdio/adapter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// language is an adapter that runs here.
type language struct {
	name    string
	command func(dir, module, function string) *exec.Cmd
}

// languages are the adapters whose interpreters are installed.
func languages(t *testing.T) []language {
	t.Helper()
	files, err := adapter.Install(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var out []language
	if _, err := exec.LookPath("python3"); err == nil {
		out = append(out, language{"python", func(dir, module, function string) *exec.Cmd {
			return exec.Command("python3", files.PythonArgs(dir, module, function, 4)...)
		}})
	}
	if _, err := exec.LookPath("node"); err == nil {
		out = append(out, language{"node", func(dir, module, function string) *exec.Cmd {
			// As the supervisor lays out its descriptors.
			args := append([]string{"-c", `exec node "$@" 3<&0 4>&1 0</dev/null 1>&2`, "node"}, files.NodeArgs(dir, module, function)...)
			return exec.Command("sh", args...)
		}})
	}
	if len(out) == 0 {
		t.Skip("neither Python nor Node is installed")
	}
	return out
}

// talk sends lines and gives the answers, by id ("null" for none), when the adapter has ended.
func talk(t *testing.T, cmd *exec.Cmd, lines ...string) (answers map[string]map[string]any, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(strings.Join(lines, "\n")+"\n"), &out, &errs
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, &errs)
	}
	answers = map[string]map[string]any{}
	for s := bufio.NewScanner(&out); s.Scan(); {
		var a map[string]any
		if err := json.Unmarshal(s.Bytes(), &a); err != nil {
			t.Fatalf("%q is no answer: %v", s.Text(), err)
		}
		id := "null"
		if a["id"] != nil {
			id = a["id"].(string)
		}
		answers[id] = a
	}
	return answers, errs.String(), cmd.ProcessState.ExitCode()
}

func do(what string) string {
	return fmt.Sprintf(`{"id":%q,"type":"task","payload":{"do":%q}}`, what, what)
}

func TestAnAdapterAnswers(t *testing.T) {
	for _, l := range languages(t) {
		t.Run(l.name, func(t *testing.T) {
			got, stderr, code := talk(t, l.command("testdata", "agent", "handle"),
				do("object"), do("value"), do("nothing"), do("timeout"), do("network"), do("other"), do("class"), do("exit"), do("unwritable"),
				`{"id":"ping","type":"ping","payload":{}}`, `{"id":"odd","type":"nonsense"}`)
			if code != 0 || !strings.Contains(stderr, "the agent's own output") {
				t.Errorf("exit code %d, stderr %s", code, stderr)
			}
			for id, want := range map[string]string{"object": `{"a":1}`, "value": `{"data":[1,2],"status":"completed"}`, "nothing": `{"status":"completed"}`} {
				if b, _ := json.Marshal(got[id]["result"]); string(b) != want || got[id]["status"] != "ok" {
					t.Errorf("%s: %v", id, got[id])
				}
			}
			for id, want := range map[string]any{"timeout": "timeout", "network": "network", "other": nil, "class": "rate_limited", "exit": nil, "unwritable": "permanent", "odd": nil} {
				if got[id]["status"] != "error" || got[id]["error_class"] != want || got[id]["error"] == "" {
					t.Errorf("%s: %v", id, got[id])
				}
			}
			if got["class"]["retry_after"] != 2.5 || got["other"]["traceback"] == nil || got["other"]["error_type"] == nil {
				t.Errorf("an error lacks something: %v %v", got["class"], got["other"])
			}
			pong := got["ping"]["result"].(map[string]any)
			if pong["protocol"] != 1.0 || len(pong["capabilities"].([]any)) != 3 || pong["health"].(map[string]any)["memory_mb"].(float64) <= 0 {
				t.Errorf("the pong is %v", pong)
			}
		})
	}
}

func TestAnAdapterSurvivesOddInput(t *testing.T) {
	for _, l := range languages(t) {
		t.Run(l.name, func(t *testing.T) {
			long := fmt.Sprintf(`{"id":"long","type":"task","payload":{"do":"object","x":%q}}`, strings.Repeat("x", 3<<20))
			got, _, code := talk(t, l.command("testdata", "agent", "blocking"), `not json`, `[1]`, ``, `   `, long)
			if code != 0 || got["null"]["status"] == nil {
				t.Errorf("exit code %d, %v", code, got)
			}
			if l.name == "node" && got["long"]["status"] != "ok" { // in Python it runs in a thread, and the end may come first
				t.Errorf("the long line: %v", got["long"])
			}
		})
	}
}

// A task that can't be read is answered, or its attempt would wait for its timeout; what stands behind it is read.
func TestATaskThatTheLanguageCantReadIsAnswered(t *testing.T) {
	for _, l := range languages(t) {
		t.Run(l.name, func(t *testing.T) {
			content := func(id, json string) string {
				return fmt.Sprintf(`{"id":%q,"type":"task","payload":{"do":"object","x":%s}}`, id, json)
			}
			got, _, code := talk(t, l.command("testdata", "agent", "handle"), content("deep", strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)),
				content("digits", strings.Repeat("1", 5000)), content("broken", `{`), do("object"))
			if code != 0 || got["deep"] == nil || got["digits"] == nil || got["object"]["status"] != "ok" {
				t.Errorf("exit code %d, %v", code, got)
			}
			if got["broken"]["error_class"] != "invalid_input" {
				t.Errorf("the broken line: %v", got["broken"])
			}
		})
	}
}

func TestAnswersComeInTheOrderOfTheirCompletion(t *testing.T) {
	for _, l := range languages(t) {
		t.Run(l.name, func(t *testing.T) {
			cmd := l.command("testdata", "agent", "handle")
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintf(in, "%s\n%s\n", do("wait"), do("object"))
			r := bufio.NewReader(out)
			first, _ := r.ReadString('\n')
			second, _ := r.ReadString('\n')
			_, _ = fmt.Fprintln(in, `{"type":"shutdown"}`)
			third, _ := r.ReadString('\n')
			if !strings.Contains(first, "object") || !strings.Contains(second, "waited") || !strings.Contains(third, "shutdown acknowledged") {
				t.Errorf("%s%s%s", first, second, third)
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWhereACallbackMayBe(t *testing.T) {
	for _, l := range languages(t) {
		for _, module := range []string{"nested.process_file", "nested/process_file"} {
			t.Run(l.name+" "+module, func(t *testing.T) {
				got, stderr, _ := talk(t, l.command("testdata", module, "handle"), do("x"), `{"id":"p","type":"ping"}`)
				if l.name == "node" && got["x"]["status"] != "ok" || got["p"]["status"] != "ok" {
					t.Errorf("%v: %s", got, stderr)
				}
			})
		}
		if l.name == "node" {
			t.Run("CommonJS", func(t *testing.T) {
				if got, stderr, _ := talk(t, l.command("testdata", "common", "blocking"), do("x")); got["x"]["status"] != "ok" {
					t.Errorf("%v: %s", got, stderr)
				}
			})
		}
	}
}

func TestAnAgentThatCantStartIsTold(t *testing.T) {
	for _, l := range languages(t) {
		for name, tt := range map[string]struct{ module, function, typ, says string }{
			"no function": {"agent", "nope", "AgentCallbackNotFoundError", "blocking"},
			"no module":   {"nope", "handle", "AgentCallbackNotFoundError", "agent."},
			"no library":  {"needy", "handle", "AgentDependencyError", "not"},
			"broken":      {"broken", "handle", "AgentStartupError", "at import"},
		} {
			t.Run(l.name+" "+name, func(t *testing.T) {
				got, _, code := talk(t, l.command("testdata", tt.module, tt.function))
				a := got["null"]
				if code != 1 || a["type"] != "startup_error" || a["error_type"] != tt.typ || !strings.Contains(fmt.Sprint(a["error"]), tt.says) {
					t.Errorf("exit code %d, %v", code, a)
				}
			})
		}
	}
}

func TestAPythonCallbackTakesTheMessageAndTheContext(t *testing.T) {
	for _, l := range languages(t) {
		if l.name != "python" {
			continue
		}
		got, _, _ := talk(t, l.command("testdata", "agent", "three"))
		if !strings.Contains(fmt.Sprint(got["null"]["error"]), "one argument, the message, or two") {
			t.Errorf("got %v", got)
		}
	}
}

func TestInstallIsRepeatable(t *testing.T) {
	dir := t.TempDir()
	first, err := adapter.Install(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first.Python, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := adapter.Install(dir)
	if err != nil || second != first {
		t.Fatalf("%+v, %v", second, err)
	}
	if b, _ := os.ReadFile(first.Python); string(b) == "changed" {
		t.Error("a changed file was kept")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}

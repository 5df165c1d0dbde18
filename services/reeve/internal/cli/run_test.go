package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/internal/proc"
)

const testHandler = `
import os, subprocess, sys, time
class Poison(Exception):
    error_class = "invalid_input"
def handle(message):
    print("working on", message["content"])
    match message["content"]:
        case "poison": raise Poison("it is poison")
        case "network": raise ConnectionError("no route")
        case "crash": os._exit(3)
        case "hang":
            subprocess.Popen(["sleep", "1000"])
            time.sleep(1000)
        case "chatter":
            for n in range(2000): print("line", n)
    return {"got": message["content"], "attempt": message["delivery_attempts"], "env": os.environ.get("GREETING"), "secret": os.environ.get("SECRET")}
def other(message):
    return "other"
`

// agentDir is the directory of a Python agent.
func agentDir(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"callback.py": testHandler, "module.py": testHandler, "broken.py": "import no_such_library\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// plainEnviron is the process's environment without Reeve's variables; the tests' own would be warned of.
func plainEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "REEVE_") })
}

// byHand runs a command line that needs no registry, with an environment that holds a secret.
func byHand(ctx context.Context, in string, args ...string) result {
	var out, errs bytes.Buffer
	code := Run(ctx, System{In: strings.NewReader(in), Out: &out, Err: &errs, Environ: append(plainEnviron(), "SECRET=s")}, args)
	return result{code, out.String(), errs.String()}
}

func TestRunPrintsTheResultOfOneEvent(t *testing.T) {
	dir := agentDir(t)
	if err := os.WriteFile(filepath.Join(dir, "event.json"), []byte(`{"n": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		`--content {"topic":"alone","payload":{"content":1}}`: `{"got": {"topic": "alone", "payload": {"content": 1}}, "attempt": 1, "env": null, "secret": null}`, // content is never taken for an envelope
		"--content @" + dir + "/event.json":                   `{"got": {"n": 1}, "attempt": 1, "env": null, "secret": null}`,
		"--content @-":                                        `{"got": [2], "attempt": 1, "env": null, "secret": null}`,
		"--content 1 --env GREETING=a=b":                      `{"got": 1, "attempt": 1, "env": "a=b", "secret": null}`,
		"--content 1 --callback other":                        `{"status": "completed", "data": "other"}`,
		"--content 1 --callback module:other":                 `{"status": "completed", "data": "other"}`,
		"--content 1 --callback module":                       `{"got": 1, "attempt": 1, "env": null, "secret": null}`,
	} {
		t.Run(line, func(t *testing.T) {
			got := byHand(t.Context(), "[2]", append([]string{"run", "--dir", dir}, strings.Fields(line)...)...)
			if got.code != 0 || got.out != want+"\n" {
				t.Errorf("got %+v, want %s", got, want)
			}
		})
	}
}

func TestRunTellsHowAnAttemptFails(t *testing.T) {
	dir := agentDir(t)
	for content, want := range map[string]struct {
		outcome, class, settled string
		says                    []string
	}{
		"poison":  {"failed", "invalid_input", "dlq", []string{"error: the attempt failed: Poison: it is poison", "in handle", "Reeve would dead-letter the event at once"}},
		"network": {"failed", "network", "retry", []string{"error: the attempt failed: ConnectionError: no route", "Reeve would try it again after 1s"}},
		"crash":   {"crashed", "crash", "retry", []string{"error: the attempt crashed: AgentCrashError: the agent's process exited with code 3"}},
		"hang":    {"timed_out", "timeout", "retry", []string{"error: the attempt timed out: the attempt took longer than its timeout of 500ms"}},
	} {
		t.Run(content, func(t *testing.T) {
			args := []string{"run", "--dir", dir, "--content", `"` + content + `"`, "--timeout", "500ms"}
			got := byHand(t.Context(), "", args...)
			for _, part := range append(want.says, "working on "+content) {
				if got.code != 1 || got.out != "" || !strings.Contains(got.err, part) {
					t.Errorf("got %+v, want %q in it", got, part)
				}
			}
			var a attempt
			got = byHand(t.Context(), "", append(args, "-o", "json")...)
			if err := json.Unmarshal([]byte(got.out), &a); err != nil || got.code != 1 {
				t.Fatalf("%+v: %v", got, err)
			}
			if string(a.Outcome) != want.outcome || string(a.ErrorClass) != want.class || string(a.Settled) != want.settled || a.ErrorMessage == "" {
				t.Errorf("got %+v", a)
			}
			children, err := proc.Children(os.Getpid())
			if err != nil || len(children) != 0 {
				t.Errorf("processes are left: %v, %v", children, err)
			}
		})
	}
}

// A supervisor publishes so many lines a second; by hand one sees them all.
func TestRunShowsTheWholeLog(t *testing.T) {
	got := byHand(t.Context(), "", "run", "--dir", agentDir(t), "--content", `"chatter"`)
	if n := strings.Count(got.err, "\nline "); got.code != 0 || n != 2000 {
		t.Errorf("%d lines of 2000, exit code %d", n, got.code)
	}
}

func TestRunIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := agentDir(t)
	began := time.Now()
	time.AfterFunc(time.Second, cancel)
	got := byHand(ctx, "", "run", "--dir", dir, "--content", `"hang"`)
	if got.code != 1 || !strings.Contains(got.err, "error: interrupted") || time.Since(began) > 50*time.Second {
		t.Errorf("after %s: %+v", time.Since(began), got)
	}
}

func TestWhatCannotRunIsATypedErrorWithItsRemedy(t *testing.T) {
	dir := agentDir(t)
	if err := os.WriteFile(filepath.Join(dir, "plain"), []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"run --content 1 --dir", "agent check"} {
		for line, want := range map[string]struct {
			code int
			says string
		}{
			"--callback missing:handle":       {1, "error: AgentCallbackNotFoundError: the module missing isn't in "},
			"--callback callback:nope":        {1, "error: AgentCallbackNotFoundError: the callback nope isn't in the module callback; callables there: Poison, handle, other\n  check the spelling"},
			"--callback broken:handle":        {1, "error: AgentDependencyError: importing broken: No module named 'no_such_library'\n  install what the agent needs"},
			"--command ./plain":               {1, "make it an executable file (chmod +x)\n  check that"},
			"--command false":                 {1, "error: AgentStartupError: the process exited with code 1 before it answered a ping"},
			"--command [true":                 {2, `"[true" is no list`},
			"--command x --callback a:b":      {2, "an agent has a callback or a command, here are both"},
			"--callback ../x:y":               {2, "leads out of the agent's directory"},
			"--env X":                         {2, "write NAME=VALUE"},
			"--callback callback:":            {2, "is no callback: write module:function"},
			"--colour":                        {2, "unknown flag"},
			"--callback callback:handle more": {2, "takes"},
		} {
			t.Run(command+" "+line, func(t *testing.T) {
				got := byHand(t.Context(), "", strings.Fields(command+" "+dir+" "+line)...)
				if got.code != want.code || got.out != "" || !strings.Contains(got.err, want.says) {
					t.Errorf("got %+v, want %d and %q", got, want.code, want.says)
				}
			})
		}
	}
	for line, says := range map[string]string{
		"run":                         "say what the event holds",
		"run --content {":             "--content is no JSON",
		"run --content 1 --timeout 0": "--timeout 0s: give more than 0",
		"run --content 1 --dir /none": "/none is no directory",
		"agent check":                 "takes the agent's directory",
		"agent check /none":           "/none is no directory",
	} {
		if got := byHand(t.Context(), "", strings.Fields(line)...); got.code != 2 || !strings.Contains(got.err, says) {
			t.Errorf("%s: got %+v, want %q", line, got, says)
		}
	}
}

func TestCheckSaysThatAnAgentIsUp(t *testing.T) {
	dir := agentDir(t)
	if got := byHand(t.Context(), "", "agent", "check", dir); got.code != 0 || !strings.HasPrefix(got.out, "ok: python callback:handle was up after ") {
		t.Errorf("%+v", got)
	}
	var c checked
	got := byHand(t.Context(), "", "agent", "check", dir, "--callback", "other", "-o", "json")
	if err := json.Unmarshal([]byte(got.out), &c); err != nil || got.code != 0 || c.Runtime != "python" || c.Callback != "callback:other" || c.MemoryMB <= 0 || c.PingMS <= 0 || c.StartSeconds <= 0 {
		t.Errorf("%+v: %+v, %v", got, c, err)
	}
}

// What a template makes runs as its README and init say, by its own agents.yaml.
func TestTheAgentOfAFileRunsByHand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "greeter")
	if got := byHand(t.Context(), "", "init", dir, "--lang", "command"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	if got := byHand(t.Context(), "", "run", "--dir", dir, "--content", "@"+filepath.Join(dir, "event.json")); got.code != 0 || got.out == "" {
		t.Errorf("run: %+v", got)
	}
	if got := byHand(t.Context(), "", "agent", "check", dir); got.code != 0 || !strings.HasPrefix(got.out, "ok: command ./agent.sh was up") {
		t.Errorf("check: %+v", got)
	}
	file := filepath.Join(dir, "agents.yaml")
	for content, says := range map[string]string{
		"agents:\n  - {topic: t, name: a, command: ./x}\n  - {topic: t, name: b, command: ./y}\n": "more than one agent of this directory (t/a, t/b)",
		"agents:\n  - {topic: t, name: a, comand: ./x}\n":                                         "agents.yaml:2",
		"agents:\n  - {topic: t, name: a, dir: other, command: ./x}\n":                            "the module callback isn't in",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := byHand(t.Context(), "", "agent", "check", dir); got.code == 0 || !strings.Contains(got.err, says) {
			t.Errorf("%s: %+v", content, got)
		}
	}
}

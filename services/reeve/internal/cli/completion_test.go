package cli

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/services/reeve/internal/profile"
	"github.com/reeve-run/reeve/services/registry/api"
)

// asReeve makes this test's binary the command itself, for what needs a program.
const asReeve = "RUN_AS_REEVE"

func TestMain(m *testing.M) {
	if os.Getenv(asReeve) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) // as the program itself
		code := Run(ctx, OwnSystem(), os.Args[1:])
		stop()
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

func (f *fake) ListTasks(context.Context, api.ListTasksRequestObject) (api.ListTasksResponseObject, error) {
	return api.ListTasks200JSONResponse{Items: f.tasks}, nil
}

// several is a fake with agents on two topics and a task.
func several() *fake {
	f := newFake()
	f.agents = map[string]api.Agent{}
	for _, ref := range []string{"orders/audit", "orders/triage", "payments/check"} {
		a := running()
		a.Topic, a.Name, _ = strings.Cut(ref, "/")
		f.agents[ref] = a
	}
	f.tasks = []api.Task{{Id: "orders/0/17", Agent: "orders/audit", Topic: "orders", Name: "audit", Offset: 17, Status: "completed"}}
	return f
}

func TestNamesAreCompletedAsTheyAreNow(t *testing.T) {
	f := several()
	_, environ := home(t, profile.File{Profiles: map[string]profile.Profile{"prod": {URL: "http://x"}, "stage": {URL: "http://y"}}})
	for _, tt := range []struct {
		typed []string
		want  string
	}{
		{[]string{"agent", "get", ""}, "orders/audit\tactive orders/triage\tactive payments/check\tactive"},
		{[]string{"agent", "get", "orders/audit", ""}, ""},
		{[]string{"agent", "delete", "--topic", ""}, "orders payments"},
		{[]string{"agent", "resume", "--topic", "orders", "--name", ""}, "audit\torders triage\torders"},
		{[]string{"agent", "delete-topic", "--topic", ""}, "orders payments"},
		{[]string{"publish", ""}, "orders payments"},
		{[]string{"metrics", "--topic", ""}, "orders payments"},
		{[]string{"bus", "groups", "--stream", ""}, "orders payments"},
		{[]string{"dlq", "list", ""}, "orders/audit\tactive orders/triage\tactive payments/check\tactive"},
		{[]string{"webhook", "get", ""}, "msg_6d1f0c7b2a9e4f35\thttps://hooks.example.com:443 of orders/0/17"},
		{[]string{"webhook", "redrive", "--endpoint", ""}, "https://hooks.example.com:443\t3"},
		{[]string{"task", "get", ""}, "orders/0/17\tcompleted by audit"},
		{[]string{"task", "list", "--status", ""}, strings.Join(statuses(), " ")},
		{[]string{"task", "list", "--agent", ""}, "orders/audit\tactive orders/triage\tactive payments/check\tactive"},
		{[]string{"agent", "list", "-o", ""}, "table wide json jsonl yaml"},
		{[]string{"--profile", ""}, "prod\thttp://x stage\thttp://y"},
		{[]string{"config", "use", ""}, "prod\thttp://x stage\thttp://y"},
		{[]string{"config", "set", "prod", ""}, ""},
		{[]string{"completion", ""}, "bash fish zsh"},
		{[]string{"help", "task", ""}, "cancel\tEnd a task wherever it is: waiting, running or between attempts get\tShow what became of an event: its task for each agent, with every attempt list\tList tasks by their latest attempt, newest first retry\tRun a task at once that waits for its next attempt, or a finished one once more watch\tFollow a task to its end: a line for each change, its progress among them"},
	} {
		got := f.on(t, System{Environ: slices.Clone(environ)}, append([]string{"__complete"}, tt.typed...)...)
		offered, ended := strings.CutSuffix(got.out, ":4\n") // the directive: no files
		if words := strings.Join(strings.Split(strings.TrimSpace(offered), "\n"), " "); got.code != Done || words != tt.want || !ended {
			t.Errorf("%q: got %q, want %q: %+v", tt.typed, words, tt.want, got)
		}
	}
}

func TestWithoutARegistryNothingIsCompletedAndNothingSaid(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	for _, environ := range [][]string{{"REEVE_URL=" + closed.URL}, {"REEVE_URL=nonsense"}, {"REEVE_PROFILE=nowhere", "XDG_CONFIG_HOME=" + t.TempDir()}} {
		got := execute(context.Background(), System{Environ: environ}, "__complete", "agent", "get", "")
		if got.code != Done || got.out != ":4\n" || got.err != "Completion ended with directive: ShellCompDirectiveNoFileComp\n" {
			t.Errorf("%q: %+v", environ, got)
		}
	}
}

// TestBashCompletes drives the script in a bash without the bash-completion package, as the shell itself would.
func TestBashCompletes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	server := httptest.NewServer(several().handler())
	defer server.Close()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "reeve"), []byte("#!/bin/sh\nexec "+self+" \"$@\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for typed, want := range map[string]string{
		"reeve agent get ord":                        "orders/audit orders/triage",
		"reeve agent get --topic=pay":                "payments",
		"reeve --url http://x:1 metr":                "metrics",
		"reeve agent resume --topic orders --name t": "triage",
		"reeve task list --status ret":               "retrying",
	} {
		// COMP_WORDS is what readline makes of the line, which parts it at COMP_WORDBREAKS.
		script := `source <(reeve completion bash)
COMP_WORDS=(` + readlineWords(typed) + `)
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
COMP_LINE=$1 COMP_POINT=${#COMP_LINE} COMP_TYPE=9
__start_reeve 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}" | sed 's/ *(.*//; s/ *$//' | sort | paste -sd ' ' -`
		cmd := exec.CommandContext(t.Context(), bash, "--norc", "--noprofile", "-c", script, "bash", typed)
		cmd.Env = append(plainEnviron(), "PATH="+dir+":"+os.Getenv("PATH"), asReeve+"=1", "REEVE_URL="+server.URL)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s: got %q, want %q: %v", typed, got, want, err)
		}
	}
}

// readlineWords parts a line as readline does: at spaces, and at = and :, which are words themselves.
func readlineWords(line string) string {
	line = strings.NewReplacer("=", " = ", ":", " : ").Replace(line)
	var quoted []string
	for _, w := range strings.Fields(line) {
		quoted = append(quoted, fmt.Sprintf("%q", w))
	}
	return strings.Join(quoted, " ")
}

func TestEveryShellGetsAScript(t *testing.T) {
	for shell, has := range map[string]string{"bash": "complete -o default", "zsh": "#compdef reeve", "fish": "complete -c reeve"} {
		if got := execute(context.Background(), System{}, "completion", shell); got.code != Done || !strings.Contains(got.out, has) {
			t.Errorf("%s: %+v", shell, got.err)
		}
	}
}

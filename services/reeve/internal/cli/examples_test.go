package cli

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/services/reeve/internal/profile"
	"github.com/reeve-run/reeve/services/registry/api"
)

func (f *fake) DeleteTopicAgents(_ context.Context, r api.DeleteTopicAgentsRequestObject) (api.DeleteTopicAgentsResponseObject, error) {
	out := api.DeleteTopicAgents200JSONResponse{Topic: r.Topic, Items: []api.Deletion{}}
	for _, a := range f.agents {
		if a.Topic == r.Topic {
			out.Items = append(out.Items, deletion(a, !r.Params.DryRun))
		}
	}
	out.AgentsDeleted = len(out.Items)
	return out, nil
}

func (f *fake) ResetAgent(context.Context, api.ResetAgentRequestObject) (api.ResetAgentResponseObject, error) {
	return api.ResetAgent200JSONResponse{PhaseChangeJSONResponse: api.PhaseChangeJSONResponse{Body: api.PhaseChange{Changed: true, Phase: "active"}}}, nil
}

func (f *fake) RestartAgent(context.Context, api.RestartAgentRequestObject) (api.RestartAgentResponseObject, error) {
	return api.RestartAgent200JSONResponse{PhaseChangeJSONResponse: api.PhaseChangeJSONResponse{Body: api.PhaseChange{Changed: true, Phase: "active"}}}, nil
}

func (f *fake) ListMetrics(context.Context, api.ListMetricsRequestObject) (api.ListMetricsResponseObject, error) {
	return api.ListMetrics200JSONResponse{Items: []api.AgentMetrics{{Topic: "orders", Name: "hello", Received: 3,
		ByVersion: map[string]api.Counters{"1.0.0": {Completed: 2}, "2.0.0": {Completed: 5}}}}}, nil
}

// runElsewhere are commands whose examples need agents, programs or a Kafka; their own tests run them.
var runElsewhere = []string{"reeve init", "reeve run", "reeve agent check", "reeve import", "reeve doctor"}

// TestEveryExampleRuns runs what the help shows, each by itself, in a directory that has what it names.
func TestEveryExampleRuns(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"agents.yaml": "agents:\n- {topic: orders, name: hello, callback: 'hello:handle'}\n", "hello.py": "", "order.json": `{"id":17}`,
		"orders.ndjson": "{\"id\":1}\n{\"id\":2}\n", "ca.pem": caPEM(t), "key.txt": "k\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	examples := 0
	for _, cmd := range commands((&command{}).root()) {
		if cmd.Runnable() && !cmd.HasSubCommands() && cmd.Example == "" && !elsewhere(cmd) {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Example) {
			if elsewhere(cmd) {
				continue
			}
			examples++
			args, input := shellWords(t, line)
			if args[0] != "reeve" || !strings.HasPrefix(line, "  ") {
				t.Errorf("%q is no example", line)
				continue
			}
			_, environ := home(t, profile.File{Profiles: map[string]profile.Profile{"prod": {URL: "https://reeve.example.org"}}})
			f := newFake()
			a := running()
			a.Topic, a.Name = "orders", "hello"
			f.agents = map[string]api.Agent{"orders/hello": a}
			f.asked, f.ends = 2, "done"
			f.resumes = true
			f.tasks = []api.Task{{Id: "orders/0/17", Topic: "orders", Name: "hello", Offset: 17, Status: "completed"}}
			s := System{In: strings.NewReader(input), Environ: environ, Dev: func(context.Context, DevOptions) error { return nil }}
			if got := f.on(t, s, args[1:]...); got.code != Done {
				t.Errorf("%s: %+v", strings.TrimSpace(line), got)
			}
		}
	}
	if examples < 30 {
		t.Errorf("only %d examples were found", examples)
	}
}

func elsewhere(cmd *cobra.Command) bool {
	for _, path := range runElsewhere {
		if cmd.CommandPath() == path {
			return true
		}
	}
	return false
}

// commands are all of a command and those below it.
func commands(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, child := range cmd.Commands() {
		all = append(all, commands(child)...)
	}
	return all
}

// shellWords parts a command line as a shell does; < gives the input. Words are quoted by ' alone.
func shellWords(t *testing.T, line string) (words []string, input string) {
	t.Helper()
	for i, part := range strings.Split(strings.TrimSpace(line), "'") {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	for i, w := range words {
		if w == "<" {
			b, err := os.ReadFile(words[i+1])
			if err != nil {
				t.Fatal(err)
			}
			return words[:i], string(b)
		}
	}
	return words, ""
}

package agentsfile

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/reeve/internal/admission"
)

var update = flag.Bool("update", false, "write the golden files anew")

var tiers = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 5 * time.Minute, time.Hour}

// Each file below testdata/faults has a golden file with everything that is wrong in it.
func TestEveryFaultIsToldWithItsPlaceAndRemedy(t *testing.T) {
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			agents, err := Parse("agents.yaml", data, Options{AgentsDir: "testdata/agents", Tiers: tiers})
			if err == nil || agents != nil {
				t.Fatalf("accepted as %v", agents)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatTheFileLeavesOutIsInferred(t *testing.T) {
	for name, c := range map[string]struct {
		yaml string
		want func(*spec.Agent)
	}{
		"python by the file that is there":    {"callback: callback:handle\n  dir: py", func(a *spec.Agent) { a.Dir, a.Runtime, a.Callback = "py", "python", "callback:handle" }},
		"node by the file that is there":      {"callback: callback:handle\n  dir: js", func(a *spec.Agent) { a.Dir, a.Runtime, a.Callback = "js", "node", "callback:handle" }},
		"node by the extension":               {"callback: index.mjs:run", func(a *spec.Agent) { a.Runtime, a.Callback = "node", "index.mjs:run" }},
		"python by the extension":             {"callback: work.py:run", func(a *spec.Agent) { a.Runtime, a.Callback = "python", "work:run" }},
		"python where nothing is there":       {"callback: nothing:run", func(a *spec.Agent) { a.Runtime, a.Callback = "python", "nothing:run" }},
		"callback_module with a dot":          {"callback_module: callbacks.process_file", func(a *spec.Agent) { a.Runtime, a.Callback = "python", "callbacks:process_file" }},
		"callback_module with a colon":        {"callback_module: callbacks:process_file", func(a *spec.Agent) { a.Runtime, a.Callback = "python", "callbacks:process_file" }},
		"callback_module beside its function": {"callback_module: a.b\n  callback_function: f", func(a *spec.Agent) { a.Runtime, a.Callback = "python", "a.b:f" }},
		"agent_dir and callback_function":     {"agent_dir: py\n  callback_function: handle_request", func(a *spec.Agent) { a.Dir, a.Runtime, a.Callback = "py", "python", "callback:handle_request" }},
		"agent_dir and the function it has":   {"agent_dir: js\n  callback: callback", func(a *spec.Agent) { a.Dir, a.Runtime, a.Callback = "js", "node", "callback:handle" }},
		"command as a list": {"command: [./agent, --flag]", func(a *spec.Agent) {
			a.Runtime, a.Command, a.Config.Concurrency = "command", []string{"./agent", "--flag"}, 1
		}},
		"command as a text with args beside": {"command: python\n  args: [-m, agent]", func(a *spec.Agent) {
			a.Runtime, a.Command, a.Config.Concurrency = "command", []string{"python", "-m", "agent"}, 1
		}},
		"concurrency wins over the runtime's": {"command: a\n  config: {concurrency: 3}", func(a *spec.Agent) { a.Runtime, a.Command, a.Config.Concurrency = "command", []string{"a"}, 3 }},
		"activate: false moves no phase":      {"callback: c:f\n  activate: false", func(a *spec.Agent) { a.Inactive = true }},
		"restart_on_exit: false is never":     {"callback: c:f\n  process: {restart_on_exit: false}", func(a *spec.Agent) { a.Process.RestartPolicy = "never" }},
		"restart_on_exit: true is delayed":    {"callback: c:f\n  process: {restart_on_exit: true}", func(a *spec.Agent) { a.Process.RestartPolicy = "delayed" }},
		"a policy says more than on_exit":     {"callback: c:f\n  process: {restart_on_exit: true, restart_policy: manual}", func(a *spec.Agent) { a.Process.RestartPolicy = "manual" }},
		"infinity, as a word":                 {"callback: c:f\n  process: {request_timeout: infinity}", func(a *spec.Agent) { a.Process.RequestTimeout = spec.Seconds(math.Inf(1)) }},
		"infinity, in YAML":                   {"callback: c:f\n  process: {request_timeout: .inf}", func(a *spec.Agent) { a.Process.RequestTimeout = spec.Seconds(math.Inf(1)) }},
		"a version stays as it is written":    {"callback: c:f\n  version: 1.10", func(a *spec.Agent) { a.Version = "1.10" }},
		"environment values stay as they are": {"callback: c:f\n  env: {PORT: 0080, ON: yes, RATE: 1.50}", func(a *spec.Agent) { a.Env = map[string]string{"PORT": "0080", "ON": "yes", "RATE": "1.50"} }},
		"a pool by its size":                  {"callback: c:f\n  pool: {min: 2}", func(a *spec.Agent) { a.Pool = spec.Pool{Min: 2, Max: 2} }},
		"warm: 0 is what there is":            {"callback: c:f\n  pool: {min: 1, max: 1, warm: 0}", func(*spec.Agent) {}},
	} {
		t.Run(name, func(t *testing.T) {
			agents, err := Parse("agents.yaml", []byte("agents:\n- topic: file.uploaded\n  "+c.yaml+"\n"), Options{AgentsDir: "testdata/agents", Tiers: tiers})
			if err != nil {
				t.Fatal(err)
			}
			want := &spec.Agent{Topic: "file.uploaded", Name: "file_uploaded_agent", Version: "1.0.0", Tags: []string{}, Runtime: "python", Callback: "c:f",
				Config: spec.NewConfig("python"), Process: spec.NewProcess(), Pool: spec.Pool{Min: 1, Max: 1}, Partitions: spec.DefaultPartitions}
			c.want(want)
			if want.Runtime == "command" {
				want.Callback = ""
			}
			if diff := cmp.Diff([]Listed{{Agent: want, Place: "agents.yaml:2"}}, agents); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAFullEntryIsReadKeyByKey(t *testing.T) {
	agents, err := Read("testdata/full.yaml", Options{Tiers: tiers})
	if err != nil {
		t.Fatal(err)
	}
	description := "Labels new issues"
	want := &spec.Agent{Topic: "github.issues", Name: "issue-triage", Description: &description, Version: "1.0.0", Tags: []string{"github", "triage"},
		Runtime: "python", Dir: "issue_triage", Callback: "callback:handle", Env: map[string]string{"GREETING": "hello"},
		Config: spec.Config{MaxRetries: 2, ReclaimIdleMS: 200_000, DLQEnabled: false, Ordering: "none", Concurrency: 4, RetryDelays: []string{"1s", "30s"}},
		Process: spec.Process{RequestTimeout: 60, DrainTimeout: 20, GracefulTimeoutSec: 4, SigtermTimeoutSec: 3, RestartPolicy: "immediate", MaxRestartAttempts: 7,
			RestartBackoffSeconds: 1.5, RestartBackoffMaxSeconds: 9, HeartbeatIntervalSeconds: 15, Cwd: "work"},
		Pool: spec.Pool{Min: 3, Max: 3}, Partitions: 12,
		Routing: spec.Routing{Filter: `data.action == "opened"`, Rate: 0.5, Accepts: []string{"issue.*", "triage"}, Capabilities: []string{"triage"},
			OnIncompatible: "skip", Start: "2026-01-31T08:00:00Z"}}
	if diff := cmp.Diff([]Listed{{Agent: want, Place: "testdata/full.yaml:2"}}, agents); diff != "" {
		t.Error(diff)
	}
}

func TestABackoffIsReadForTheRegistryToMakeDelaysOf(t *testing.T) {
	const file = `
agents:
  - topic: a
    command: x
    config: {ordering: strict, backoff: {base: 1, factor: 5, max: 5s}}
`
	for _, known := range [][]time.Duration{nil, tiers} {
		agents, err := Parse("agents.yaml", []byte(file), Options{Tiers: known})
		if err != nil {
			t.Fatal(err)
		}
		c := agents[0].Agent.Config
		if want := (spec.Backoff{Base: "1", Factor: 5, Max: "5s"}); c.Ordering != spec.OrderingStrict || c.Backoff == nil || *c.Backoff != want || len(c.RetryDelays) != 0 != (known != nil) {
			t.Errorf("with the tiers %v: %+v, back-off %+v", known, c, c.Backoff)
		}
		entry, err := Entry(agents[0].Agent)
		if err != nil {
			t.Fatal(err)
		}
		a, faults := spec.ParseEntry(entry)
		if faults = append(faults, a.Check(tiers)...); len(faults) > 0 || !slices.Equal(a.Config.RetryDelays, []string{"1s", "5s"}) {
			t.Errorf("the registry makes of it %v, %v", a.Config.RetryDelays, faults)
		}
	}
	for config, want := range map[string]string{
		"{backoff: {base: 2s}}":            "agents.yaml:5:24: config.backoff.base: 2s is no retry tier of this installation, the nearest are 1s and 5s",
		"{backoff: {base: 1s, fctor: 3}}":  "agents.yaml:5:34: config.backoff.fctor is no key, did you mean factor?",
		"{backoff: {base: 1s, factor: x}}": `agents.yaml:5:42: config.backoff.factor must be a number, it is the text "x"`,
	} {
		text := strings.Replace(file, "{ordering: strict, backoff: {base: 1, factor: 5, max: 5s}}", config, 1)
		if _, err := Parse("agents.yaml", []byte(text), Options{Tiers: tiers}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
}

func TestTermsAreReadBesideTheAgent(t *testing.T) {
	const file = `
agents:
- topic: a
  command: ./x
  when: {env: {ENV: production, REGION: [eu, us], PORT: 0080}}
  requires: [{tcp: "127.0.0.1:5432"}, {http: "https://a.example/ready", timeout: 0.5}, {env: TOKEN}]
- {topic: b, command: ./x}
`
	agents, err := Parse("agents.yaml", []byte(file), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := admission.Terms{
		When: []admission.Variable{{Name: "ENV", Values: []string{"production"}}, {Name: "REGION", Values: []string{"eu", "us"}}, {Name: "PORT", Values: []string{"0080"}}},
		Requires: []admission.Requirement{{Kind: admission.TCP, Target: "127.0.0.1:5432", Timeout: admission.DefaultTimeout},
			{Kind: admission.HTTP, Target: "https://a.example/ready", Timeout: 500 * time.Millisecond}, {Kind: admission.Env, Target: "TOKEN"}},
	}
	if diff := cmp.Diff([]admission.Terms{want, {}}, []admission.Terms{agents[0].Terms, agents[1].Terms}); diff != "" {
		t.Error(diff)
	}
}

func TestNoAgentsIsAList(t *testing.T) {
	agents, err := Parse("agents.yaml", []byte("agents: []\n"), Options{})
	if err != nil || len(agents) != 0 || agents == nil {
		t.Errorf("got %v, %v", agents, err)
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/faults/*.yaml")
	for _, file := range append(files, "testdata/full.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		agents, err := Parse("agents.yaml", data, Options{AgentsDir: t.TempDir(), Tiers: tiers})
		if (agents == nil) == (err == nil) {
			t.Fatalf("neither agents nor faults, or both: %v, %v", agents, err)
		}
		for _, a := range agents {
			if faults := a.Agent.Check(tiers); len(faults) > 0 {
				t.Fatalf("an accepted agent has faults: %v", faults)
			}
		}
	})
}

// What is sent says everything, so the registry's own reader finds nothing to add and nothing to refuse.
func TestTheRegistryReadsAnEntryAsTheSameAgent(t *testing.T) {
	agents, err := Read("testdata/full.yaml", Options{Tiers: tiers})
	if err != nil {
		t.Fatal(err)
	}
	infinite, err := Parse("agents.yaml", []byte("agents:\n- {topic: a, command: ./x, process: {request_timeout: infinity}}\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range append(agents, infinite...) {
		a := l.Agent
		raw, err := Entry(a)
		if err != nil {
			t.Fatal(err)
		}
		back, faults := spec.ParseEntry(raw)
		if len(faults) > 0 {
			t.Fatalf("%s: %v", raw, faults)
		}
		if diff := cmp.Diff(a, back); diff != "" {
			t.Error(diff)
		}
	}
}

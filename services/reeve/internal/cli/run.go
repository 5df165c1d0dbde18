package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/reeve/internal/agentsfile"
	supervisor "github.com/reeve-run/reeve/services/supervisor/app"
)

// aloneFlags say which agent is run by hand.
type aloneFlags struct {
	callback, command string
	env               []string
	timeout           time.Duration
}

func (a *aloneFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.callback, "callback", "", "module:function, or a function in the file callback (default: handle_request or handle there)")
	f.StringVar(&a.command, "command", "", "the program instead of a callback, split at blanks; or a list as in agents.yaml: '[./agent, \"two words\"]'")
	f.StringArrayVar(&a.env, "env", nil, "NAME=VALUE, an environment variable for the agent; may be given again")
}

func (c *command) run() *cobra.Command {
	var flags aloneFlags
	var dir, content string
	cmd := &cobra.Command{
		Use:   "run --content JSON",
		Short: "Run one event through an agent, without Kafka and registry",
		Long: `Start an agent as a supervisor does, have it run one event, print its result and end it.

Which agent that is says the directory's agents.yaml, unless --callback or --command does; without any of them it is the
function in its file callback. What the agent writes goes to standard error. The exit code is 0 if the attempt completed,
else 1.`,
		Example: "  reeve run --content @event.json\n  reeve run --dir my-agent --callback callback:handle --content '{\"name\": \"Ada\"}'",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("content") {
				return usage("say what the event holds: by --content JSON or @FILE")
			}
			if flags.timeout < 0 || flags.timeout == 0 && cmd.Flags().Changed("timeout") {
				return usage("--timeout %s: give more than 0", flags.timeout)
			}
			body, err := c.content(content)
			if err != nil {
				return err
			}
			agent, err := flags.agent(dir)
			if err != nil {
				return err
			}
			lone, err := c.startAlone(cmd.Context(), dir, agent)
			if err != nil {
				return err
			}
			defer lone.Stop()
			return c.runOne(cmd.Context(), lone, body)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the agent's directory")
	cmd.Flags().StringVar(&content, "content", "", "the event's content: JSON, @FILE, or @- for standard input")
	cmd.Flags().DurationVar(&flags.timeout, "timeout", 0, fmt.Sprintf("how long the attempt may take (default: request_timeout in agents.yaml, else %s)", spec.NewProcess().RequestTimeout.Duration()))
	flags.add(cmd)
	return alone(c.outputFlag(cmd))
}

// startAlone starts the agent of a directory.
func (c *command) startAlone(ctx context.Context, dir string, agent *spec.Agent) (*supervisor.Alone, error) {
	lone, err := supervisor.StartAlone(ctx, supervisor.AloneConfig{Agent: agent, AgentsDir: dir, Environ: c.Environ, Log: func(line string) { c.say("%s", line) }})
	return lone, didNotRun(err)
}

// agent is the spec that a directory and the flags make: without a callback and a command that of its own agents.yaml, if
// it has one.
func (a aloneFlags) agent(dir string) (*spec.Agent, error) {
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil, usage("%s is no directory that can be read: name the agent's", dir)
	}
	agent, err := a.named(dir)
	if err != nil {
		return nil, err
	}
	env := make(map[string]string, len(agent.Env)+len(a.env))
	maps.Copy(env, agent.Env)
	for _, e := range a.env {
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			return nil, usage("--env %s: write NAME=VALUE", e)
		}
		env[name] = value
	}
	agent.Env = env
	p := &agent.Process
	p.GracefulTimeoutSec, p.SigtermTimeoutSec = 2, 2 // somebody waits for the command
	if a.timeout > 0 {
		p.RequestTimeout = spec.Seconds(a.timeout.Seconds())
	}
	return agent, nil
}

// named is the agent that the flags name, else the directory's file, else the file with its code.
func (a aloneFlags) named(dir string) (*spec.Agent, error) {
	if a.callback == "" && a.command == "" {
		agent, err := ofFile(dir)
		if agent != nil || err != nil {
			return agent, err
		}
	}
	words := strings.Fields(a.command)
	if strings.HasPrefix(strings.TrimSpace(a.command), "[") {
		words = nil
		if err := yaml.Unmarshal([]byte(a.command), &words); err != nil {
			return nil, usage("--command: %q is no list: write '[./agent, --flag]'", a.command)
		}
	}
	agent, err := agentsfile.Alone(dir, a.callback, words)
	if err != nil {
		return nil, usage("%w", err)
	}
	return agent, nil
}

// ofFile is the one agent of a directory's agents.yaml whose directory that is; nil where there is no file, or none of its
// agents is there.
func ofFile(dir string) (*spec.Agent, error) {
	path := filepath.Join(dir, "agents.yaml")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	listed, err := agentsfile.Read(path, agentsfile.Options{AgentsDir: dir})
	if err != nil {
		return nil, failure(Failed, "%w\n  correct it, or say what to run by --callback or --command", err)
	}
	var here []*spec.Agent
	var names []string
	for _, l := range listed {
		if filepath.Clean(l.Agent.Dir) == "." {
			here, names = append(here, l.Agent), append(names, l.Agent.Ref())
		}
	}
	switch len(here) {
	case 0:
		return nil, nil
	case 1:
		return here[0], nil
	}
	return nil, usage("%s lists more than one agent of this directory (%s): say what to run by --callback or --command", path, strings.Join(names, ", "))
}

// remediesAlone are what a person can do who sees the agent's log on the terminal.
var remediesAlone = map[string]string{
	"AgentStartupError": "check that the directory, the program and its permissions are right; what it wrote, if anything, stands above",
	"AgentTimeoutError": "raise --timeout, or find what blocks it; what it wrote, if anything, stands above",
	"AgentCrashError":   "what it wrote before its end, if anything, stands above",
}

// didNotRun gives an agent's typed error its remedy.
func didNotRun(err error) error {
	var lone *supervisor.AloneError
	if !errors.As(err, &lone) {
		return err
	}
	remedy := remediesAlone[lone.Cause.Type]
	if remedy == "" {
		remedy = lone.Cause.Remediation
	}
	return failure(Failed, "%w\n  %s", err, remedy)
}

// attempt is the end of an attempt, as JSON.
type attempt struct {
	Outcome      task.Outcome    `json:"outcome"`
	Result       json.RawMessage `json:"result,omitempty"`
	ErrorClass   task.Class      `json:"error_class,omitempty"`
	ErrorType    string          `json:"error_type,omitempty"`
	ErrorMessage string          `json:"error_message,omitempty"`
	Traceback    string          `json:"traceback,omitempty"`
	Settled      task.Settled    `json:"settled"` // what Reeve would do with it
	Seconds      float64         `json:"seconds"`
}

// runOne runs an event and writes what came of it.
func (c *command) runOne(ctx context.Context, lone *supervisor.Alone, content json.RawMessage) error {
	began := time.Now()
	r, err := lone.Run(ctx, content)
	took := time.Since(began)
	lone.Stop() // what it wrote stands before what came of it
	switch {
	case err != nil:
		return didNotRun(err)
	case r.CutShort:
		return failure(Failed, "the agent was ended before it answered, it neither read nor answered pings: what it wrote, if anything, stands above")
	}
	config := spec.NewConfig("")
	v := worker.Judge(worker.Policy{MaxRetries: config.MaxRetries, Delays: config.Delays(), Tiers: config.Delays(), DLQ: config.DLQEnabled}, worker.Tries{Number: 1}, r)
	a := attempt{r.Outcome, r.Value, v.Class, r.Type, r.Message, r.Traceback, v.Settled, took.Seconds()}
	if a.Outcome == task.Completed && a.Result == nil {
		a.Result = json.RawMessage("null")
	}
	if err := c.write(a, func() { c.attempt(a, v) }); err != nil {
		return err
	}
	if a.Outcome != task.Completed {
		return silent(Failed)
	}
	return nil
}

// attempt writes the result, or what went wrong and what Reeve would make of it.
func (c *command) attempt(a attempt, v worker.Verdict) {
	if a.Outcome == task.Completed {
		_, _ = fmt.Fprintln(c.Out, string(a.Result))
		return
	}
	if a.Traceback != "" && a.Outcome == task.Failed { // a crash's is its log, which stands above
		c.say("%s", strings.TrimRight(a.Traceback, "\n"))
	}
	typ := ""
	if a.ErrorType != "" {
		typ = a.ErrorType + ": "
	}
	c.say("error: the attempt %s: %s%s", strings.ReplaceAll(string(a.Outcome), "_", " "), typ, a.ErrorMessage)
	then := "Reeve would dead-letter the event at once"
	if v.Settled == task.SettledRetry {
		then = fmt.Sprintf("Reeve would try it again after %s", v.Delay)
	}
	derived := ""
	if v.Derived {
		derived = " (guessed from the message)"
	}
	c.say("  its class is %s%s: %s", a.ErrorClass, derived, then)
}

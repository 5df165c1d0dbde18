package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/services/reeve/internal/agentsfile"
)

// plan says for which installation and agents topics and rights are listed.
type plan struct {
	file, agentsDir string
	agents          []string
	sourceMaxBytes  int
}

func (c *command) planFlags(cmd *cobra.Command, p *plan) {
	f := cmd.Flags()
	f.StringVarP(&p.file, "file", "f", "", "the agents that this file lists, whatever their conditions say")
	f.StringVar(&p.agentsDir, "agents-dir", "", "where the agents' directories are, to tell Python from Node (default: the file's folder)")
	f.StringSliceVar(&p.agents, "agent", nil, "an agent, as TOPIC/NAME; may be repeated")
	completeFlag(cmd, "agent", c.completeAgents())
}

// installation is what the plan is for: the environment's prefix and tiers, and the agents of the file and the flags, or
// where none are named those of the registry.
func (c *command) installation(ctx context.Context, p plan) (kafka.Installation, config.Kafka, error) {
	if p.agentsDir != "" && p.file == "" {
		return kafka.Installation{}, config.Kafka{}, usage("--agents-dir is for the agents of a file: name it by -f")
	}
	cfg, err := c.kafkaConfig()
	if err != nil {
		return kafka.Installation{}, cfg, err
	}
	i := kafka.Installation{Names: cfg.Names(), Tiers: cfg.RetryTiers, SourceMaxBytes: p.sourceMaxBytes}
	switch {
	case p.file == "" && len(p.agents) == 0:
		i.Agents, err = c.registered(ctx)
		if unreachable := (*client.UnreachableError)(nil); errors.As(err, &unreachable) {
			c.say("note: no registry answers at %s, so this is without any agent's: name them by -f agents.yaml or --agent TOPIC/NAME", c.conn.URL)
			err = nil
		}
	default:
		i.Agents, err = p.named()
	}
	if err != nil {
		return i, cfg, err
	}
	for _, a := range i.Agents {
		if err := i.Names.Check(a.Topic, a.Name); err != nil {
			return i, cfg, failure(Failed, "agent %s: %w", a.Ref(), err)
		}
	}
	return i, cfg, nil
}

// kafkaConfig is what a service would know of Kafka here.
func (c *command) kafkaConfig() (config.Kafka, error) {
	cfg, _, err := config.Load(config.Dispatcher, c.Environ) // its warnings are told for every command
	if err != nil {
		return cfg.Kafka, failure(Failed, "%w", err)
	}
	return cfg.Kafka, nil
}

// named are the agents that the command line names.
func (p plan) named() ([]*spec.Agent, error) {
	all := map[string]*spec.Agent{}
	if p.file != "" {
		listed, err := agentsfile.Read(p.file, agentsfile.Options{AgentsDir: p.agentsDir})
		if err != nil {
			return nil, failure(Failed, "the file can't be used:\n%w", err)
		}
		for _, l := range listed {
			all[l.Agent.Ref()] = l.Agent
		}
	}
	for _, name := range p.agents {
		r, err := ref{}.resolve(&cobra.Command{}, []string{name})
		if err != nil {
			return nil, err
		}
		if all[r.String()] == nil {
			all[r.String()] = &spec.Agent{Topic: r.topic, Name: r.name, Partitions: spec.DefaultPartitions, Config: spec.NewConfig("")}
		}
	}
	var out []*spec.Agent
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[name])
	}
	return out, nil
}

// registered are the registry's agents.
func (c *command) registered(ctx context.Context) ([]*spec.Agent, error) {
	cl, err := c.client()
	if err != nil {
		return nil, err
	}
	list, err := pages(0, func(size int, token string) ([]byte, error) {
		r, err := cl.ListAgentsWithResponse(ctx, &client.ListAgentsParams{PageSize: &size, PageToken: token})
		if err != nil {
			return nil, err
		}
		return r.Body, nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]*spec.Agent, len(list))
	for n, raw := range list {
		var a client.Agent
		if err := json.Unmarshal(raw, &a); err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		out[n] = &spec.Agent{Topic: a.Topic, Name: a.Name, Runtime: a.Runtime, Dir: a.Dir, Partitions: a.Partitions, Config: spec.Config{DLQEnabled: a.Config.DLQEnabled}}
	}
	return out, nil
}

// tool is how the lines of a script call Kafka's own tools.
type tool struct {
	commands               bool
	bootstrap, adminConfig string
}

func (t *tool) flags(cmd *cobra.Command, what string) {
	f := cmd.Flags()
	f.BoolVar(&t.commands, "commands", false, "write a line of "+what+" for each, to be run by somebody with the right to")
	f.StringVar(&t.bootstrap, "bootstrap-server", "", "the broker in these lines (default: REEVE_KAFKA_BROKERS)")
	f.StringVar(&t.adminConfig, "command-config", "", "the properties file in these lines, by which the tool gets in")
}

// check refuses flags that would be ignored.
func (t *tool) check(cmd *cobra.Command) error {
	for _, name := range []string{"bootstrap-server", "command-config"} {
		if cmd.Flags().Changed(name) && !t.commands {
			return usage("--%s is for the lines that --commands writes: add it", name)
		}
	}
	if t.commands && cmd.Flags().Changed("output") {
		return usage("--commands writes lines of a shell, and -o something else: keep one")
	}
	return nil
}

// line begins a command line.
func (t *tool) line(script string, cfg config.Kafka) []string {
	bootstrap := t.bootstrap
	if bootstrap == "" {
		bootstrap = strings.Join(cfg.Brokers, ",")
	}
	line := []string{script, "--bootstrap-server", quote(bootstrap)}
	if t.adminConfig != "" {
		line = append(line, "--command-config", quote(t.adminConfig))
	}
	return line
}

// quote makes a text one word of a shell's.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:,/=") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// listedTopic is a topic of the list, as JSON.
type listedTopic struct {
	Topic             string            `json:"topic"`
	Agent             string            `json:"agent,omitempty"`
	Partitions        int32             `json:"partitions"`
	ReplicationFactor int16             `json:"replication_factor"` // -1: the brokers' default
	WrittenBy         []string          `json:"written_by"`
	ReadBy            []string          `json:"read_by"`
	CreatedBy         []string          `json:"created_by"`
	Configs           map[string]string `json:"configs"`
}

func (c *command) topics() *cobra.Command {
	var p plan
	var t tool
	cmd := &cobra.Command{
		Use:   "topics",
		Short: "List the topics that an installation needs, with their settings",
		Long: `List the topics that an installation needs, with their settings and who writes and reads them, for those who make
topics themselves. A service that may create topics makes its own; one that finds them there needs no right to.

The agents are those of -f and --agent, or where neither is given the registry's. The prefix, the retry tiers and the
replication factor are those of this environment (REEVE_TOPIC_PREFIX, REEVE_RETRY_TIERS, REEVE_TOPIC_REPLICATION), as for
the services. The agents' own topics aren't listed: they are yours.`,
		Example: "  reeve topics -f agents.yaml\n  reeve topics --agent orders/pricing --commands --command-config admin.properties",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := t.check(cmd); err != nil {
				return err
			}
			if p.sourceMaxBytes < 1 || p.sourceMaxBytes > 1<<30 {
				return usage("--source-max-bytes %d is out of range: give the topics' max.message.bytes, at most %d", p.sourceMaxBytes, 1<<30)
			}
			i, cfg, err := c.installation(cmd.Context(), p)
			if err != nil {
				return err
			}
			if t.commands {
				for _, planned := range i.Topics() {
					_, _ = fmt.Fprintln(c.Out, strings.Join(t.create(planned, cfg), " "))
				}
				return nil
			}
			return c.listTopics(i, cfg)
		},
	}
	c.planFlags(cmd, &p)
	cmd.Flags().IntVar(&p.sourceMaxBytes, "source-max-bytes", kafka.DefaultMaxBytes, "the largest max.message.bytes of the agents' topics")
	t.flags(cmd, "kafka-topics.sh")
	return c.outputFlag(cmd)
}

// create is the line that makes a topic, and does nothing where it is there.
func (t *tool) create(p kafka.Planned, cfg config.Kafka) []string {
	line := append(t.line("kafka-topics.sh", cfg), "--create", "--if-not-exists", "--topic", quote(p.Name), "--partitions", number(p.Partitions))
	if cfg.Replication > 0 {
		line = append(line, "--replication-factor", number(int32(cfg.Replication)))
	}
	for _, name := range sorted(p.Configs) {
		line = append(line, "--config", quote(name+"="+p.Configs[name]))
	}
	return line
}

func (c *command) listTopics(i kafka.Installation, cfg config.Kafka) error {
	list := []json.RawMessage{}
	for _, p := range i.Topics() {
		b, err := json.Marshal(listedTopic{Topic: p.Name, Agent: p.Agent, Partitions: p.Partitions, ReplicationFactor: cfg.Replication,
			WrittenBy: p.WrittenBy, ReadBy: p.ReadBy, CreatedBy: p.CreatedBy, Configs: p.Configs})
		if err != nil {
			return fmt.Errorf("write topics: %w", err)
		}
		list = append(list, b)
	}
	return writeListing(c, list, listing[listedTopic]{
		columns: []string{"TOPIC", "PARTITIONS", "WRITTEN BY", "READ BY", "SETTINGS"},
		row: func(t listedTopic) []string {
			return []string{t.Topic, number(t.Partitions), strings.Join(t.WrittenBy, ","), strings.Join(t.ReadBy, ","), settingsOf(t.Configs)}
		},
		more: []string{"AGENT", "CREATED BY", "REPLICATION"},
		moreRow: func(t listedTopic) []string {
			replication := "default"
			if t.ReplicationFactor > 0 {
				replication = number(int32(t.ReplicationFactor))
			}
			return []string{t.Agent, strings.Join(t.CreatedBy, ","), replication}
		},
	})
}

func settingsOf(configs map[string]string) string {
	parts := make([]string, 0, len(configs))
	for _, name := range sorted(configs) {
		parts = append(parts, name+"="+configs[name])
	}
	return strings.Join(parts, " ")
}

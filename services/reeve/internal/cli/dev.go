package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func (c *command) dev() *cobra.Command {
	var o DevOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run all of Reeve in one process, with an embedded Kafka and Postgres",
		Long: `Run registry, dispatcher and supervisor in one process, with an embedded Kafka and Postgres unless others are named.

No key is needed on a loopback address. Where a usual port is taken and its flag isn't given, a free one is used and
said. Data stays in --data: after an end of any kind the next start goes on where this one stopped.

A change of a source file in an agent's directory (.py .js .mjs .ts .go .json .yaml .toml .txt .env, programs) restarts the
agent; a change of the agents file applies it again.`,
		Example: "  reeve dev\n  reeve dev -f agents.yaml --data /tmp/reeve",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.ListenGiven, o.KafkaListenGiven = cmd.Flags().Changed("listen"), cmd.Flags().Changed("kafka-listen")
			o.FileGiven, o.AgentsDirGiven = cmd.Flags().Changed("file"), cmd.Flags().Changed("agents-dir")
			for _, name := range []string{"brokers", "database-url", "data"} {
				if f := cmd.Flags().Lookup(name); f.Changed && strings.Trim(f.Value.String(), "[],\"' ") == "" {
					return usage("--%s is empty: leave it out, or say what to use", name)
				}
			}
			if slices.Contains(o.Brokers, "") {
				return usage("--brokers %s names an empty one: give host:port,…", strings.Join(o.Brokers, ","))
			}
			if len(o.Brokers) > 0 && o.KafkaListenGiven {
				return usage("--kafka-listen is the embedded broker's, and --brokers names another: keep one")
			}
			return c.Dev(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Data, "data", ".reeve", "where everything is kept")
	f.StringVar(&o.Listen, "listen", "127.0.0.1:8765", "where REST and the dashboard are")
	f.StringVar(&o.KafkaListen, "kafka-listen", "127.0.0.1:9092", "where the embedded Kafka is")
	f.StringVar(&o.AgentsDir, "agents-dir", "", "where the agents' directories are (default: the folder of the agents file, else the working directory)")
	f.StringVarP(&o.File, "file", "f", "agents.yaml", "the agents to apply; the default is applied if it is there")
	f.StringSliceVar(&o.Brokers, "brokers", nil, "a Kafka to use instead of the embedded one, host:port,…")
	f.StringVar(&o.DatabaseURL, "database-url", "", "a Postgres to use instead of the embedded one")
	return alone(cmd)
}

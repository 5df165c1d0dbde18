package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/version"
	"github.com/reeve-run/reeve/pkg/client"
	"github.com/reeve-run/reeve/services/reeve/internal/doctor"
)

func (c *command) doctor() *cobra.Command {
	var p plan
	var services []string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine what the services stand on, and say what is missing",
		Long: `Examine what the services stand on as they would see it in this environment, step by step: the configuration, each
broker, TLS and SASL, the topics with their settings, each right on Kafka, Postgres, the registry, the agents' directory
and interpreters. It changes nothing. What fails or is worth a warning comes with its remedy.

Run it with a service's own environment; --service says whose needs to look at (default: registry, dispatcher and
supervisor). The agents are those of -f and --agent, or where neither is given the registry's.

Exit code 0 only where nothing failed.`,
		Example: "  reeve doctor\n  reeve doctor --service dispatcher -f agents.yaml",
		Args:    exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(services) == 0 {
				services = []string{config.Registry, config.Dispatcher, config.Supervisor}
			}
			for _, s := range services {
				if !slices.Contains(kafka.Services(), s) {
					return usage("--service %s is unknown: there are %s", s, strings.Join(kafka.Services(), ", "))
				}
			}
			if p.agentsDir != "" && p.file == "" {
				return usage("--agents-dir is for the agents of a file: name it by -f")
			}
			return c.examine(cmd.Context(), p, services)
		},
	}
	c.planFlags(cmd, &p)
	cmd.Flags().StringSliceVar(&services, "service", nil, "whose needs: "+strings.Join(kafka.Services(), ", ")+" (an SDK program); may be repeated")
	completeFlag(cmd, "service", words(kafka.Services()...))
	return c.outputFlag(cmd)
}

func (c *command) examine(ctx context.Context, p plan, services []string) error {
	e := &doctor.Examination{Services: services}
	if c.forPeople() {
		e.Report = c.check
	}
	if c.configuration(e) {
		e.Installation = kafka.Installation{Names: e.Config.Kafka.Names(), Tiers: e.Config.Kafka.RetryTiers}
		c.examineAgents(ctx, e, p)
		e.Kafka(ctx)
		if slices.Contains(services, config.Registry) {
			e.Database(ctx)
		}
		if slices.Contains(services, config.Supervisor) {
			e.Agents(c.agentsPlace(p))
		}
	}
	if !c.forPeople() {
		list := []json.RawMessage{}
		for _, check := range e.Checks() {
			b, err := json.Marshal(check)
			if err != nil {
				return fmt.Errorf("write checks: %w", err)
			}
			list = append(list, b)
		}
		if err := c.write(items{list}, func() {}); err != nil {
			return err
		}
	}
	if e.Failed() {
		return silent(Failed)
	}
	return nil
}

// agentsPlace is where the agents are: as given, else beside the file that lists them, else not known here.
func (c *command) agentsPlace(p plan) string {
	switch given := c.variable("REEVE_AGENTS_DIR"); {
	case p.agentsDir != "":
		return p.agentsDir
	case given != "":
		return given
	case p.file != "":
		return filepath.Dir(p.file)
	}
	return ""
}

// configuration reads what the services would; it reports whether there is something to go on with.
func (c *command) configuration(e *doctor.Examination) bool {
	load := config.Supervisor
	if c.variable("REEVE_DATABASE_URL") != "" || len(e.Services) == 1 && e.Services[0] == config.Registry {
		load = config.Registry // which asks for a database
	}
	cfg, _, err := config.Load(load, c.Environ)
	if err != nil {
		e.Add(doctor.Check{Name: "configuration", Status: doctor.Fail, Detail: err.Error()})
		return false
	}
	e.Config = cfg
	e.Add(doctor.Check{Name: "configuration", Status: doctor.OK,
		Detail: fmt.Sprintf("Kafka at %s over %s, prefix %s", strings.Join(cfg.Kafka.Brokers, ","), cfg.Kafka.Security.Protocol(), cfg.Kafka.Prefix)})
	return true
}

// examineAgents looks at the registry, and takes the agents from where the plan says.
func (c *command) examineAgents(ctx context.Context, e *doctor.Examination, p plan) {
	agents, err := c.registered(ctx)
	unreachable := (*client.UnreachableError)(nil)
	switch {
	case errors.As(err, &unreachable):
		e.Add(doctor.Check{Name: "registry", Status: doctor.Warn, Detail: err.Error(), Remedy: strings.Join(c.whyUnreachable(unreachable), "; ")})
	case err != nil:
		e.Add(doctor.Check{Name: "registry", Status: doctor.Fail, Detail: err.Error(), Remedy: strings.Join(c.remedies(ctx, err), "; ")})
	default:
		e.Add(c.checkVersion(len(agents)))
	}
	if p.file != "" || len(p.agents) > 0 {
		if agents, err = p.named(); err != nil {
			e.Add(doctor.Check{Name: "agents", Status: doctor.Fail, Detail: err.Error()})
			return
		}
	}
	e.Installation.Agents = agents
}

// checkVersion compares the registry's version with this program's.
func (c *command) checkVersion(agents int) doctor.Check {
	theirs, _ := c.registryVersion()
	if theirs == "" {
		return doctor.Check{Name: "registry", Status: doctor.Warn, Detail: fmt.Sprintf("at %s, %s; it doesn't say its version", c.conn.URL, count(agents, "agent")),
			Remedy: fmt.Sprintf("it is older than this reeve (%s): upgrade it", version.Number)}
	}
	check := doctor.Check{Name: "registry", Status: doctor.OK, Detail: fmt.Sprintf("at %s, version %s, %s", c.conn.URL, theirs, count(agents, "agent"))}
	if !version.Compatible(version.Number, theirs) {
		check.Status = doctor.Fail
		check.Remedy = fmt.Sprintf("upgrade the older: this reeve has version %s", version.Number)
	}
	return check
}

// check writes a check for people: as it is made, since some take seconds.
func (c *command) check(k doctor.Check) {
	_, _ = fmt.Fprintf(c.Out, "%-4s  %s: %s\n", k.Status, k.Name, k.Detail)
	if k.Remedy != "" {
		_, _ = fmt.Fprintf(c.Out, "      → %s\n", k.Remedy)
	}
}
